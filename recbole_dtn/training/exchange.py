"""Checkpoints of models that RecBole built: writing them in our format, and loading ours into them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from recbole_dtn.errors import UsageError
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.model.direct.trees import GrowingBuffers
from recbole_dtn.record.checkpoint import read_checkpoint, write_checkpoint

__all__ = ["load_into", "save_checkpoint"]


def save_checkpoint(model: MultiTaskRecommender, path: str | Path) -> None:
    """Write the checkpoint of a model that RecBole built, in our format: plain values, no pickled Config.

    Raises:
        UsageError: for a model that RecBole did not build (training it writes its checkpoint).
    """
    if model.translator is None:
        raise UsageError("this model was built from Settings; save_checkpoint is for one that RecBole built")
    write_checkpoint(Path(path), model, model.translator.vocabularies, epoch=0)


def load_into(model: MultiTaskRecommender, path: str | Path) -> None:
    """Load a checkpoint of ours, or the run folder that holds it, into a model that RecBole built.

    From then on the model encodes RecBole's batches with the checkpoint's vocabularies, bins and means, so that it
    scores a row as the run that wrote the checkpoint does.

    Raises:
        UsageError: when fields, tasks or shapes differ; all of them are named.
    """
    if model.translator is None:
        raise UsageError("this model was built from Settings; load_into is for one that RecBole built")
    found = read_checkpoint(Path(path))
    pairs: dict[str, tuple[object, object]] = {
        "fields": ([f.name for f in found.schema.fields], [f.name for f in model.schema.fields]),
        "tasks": (list(found.schema.task_names), list(model.schema.task_names)),
    }
    # Neither shows in the table's shape: which tokens share rows, and how many tokens there are to share them.
    shared = (found.settings.get("embedding_compression"), model.settings.embedding_compression.model_dump())
    if {"none"} != {(each or {"method": "none"})["method"] for each in shared}:
        pairs["embedding_compression"] = shared
        here = {spec.name: spec.size for spec in model.schema.fields}
        pairs |= {f"rows of {spec.name}": (spec.size, here.get(spec.name)) for spec in found.schema.fields}
    # Names of both sides, so that missing and surplus parameters are faults too.
    saved, current = found.state_dict, model.state_dict()
    # Buffers that take the shape of what is loaded differ in shape between any two fits.
    growing = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, GrowingBuffers)
        for name, _ in module.named_buffers(recurse=False)
    }
    for name in sorted((saved.keys() | current.keys()) - (growing & saved.keys())):
        pairs[name] = (_shape(saved, name), _shape(current, name))
    faults = [
        f"{name}: {there} in the checkpoint, {here} here" for name, (there, here) in pairs.items() if there != here
    ]
    if faults:
        raise UsageError(f"{path} does not fit this model:\n  " + "\n  ".join(faults))
    model.load_state_dict(saved)
    # Only after the weights have been loaded: an error above leaves the model as it was.
    model.schema = found.schema
    model.translator.adopt(found.schema, found.vocabularies)


def _shape(tensors: dict[str, Tensor], name: str) -> list[int | str]:
    return list(tensors[name].shape) if name in tensors else ["missing"]
