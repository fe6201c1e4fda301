"""A checkpoint: weights, schema, vocabularies and settings as plain values, readable with ``weights_only=True``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.schema import DataSchema

__all__ = ["FILE_NAME", "Checkpoint", "initialise_from", "read_checkpoint", "read_weights", "write_checkpoint"]

FILE_NAME = "checkpoint.ckpt"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    state_dict: dict[str, Tensor]
    schema: DataSchema
    vocabularies: Vocabularies
    settings: dict[str, Any]
    epoch: int


def write_checkpoint(path: Path, model: MultiTaskRecommender, vocabularies: Vocabularies, *, epoch: int) -> None:
    """Write a checkpoint whole or not at all."""
    content = {
        "format": FORMAT,
        "state_dict": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "schema": model.schema.to_dict(),
        "vocabularies": vocabularies.to_dict(),
        "settings": model.settings.dump(),
        "epoch": epoch,
    }
    temporary = path.with_name(f".{path.name}.writing")
    torch.save(content, temporary)
    os.replace(temporary, path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint (the file, or the run folder that holds it), onto the CPU.

    Raises:
        DataError: when it is missing or is not one of ours.
    """
    content = _content(path, mapped=False)
    return Checkpoint(
        state_dict=content["state_dict"],
        schema=DataSchema.from_dict(content["schema"]),
        vocabularies=Vocabularies.from_dict(content["vocabularies"]),
        settings=content["settings"],
        epoch=content["epoch"],
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint alone, mapped from the file: they are copied once, into the model that loads them.

    Raises:
        DataError: as :func:`read_checkpoint`.
    """
    weights: dict[str, Tensor] = _content(path, mapped=True)["state_dict"]
    return weights


def _content(path: Path, *, mapped: bool) -> dict[str, Any]:
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"no checkpoint at {file}: expected a run folder, as printed at the end of a run")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise DataError(f"{file} is not a checkpoint that torch can read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{file} is not a checkpoint of format {FORMAT}: it was written by another program or version")
    return content


def initialise_from(model: MultiTaskRecommender, vocabularies: Vocabularies, folder: Path) -> int:
    """Start ``model`` from the weights of a run; embedding rows are matched by field and token.

    A row whose token the old run did not know keeps its fresh initialisation. Returns the number of embedding rows
    that were taken over.

    Raises:
        UsageError: when any other parameter is missing or differs in shape; all of them are named.
    """
    old = read_checkpoint(folder)
    current = model.state_dict()
    tables = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if module in model.tables() and getattr(module, "kind", "") == "embedding"
    }
    faults = [
        f"{name}: {'missing there' if name not in old.state_dict else tuple(old.state_dict[name].shape)} "
        f"against {tuple(tensor.shape)} here"
        for name, tensor in current.items()
        if name not in tables and (name not in old.state_dict or old.state_dict[name].shape != tensor.shape)
    ]
    faults += [f"{name}: missing there" for name in tables if name not in old.state_dict]
    widths = {current[name].shape[1] for name in tables} | {
        old.state_dict[name].shape[1] for name in tables if name in old.state_dict
    }
    if len(widths) > 1:
        faults.append(f"embedding_size: {sorted(widths)}")
    if faults:
        own = set(type(model.settings).model_fields) - set(Settings.model_fields)
        now = model.settings.dump()
        differing = [
            f"{key}: {old.settings.get(key)} there, {now[key]} here"
            for key in ("model", "embedding_size", *sorted(own))
            if old.settings.get(key) != now[key]
        ]
        if old.settings["model"] != now["model"]:
            differing = differing[:1]  # another model's own settings explain nothing
        shown = differing or faults[:5]
        more = f"\n  and {len(faults) - 5} more" if not differing and len(faults) > 5 else ""
        raise UsageError(
            f"init_from={folder}: that run ({old.settings['model']} on {old.settings['dataset']}) does not fit this "
            "model; give both the same model settings and fields:\n  " + "\n  ".join(shown) + more
        )
    new_rows, old_rows = match_rows(model.schema, vocabularies, old)
    with torch.no_grad():
        for name, tensor in current.items():
            if name in tables:
                tensor[new_rows] = old.state_dict[name][old_rows]
            else:
                tensor.copy_(old.state_dict[name])
    return len(new_rows)


def match_rows(schema: DataSchema, vocabularies: Vocabularies, old: Checkpoint) -> tuple[Tensor, Tensor]:
    """Rows of the new and of the old fused table that mean the same (field, token); two int64 tensors of one length."""
    new: list[int] = []
    from_old: list[int] = []
    old_fields = {spec.name: spec for spec in old.schema.fields}
    for spec in schema.fields:
        known = old_fields.get(spec.name)
        if known is None or known.kind != spec.kind or known.bins != spec.bins:
            continue
        if spec.kind == "float":
            pairs = [(local, local) for local in range(spec.size)]
        else:
            rows_there = {token: 2 + i for i, token in enumerate(old.vocabularies.tokens(spec.name))}
            here = enumerate(vocabularies.tokens(spec.name))
            pairs = [(0, 0), (1, 1), *((2 + i, rows_there[token]) for i, token in here if token in rows_there)]
        new += [spec.offset + a for a, _ in pairs]
        from_old += [known.offset + b for _, b in pairs]
    return torch.tensor(new, dtype=torch.int64), torch.tensor(from_old, dtype=torch.int64)
