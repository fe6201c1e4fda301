"""A checkpoint: weights, schema, vocabularies and settings as plain values, readable with ``weights_only=True``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.layers.compression import Compression, RowBlock, row_blocks
from recbole_dtn.layers.embedding import EmbeddingTable
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.plugins import plugin_states
from recbole_dtn.record.held import held
from recbole_dtn.record.plain_file import load_plain, save_plain
from recbole_dtn.report.files import temporary_file, writing
from recbole_dtn.schema import DataSchema

__all__ = [
    "FILE_NAME", "Checkpoint", "checkpoint_epoch", "initialise_from", "load_weights", "read_checkpoint",
    "read_weights", "save_whole", "write_checkpoint",
]  # fmt: skip

FILE_NAME = "checkpoint.ckpt"
FORMAT = 1
KEYS = {"state_dict": dict, "schema": dict, "vocabularies": dict, "settings": dict, "epoch": int}
"""Keys that every checkpoint has, and their types."""
SHOWN = 3
"""Most faults that are named."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        balancer: state of the loss balancer.
        tables: field names of every embedding table, by its key in ``state_dict``.
        plugins: path and SHA-256 of the plug-ins that the model was made with
            (:class:`recbole_dtn.record.record.PluginRecord`).
        record: the run's record at this epoch, where the run wrote one.
    """

    state_dict: dict[str, Tensor]
    schema: DataSchema
    vocabularies: Vocabularies
    settings: dict[str, Any]
    epoch: int
    balancer: dict[str, Tensor]
    tables: dict[str, list[str]]
    plugins: list[dict[str, Any]]
    record: dict[str, Any] | None = None


def write_checkpoint(
    path: Path,
    model: MultiTaskRecommender,
    vocabularies: Vocabularies,
    *,
    epoch: int,
    balancer: nn.Module | None = None,
    record: dict[str, Any] | None = None,
    replaced: Callable[[], None] | None = None,
) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path, model, vocabularies, epoch, balancer, record: what :class:`Checkpoint` has.
        replaced: as in :func:`save_whole`.
    """
    content = {
        "format": FORMAT,
        "state_dict": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "schema": model.schema.to_dict(),
        "vocabularies": vocabularies.to_dict(),
        "settings": model.settings.dump(),
        "epoch": epoch,
        "balancer": {} if balancer is None else {k: tensor.cpu() for k, tensor in balancer.state_dict().items()},
        "tables": {name: list(table.field_names) for name, table in _tables(model).items()},
        "plugins": [asdict(state) for state in plugin_states(model.settings)],
        "record": record,
    }
    save_whole(path, content, replaced)


def save_whole(path: Path, content: dict[str, Any], replaced: Callable[[], None] | None = None) -> None:
    """``torch.save`` to a temporary name beside ``path``, with its checksum, flushed to the disk and then renamed.

    A process that is killed, interrupted or without space leaves the file that was there before.

    Args:
        path: of the file. content: plain values and tensors.
        replaced: called after the file has been renamed, with Ctrl-C and SIGTERM held back in between, so that what is
            noted of the file agrees with it.

    Raises:
        DataError: when it cannot be written, such as for a full disk.
    """
    with writing(path), temporary_file(path) as temporary:
        save_plain(content, temporary)
        _to_disk(temporary)
        with held():
            os.replace(temporary, path)
            if replaced is not None:
                replaced()
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint (the file, or the run folder that holds it), onto the CPU.

    Raises:
        DataError: when it is missing, is not one of ours, or does not have its checksum.
    """
    content = _content(path, mapped=False)
    try:
        schema, vocabularies = content["schema"], content["vocabularies"]
        return Checkpoint(
            state_dict=content["state_dict"],
            schema=DataSchema.from_dict(schema),
            vocabularies=Vocabularies.from_dict(vocabularies),
            settings=content["settings"],
            epoch=content["epoch"],
            balancer=content.get("balancer", {}),  # older checkpoints have none
            tables=content.get("tables", {}),
            plugins=content.get("plugins", []),
            record=content.get("record"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{_file(path)}: its schema or vocabularies are not what a run writes ({type(error).__name__}: {error}); "
            "take another copy of it, or train again"
        ) from error


def checkpoint_epoch(folder: Path) -> int | None:
    """The epoch of a run's checkpoint; None without one.

    Raises:
        DataError: as :func:`read_checkpoint`, for one that cannot be read.
    """
    if not (folder / FILE_NAME).is_file():
        return None
    epoch: int = _content(folder, mapped=True)["epoch"]
    return epoch


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint alone, mapped from the file: they are copied once, into the model that loads them.

    Raises:
        DataError: as :func:`read_checkpoint`.
    """
    weights: dict[str, Tensor] = _content(path, mapped=True)["state_dict"]
    return weights


