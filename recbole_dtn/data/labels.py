"""Labels and what is observed of them, from conditions over columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.config.settings import Settings, TaskSettings
from recbole_dtn.config.tasks import parse_condition, task_columns
from recbole_dtn.data.columns import SideRows
from recbole_dtn.data.condition import to_expression
from recbole_dtn.data.raw import RawTable
from recbole_dtn.data.sources import PARTS
from recbole_dtn.data.store import create_array
from recbole_dtn.errors import DataError

__all__ = ["write_labels"]

BLOCK_ROWS = 1 << 20


def write_labels(
    settings: Settings,
    columns: SideRows,
    inter: RawTable,
    order: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    target: Path,
) -> dict[str, dict[str, list[int]]]:
    """Write ``labels.npy`` and ``observed.npy`` (rows, T), in the order of the splits.

    Returns:
        Per split and task ``[positives, observed]``.

    Raises:
        DataError: for a label that is missing or not binary where it is observed, and a task without positives in
            training; with file, line and value, or task and condition.
    """
    shape = (len(order), len(settings.tasks))
    dtype = np.int8 if all(task.kind == "binary" for task in settings.tasks) else np.float32
    labels = create_array(target / "labels.npy", dtype, shape)
    observed = create_array(target / "observed.npy", np.bool_, shape)
    for start in range(0, len(order), BLOCK_ROWS):
        rows = order[start : start + BLOCK_ROWS]
        for position, task in enumerate(settings.tasks):
            values, seen = _task(task, columns, inter, rows)
            labels[start : start + len(rows), position] = values
            observed[start : start + len(rows), position] = seen
    counts = _count(settings, labels, observed, ends)
    for task in settings.tasks:
        _refuse_degenerate(task, *counts["train"][task.name], folder=inter.table.paths[0].parent)
    return counts


def _task(
    task: TaskSettings, columns: SideRows, inter: RawTable, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    frame = pl.DataFrame([columns.series(name, rows) for name in sorted(task_columns(task))])
    seen = np.ones(len(rows), np.bool_)
    if task.observed_when is not None:
        seen = _evaluate(task.observed_when, frame).fill_null(False).to_numpy()
    if task.condition is not None:
        found = _evaluate(task.condition, frame).cast(pl.Float64).to_numpy()
    else:
        found = columns.numbers(task.label, rows)
    wrong = seen & ~np.isfinite(found)
    if task.kind == "binary":
        wrong |= seen & (found != 0) & (found != 1)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise DataError(_wrong_label(task, inter.where(int(rows[at])), frame.row(at, named=True)))
    return np.where(seen, found, 0).astype(np.float32), seen


def _evaluate(source: str, frame: pl.DataFrame) -> pl.Series:
    return frame.select(label=to_expression(parse_condition(source), frame.schema)).to_series()


def _wrong_label(task: TaskSettings, where: str, values: dict[str, Any]) -> str:
    shown = ", ".join(f"{name} = {'missing' if value is None else repr(value)}" for name, value in values.items())
    known = "use observed_when: CONDITION for the rows where it is known, or drop the others"
    if task.condition is not None:
        return f"{where}: the label of task {task.name!r} ({task.condition}) is undecided: {shown}; {known}"
    label = values[task.label]
    if label is None:
        return f"{where}: the label of task {task.name!r} is missing: {shown}; {known}"
    expected = "0 or 1" if task.kind == "binary" else "a finite number"
    example = f"{task.label} == {label!r}" if isinstance(label, str) else f"{task.label} >= {label:g}"
    hint = f"; give the task a condition, such as condition: {example}" if task.kind == "binary" else ""
    return f"{where}: the label of task {task.name!r} must be {expected}, found {shown}{hint}"


def _count(
    settings: Settings, labels: npt.NDArray[Any], observed: npt.NDArray[np.bool_], ends: npt.NDArray[np.int64]
) -> dict[str, dict[str, list[int]]]:
    counts: dict[str, dict[str, list[int]]] = {}
    for name, start, stop in zip(PARTS, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        counts[name] = {
            task.name: [
                int(np.count_nonzero(labels[start:stop, position] > 0)),
                int(np.count_nonzero(observed[start:stop, position])),
            ]
            for position, task in enumerate(settings.tasks)
        }
    return counts


def _refuse_degenerate(task: TaskSettings, positives: int, observed: int, *, folder: Path) -> None:
    rule = f"condition: {task.condition}" if task.condition is not None else f"label: {task.label}"
    when = f", observed_when: {task.observed_when}" if task.observed_when is not None else ""
    if observed == 0:
        raise DataError(f"{folder}: task {task.name!r} ({rule}{when}) has no observed row in training")
    if task.kind == "binary" and positives in (0, observed):
        what = "no positive" if positives == 0 else "no negative"
        raise DataError(
            f"{folder}: task {task.name!r} ({rule}{when}) has {what} among its {observed:,} observed training rows; "
            "there is nothing to learn: correct the task"
        )
