"""A data set's splits and labels as files that stock RecBole can train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recbole_dtn.config.settings import Settings
from recbole_dtn.config.tasks import label_columns
from recbole_dtn.data.sources import PARTS, Sources, data_folder
from recbole_dtn.data.staging import refuse_existing, staged
from recbole_dtn.data.write import write_atomic, write_dataset_yaml
from recbole_dtn.errors import UsageError
from recbole_dtn.preprocess.prepare import PreparedData, open_sources, prepare
from recbole_dtn.report.files import check_place

__all__ = ["write_given_splits"]


def write_given_splits(
    settings: Settings,
    target_folder: Path,
    name: str,
    *,
    log: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
) -> Path:
    """Write a data set's splits as RecBole's benchmark parts, with one ``:float`` label column per task.

    ``<name>.train.inter``, ``.valid.inter`` and ``.test.inter`` hold exactly the rows of our splits in their order, the
    keys and input fields, and the labels under the tasks' names; ``.user`` and ``.item`` hold the input fields that lie
    there. The column of ``weight_field`` is written too. Stock RecBole takes every token column for an input, so that
    no other column is written: those of ``group_field`` and ``domain_field`` only where they are inputs.
    ``<name>.yaml`` beside them describes the data set for ``--dataset``.

    Args:
        settings: of the data set. target_folder: gets the files; stock RecBole wants it to be ``<data_path>/<name>``.
        name: of the new data set. log: told what was written. overwrite: replace a data set that is there.

    Raises:
        UsageError: for a task that is named as an input, and a target that holds a data set, without ``overwrite``.
        DataError: as :func:`prepare`.
    """
    if target_folder.resolve() == data_folder(settings).resolve():
        raise UsageError(
            f"the splits of {settings.dataset!r} cannot be written over its own files: choose another name"
        )
    check_place(target_folder, str(target_folder))
    if not overwrite:
        refuse_existing(target_folder)
    prepared = prepare(settings, log=log)
    sources = open_sources(settings)
    _refuse(settings, prepared)
    _refuse_weight(settings, sources)
    masked = {position: f"{prepared.schema.task_names[position]}_observed" for position in _masked(prepared)}
    if masked:
        log(f"note: {', '.join(masked.values())} say which labels are observed; stock RecBole models ignore them")
    gaps = _gaps(prepared, log)
    with staged(target_folder, name, overwrite=overwrite) as (work, _):
        written = _write_parts(settings, prepared, sources, work, name, masked, gaps)
        written |= _write_sides(settings, prepared, sources, work, name, gaps)
        write_dataset_yaml(
            work / f"{name}.yaml", _yaml(settings, masked), f"The splits of {settings.dataset}, as files."
        )
    for file, rows in written.items():
        log(f"wrote {target_folder / file} ({rows:,} rows)")
    return target_folder


def _write_parts(
    settings: Settings,
    prepared: PreparedData,
    sources: Sources,
    work: Path,
    name: str,
    masked: dict[int, str],
    gaps: list[str],
) -> dict[str, int]:
    """Write the interactions of each split; returns ``{file: rows}``."""
    wanted = {*_inputs(settings), *_keys(prepared, sources), settings.weight_field}
    kept = [column for column in sources.inter.names if column in wanted]
    types = {column: sources.inter.type_of(column) for column in kept}
    types |= dict.fromkeys(prepared.schema.task_names, "float")
    types |= dict.fromkeys(masked.values(), "float")
    written = {}
    for part in PARTS:
        frames, file = _part(prepared, sources, kept, part, masked), f"{name}.{part}.inter"
        written[file] = write_atomic(frames, work / file, types, escaped=True, gaps=gaps)
    return written


def _write_sides(
    settings: Settings, prepared: PreparedData, sources: Sources, work: Path, name: str, gaps: list[str]
) -> dict[str, int]:
    """Write the keys and input fields of the side tables that fields lie in; returns ``{file: rows}``."""
    written = {}
    keys = _keys(prepared, sources)
    for side in sources.sides:
        if side.key not in keys:
            continue
        file = f"{name}.{side.kind}"
        kept = [column for column in side.table.names if column in {side.key, *_inputs(settings)}]
        types = {column: side.table.type_of(column) for column in kept}
        batches = (batch.frame for batch in side.table.batches(kept))
        written[file] = write_atomic(batches, work / file, types, escaped=True, gaps=gaps)
    return written


def _inputs(settings: Settings) -> list[str]:
    """Columns of the fields, and of their weights."""
    return [column for spec in settings.fields for column in (spec.name, spec.weights) if column is not None]


def _keys(prepared: PreparedData, sources: Sources) -> list[str]:
    """Keys of the side tables that some input field lies in."""
    # Only these tables have pointers in the store.
    return [side.key for side in sources.sides if side.kind in prepared.splits["train"].store.pointers]


def _refuse(settings: Settings, prepared: PreparedData) -> None:
    columns = {spec.name for spec in settings.fields} | {spec.weights for spec in settings.fields}
    for task in prepared.schema.tasks:
        if task.name in columns:
            raise UsageError(f"task {task.name!r} is named as an input, and its label column would be too: rename it")
        if f"{task.name}_observed" in columns:
            raise UsageError(f"field {task.name}_observed is named as task {task.name!r}'s mask: rename it")


def _refuse_weight(settings: Settings, sources: Sources) -> None:
    """The weight must be a float column of the interactions: stock RecBole takes a token column for an input."""
    name = settings.weight_field
    if name is not None and (name not in sources.inter.names or sources.inter.type_of(name) != "float"):
        raise UsageError(
            f"weight_field {name!r}: expected a float column of the .inter file (stock RecBole takes a token column "
            "for an input); preprocess the set with the weight there"
        )


def _gaps(prepared: PreparedData, log: Callable[[str], None]) -> list[str]:
    """Names of the float fields, whose absent values are written as empty cells; warns of those that have some."""
    fields = [field for field in prepared.summary.fields if field.kind == "float"]
    rows = prepared.summary.rows
    for field in fields:
        count = sum(round(share * rows[split]) for split, share in field.missing.items())
        if count:
            log(f"warning: field {field.name!r} has no value in {count:,} rows; stock RecBole reads the mean there")
    return [field.name for field in fields]


def _masked(prepared: PreparedData) -> list[int]:
    """Positions of the tasks that some row does not observe."""
    summary = prepared.summary
    return [
        position
        for position, name in enumerate(prepared.schema.task_names)
        if any(counts[name][1] != summary.rows[split] for split, counts in summary.positives.items())
    ]


def _part(
    prepared: PreparedData, sources: Sources, kept: list[str], part: str, masked: dict[int, str]
) -> Iterator[pl.DataFrame]:
    """The rows of one split with their labels, a block at a time."""
    split = prepared.splits[part]
    stretch = slice(split.start, split.start + split.rows)
    rows = split.row_numbers()
    labels, observed = split.store.labels[stretch], split.store.observed[stretch]
    names = prepared.schema.task_names
    before = 0
    # The rows of a split are in the order of the file: those of a batch are neighbours in ``rows``, ``labels`` and
    # ``observed``.
    for batch in sources.inter.batches(kept):
        first, last = np.searchsorted(rows, [before, before + batch.frame.height])
        chosen = batch.frame[(rows[first:last] - before).astype(np.int64).tolist()]
        values = labels[first:last].astype(np.float64)
        columns = [pl.Series(name, values[:, task]) for task, name in enumerate(names)]
        columns += [pl.Series(name, observed[first:last, task].astype(np.float64)) for task, name in masked.items()]
        yield chosen.with_columns(columns)
        before += batch.frame.height


def _yaml(settings: Settings, masked: dict[int, str]) -> dict[str, Any]:
    """The data set's YAML: the same fields, a label column per task, ``split: given``."""
    kept = ("group_field", "domain_field", "weight_field", "min_count", "pooling")
    inputs = {spec.name for spec in settings.fields} - set(label_columns(settings))
    values = {key: value for key in kept if (value := getattr(settings, key)) is not None}
    for name in ("group_field", "domain_field"):
        # The files have these columns only where they are inputs.
        if values.get(name) not in inputs:
            values.pop(name, None)
    tasks = []
    for position, task in enumerate(settings.tasks):
        options = task.model_dump(exclude_defaults=True, exclude={"condition", "observed_when", "label"})
        mask = {"observed_when": f"`{masked[position]}` == 1"} if position in masked else {}
        tasks.append({**options, "label": task.name, **mask})
    return {
        "fields": [spec.model_dump(exclude_unset=True) for spec in settings.fields],
        "tasks": tasks,
        "split": "given",
        **({"selected_on_test": True} if settings.selected_on_test else {}),
        **values,
    }