def _content(path: Path, *, mapped: bool) -> dict[str, Any]:
    file = _file(path)
    if not file.is_file():
        raise DataError(f"no checkpoint at {file}: expected a run folder, as printed at the end of a run")
    content = load_plain(file, mapped=mapped)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{file} is not a checkpoint of format {FORMAT}: it was written by another program or version")
    faults = [
        f"{key}: expected {'a map' if kind is dict else 'a whole number'}, found "
        + (type(content[key]).__name__ if key in content else "none")
        for key, kind in KEYS.items()
        if not isinstance(content.get(key), kind)
    ]
    faults += [
        f"state_dict.{name}: expected a tensor, found {type(found).__name__}"
        for name, found in (content["state_dict"].items() if not faults else ())
        if not isinstance(found, Tensor)
    ]
    if faults:
        raise DataError(
            f"{file} is not a whole checkpoint: {'; '.join(faults[:SHOWN])}; take another copy of it, or train again"
        )
    return content


def _file(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def load_weights(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load all weights of a model.

    Args:
        model: gets them. state: by name. where: their file, for messages.

    Raises:
        DataError: where a weight is missing, is not one of the model, or has another shape or type.
    """
    # torch would convert them without a word, and cut off what does not fit.
    faults = [
        f"{name}: {state[name].dtype} there, {tensor.dtype} in the model"
        for name, tensor in model.state_dict().items()
        if name in state and state[name].dtype != tensor.dtype
    ]
    if not faults:
        try:
            model.load_state_dict(state)
            return
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            faults = [" ".join(line.split()) for line in str(error).splitlines()]
            # The first line says no more than that the others are faults.
            faults = faults[1:] or faults
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    raise DataError(
        f"{where} does not fit the model of its settings: {'; '.join(faults[:SHOWN])}{more}; take the checkpoint and "
        "the record of one run"
    )


def _tables(model: MultiTaskRecommender) -> dict[str, EmbeddingTable]:
    """Every embedding table, by the key of its weight in the model's ``state_dict``."""
    return {f"{name}.table.weight": part for name, part in model.named_modules() if isinstance(part, EmbeddingTable)}


def initialise_from(model: MultiTaskRecommender, vocabularies: Vocabularies, folder: Path) -> int:
    """Start ``model`` from the weights of a run; embedding rows are matched by field and token.

    A row whose token the old run did not know keeps its fresh initialisation. Shared rows are copied if the field has
    the same tokens in the same order and the same ``embedding_compression``. Returns the number of embedding rows that
    were taken over.

    Raises:
        UsageError: when any other parameter is missing or differs in shape, or a field's tokens share rows in another
            way; all of them are named.
    """
    old = read_checkpoint(folder)
    current = model.state_dict()
    tables = _tables(model)
    _refuse_misfit(model, old, folder, tables)
    matched = {
        name: match_rows(
            _of_fields(model.schema, table.field_names),
            vocabularies,
            replace(old, schema=_of_fields(old.schema, old.tables.get(name))),
            model.compression,
        )
        for name, table in tables.items()
    }
    with torch.no_grad():
        for name, tensor in current.items():
            # Of a table only the matched rows; everything else whole. state_dict's tensors share the parameters'
            # memory.
            if name in matched:
                new_rows, old_rows = matched[name]
                tensor[new_rows] = old.state_dict[name][old_rows].to(tensor.dtype)
            else:
                tensor.copy_(old.state_dict[name])
    return sum(len(new_rows) for new_rows, _ in matched.values())


def _of_fields(schema: DataSchema, names: Collection[str] | None) -> DataSchema:
    """The schema of a table's fields; None: all fields."""
    return schema.select(i for i, spec in enumerate(schema.fields) if names is None or spec.name in names)


def _refuse_misfit(
    model: MultiTaskRecommender, old: Checkpoint, folder: Path, tables: dict[str, EmbeddingTable]
) -> None:
    """Compare names and shapes of all parameters but the number of rows of tables.

    Raises:
        UsageError: naming the settings that differ or, where they are equal, the first five parameters that do.
    """
    current = model.state_dict()
    faults = [
        f"{name}: {'missing there' if name not in old.state_dict else tuple(old.state_dict[name].shape)} "
        f"against {tuple(tensor.shape)} here"
        for name, tensor in current.items()
        if name not in tables and (name not in old.state_dict or old.state_dict[name].shape != tensor.shape)
    ]
    # The number of a table's rows may differ, since rows are matched by token; their width may not.
    faults += [f"{name}: missing there" for name in tables if name not in old.state_dict]
    # A table may be float32 there and bfloat16 here; whole or complex numbers are no weights.
    faults += [
        f"{name}: {old.state_dict[name].dtype} there, {tensor.dtype} here"
        for name, tensor in current.items()
        if name in old.state_dict and old.state_dict[name].is_floating_point() != tensor.is_floating_point()
    ]
    faults += [
        f"{name}: rows of {_width(old.state_dict[name])} numbers there, of {_width(current[name])} here"
        for name in tables
        if name in old.state_dict and old.state_dict[name].shape[1:] != current[name].shape[1:]
    ]
    if not faults:
        return
    # Settings tell the user more than shapes do: those of the model itself are compared.
    own = set(type(model.settings).model_fields) - set(Settings.model_fields)
    now = model.settings.dump()
    differing = [
        f"{key}: {old.settings.get(key)} there, {now[key]} here"
        for key in ("model", "embedding_size", *sorted(own))
        if old.settings.get(key) != now[key]
    ]
    if old.settings.get("model") != now["model"]:
        differing = differing[:1]  # another model's own settings explain nothing
    shown = differing or faults[:5]
    more = f"\n  and {len(faults) - 5} more" if not differing and len(faults) > 5 else ""
    raise UsageError(
        f"init_from={folder}: that run ({old.settings.get('model')} on {old.settings.get('dataset')}) does not fit "
        "this model; give both the same model settings and fields:\n  " + "\n  ".join(shown) + more
    )


def _width(table: Tensor) -> str:
    return " x ".join(map(str, table.shape[1:]))


def match_rows(
    schema: DataSchema, vocabularies: Vocabularies, old: Checkpoint, compression: Compression | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of the new and of the old table that mean the same; two int64 tensors of one length.

    Args:
        schema, vocabularies, compression: of the new model; the schema has the fields of the table alone.
        old: what it starts from, its schema cut to the fields of the old table.

    Raises:
        UsageError: naming the compressed fields whose rows are shared by other tokens there than here.
    """
    new: list[int] = []
    from_old: list[int] = []
    before = Compression.of(old.settings.get("embedding_compression"))
    old_fields = {
        spec.name: (spec, block) for spec, block in zip(old.schema.fields, row_blocks(old.schema, before), strict=True)
    }
    faults: list[str] = []
    for spec, block in zip(schema.fields, row_blocks(schema, compression), strict=True):
        known, there = old_fields.get(spec.name, (None, None))
        # A field that is new, or of another kind, keeps its fresh rows.
        if known is None or there is None or known.kind != spec.kind:
            continue
        if (known.bins, known.log1p) != (spec.bins, spec.log1p):
            continue
        if spec.kind == "float":
            pairs = [(local, local) for local in range(spec.size)]
        else:
            tokens, tokens_there = vocabularies.tokens(spec.name), old.vocabularies.tokens(spec.name)
            if not (block.shared or there.shared):
                # Rows 0 and 1 of a field are absent and unknown; tokens follow in the order of the vocabulary.
                rows_there = {token: 2 + i for i, token in enumerate(tokens_there)}
                matched = [(2 + i, rows_there[token]) for i, token in enumerate(tokens) if token in rows_there]
                pairs = [(0, 0), (1, 1), *matched]
            elif _way(block, compression) == _way(there, before) and list(tokens) == list(tokens_there):
                pairs = [(local, local) for local in range(block.size)]
            else:
                faults.append(f"{spec.name}: {_told(there, before)} there, {_told(block, compression)} here")
                continue
        # From rows within a field to rows of the table.
        new += [block.offset + a for a, _ in pairs]
        from_old += [there.offset + b for _, b in pairs]
    if faults:
        raise UsageError(
            "init_from: the tokens of a compressed field share rows by their rank, so that these can be taken over "
            "only with the same vocabulary and the same embedding_compression; raise embedding_compression.above until "
            "these fields are left alone in both runs:\n  " + "\n  ".join(faults)
        )
    return torch.tensor(new, dtype=torch.int64), torch.tensor(from_old, dtype=torch.int64)


def _way(block: RowBlock, compression: Compression | None) -> tuple[RowBlock, str | None]:
    """The block and operation that determine which tokens share which rows, and how a vector is computed from them."""
    made_by = compression.operation if compression is not None and block.quotients else None
    return replace(block, offset=0), made_by


def _told(block: RowBlock, compression: Compression | None) -> str:
    """How a field's tokens share rows, in words."""
    if not block.shared or compression is None:
        return f"{block.own:,} rows, none shared"
    how = f"{compression.method}, {compression.operation}" if compression.paired else compression.method
    return f"{block.own:,} rows and {block.shared:,} tokens that share {block.remainders + block.quotients:,} ({how})"
