"""Labels, and where they are observed, from conditions over columns."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.settings import Settings, TaskSettings
from recbole_dtn.config.tasks import task_columns
from recbole_dtn.data.columns import Tables
from recbole_dtn.data.condition import to_expression
from recbole_dtn.data.layout import ArrayWriter, SplitLayout
from recbole_dtn.data.sources import PARTS
from recbole_dtn.errors import DataError

__all__ = ["label_of", "write_labels"]

Counts = dict[str, dict[str, list[int]]]


def write_labels(settings: Settings, tables: Tables, layout: SplitLayout, target: Path) -> Counts:
    """Write ``labels.npy`` (rows, T), and ``observed.npy`` (rows, T) where some task has an ``observed_when``.

    Returns:
        Per split and task ``[positives, observed]``.

    Raises:
        DataError: for a label that is missing or not binary where it is observed, and a task without positives in
            training; with file, line and value, or task and condition.
    """
    tasks = settings.tasks
    shape, starts = (layout.rows, len(tasks)), layout.ends[:-1]
    dtype = np.int8 if all(task.kind == "binary" for task in tasks) else np.float32
    counts: Counts = {name: {task.name: [0, 0] for task in tasks} for name in PARTS}
    with ExitStack() as stack:
        labels = stack.enter_context(ArrayWriter(target / "labels.npy", dtype, shape, starts))
        observed = None
        if any(task.observed_when is not None for task in tasks):
            observed = stack.enter_context(ArrayWriter(target / "observed.npy", np.bool_, shape, starts))
        for block in layout.blocks():
            found = [label_of(task, tables, block.start, block.stop) for task in tasks]
            # A regression's labels make the whole array float32; "unsafe" allows float64 to int8, which holds 0 and 1.
            values: npt.NDArray[Any] = np.stack([each for each, _ in found], 1, dtype=dtype, casting="unsafe")
            seen = np.stack([each for _, each in found], 1)
            for part, chosen in block.pieces:
                labels.write(part, values[chosen])
                if observed is not None:
                    observed.write(part, seen[chosen])
                for position, task in enumerate(tasks):
                    count = counts[PARTS[part]][task.name]
                    count[0] += int(np.count_nonzero(values[chosen, position] > 0))
                    count[1] += int(np.count_nonzero(seen[chosen, position]))
    for task in tasks:
        _refuse_degenerate(task, *counts["train"][task.name], folder=tables.raw["inter"].table.paths[0].parent)
    return counts


def label_of(
    task: TaskSettings, tables: Tables, start: int, stop: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Labels of interactions ``start`` to ``stop`` (0 where they are not observed), and where they are observed.

    Raises:
        DataError: for a label that is missing or not binary where it is observed, with file, line and value.
    """
    frame = pl.DataFrame()
    if task.condition is not None or task.observed_when is not None:
        frame = _frame(task, tables, start, stop)
    seen = np.ones(stop - start, np.bool_)
    if task.observed_when is not None:
        # An undecided observed_when (a missing value) counts as not observed.
        seen = _evaluate(task.observed_when, frame).fill_null(False).to_numpy()
    if task.condition is not None:
        # An undecided condition becomes NaN, which is refused below where the row is observed.
        found = _evaluate(task.condition, frame).cast(pl.Float64).to_numpy()
    else:
        found = tables.numbers(task.label, start, stop)
    right = (found == 0) | (found == 1) if task.kind == "binary" else np.isfinite(found)
    wrong = seen & ~right
    if wrong.any():
        at = start + int(np.flatnonzero(wrong)[0])
        shown = _frame(task, tables, at, at + 1).row(0, named=True)
        raise DataError(_wrong_label(task, tables.raw["inter"].where(at), shown))
    # Labels that are not observed are stored as 0, whatever the file has.
    return np.where(seen, found, 0), seen


def _frame(task: TaskSettings, tables: Tables, start: int, stop: int) -> pl.DataFrame:
    return pl.DataFrame([tables.series(name, start, stop) for name in sorted(task_columns(task))])


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
