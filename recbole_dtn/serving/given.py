"""Predictions and labels as they are given: names of tasks, numbers, checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.load import LARGEST, SMALLEST

__all__ = [
    "Labelled",
    "as_logits",
    "check_labels",
    "domain_numbers",
    "named_sets",
    "numbered_groups",
    "one_column",
    "task_columns",
]

Floats = NDArray[np.float64]
ALONE = "predictions"
"""Name of predictions that were given without one."""


@dataclass(frozen=True)
class Labelled:
    """What predictions are held against.

    Attributes:
        tasks: the T tasks. labels: (N, T), NaN where a task is not observed.
        groups, weights, domain: (N,) or None; groups numbered from 0.
        key: of every row, for messages; None: rows are counted from 0.
    """

    tasks: tuple[TaskSpec, ...]
    labels: Floats
    groups: NDArray[np.int64] | None = None
    weights: Floats | None = None
    domain: NDArray[np.int64] | None = None
    key: pl.Series | None = None

    def where(self, place: int) -> str:
        """The row at a place, counted from 0, as a message names it."""
        return f"row {place:,}" if self.key is None else f"{self.key.name} {self.key[place]}"


def named_sets(predictions: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """The predictions by name. A map whose keys are the tasks is one set."""
    if not isinstance(predictions, Mapping) or set(predictions) == set(tasks):
        return {ALONE: predictions}
    if not predictions:
        raise UsageError("evaluate: expected predictions; found an empty map")
    if any(key in tasks for key in predictions) and not any(isinstance(p, Mapping) for p in predictions.values()):
        missing = [task for task in tasks if task not in predictions]
        if missing:
            raise UsageError(
                f"evaluate: predictions: no column for task {missing[0]!r}; found {', '.join(predictions)}"
            )
    return {str(name): part for name, part in predictions.items()}


def task_columns(given: Any, tasks: Sequence[str] | None, what: str) -> tuple[tuple[str, ...], Floats]:
    """Names of the tasks and (N, T) float64; None and null become NaN."""
    if isinstance(given, pl.DataFrame):
        given = {name: given[name] for name in given.columns}
    if isinstance(given, Mapping):
        wanted = list(tasks) if tasks is not None else list(given)
        missing = [name for name in wanted if name not in given]
        if missing:
            raise UsageError(f"evaluate: {what}: no column {missing[0]!r}; {nearest(missing[0], given)}")
        parts = [one_column(given[name], None, f"{what}, task {name!r}") for name in wanted]
        lengths = {len(part) for part in parts if part is not None}
        if len(lengths) > 1:
            raise DataError(f"{what}: columns of one length expected; found {', '.join(map(str, sorted(lengths)))}")
        return tuple(wanted), np.stack([part for part in parts if part is not None], 1)
    values = _floats(given, what)
    if values.ndim not in (1, 2):
        raise DataError(f"{what}: expected an array of shape (N,) or (N, T); found {values.shape}")
    names = tuple(tasks) if tasks is not None else _default_names(values)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape[1] != len(names):
        raise DataError(f"{what}: expected a column for each of {', '.join(names)}; found {values.shape[1]}")
    return names, values


def _default_names(values: Floats) -> tuple[str, ...]:
    return ("task",) if values.ndim == 1 else tuple(f"task{place + 1}" for place in range(values.shape[1]))


def _floats(given: Any, what: str) -> Floats:
    if isinstance(given, Tensor):
        given = given.detach().cpu().double().numpy()
    if isinstance(given, pl.Series):
        given = given.to_numpy() if given.dtype.is_numeric() or given.dtype == pl.Boolean else given.to_list()
    try:
        return np.array(given, np.float64)  # a copy: an array of polars cannot be written to, and torch warns
    except (TypeError, ValueError):
        raise DataError(f"{what}: expected numbers; found {_first_text(given)}") from None


def _first_text(given: Any) -> str:
    """The first value that is no number, and its place.

    >>> _first_text(["1", None, "high"])
    "'high' in row 2 (counted from 0)"
    """
    for place, value in enumerate(np.asarray(given, object).ravel().tolist()):
        try:
            float(math.nan if value is None else value)
        except (TypeError, ValueError):
            return f"{value!r} in row {place:,} (counted from 0)"
    return f"values of {type(given).__name__}"


def one_column(given: Any, rows: int | None, what: str) -> Any:
    """(N,) float64, or None."""
    if given is None:
        return None
    values = _floats(given, what)
    if values.ndim != 1 or (rows is not None and len(values) != rows):
        wanted = "(N,)" if rows is None else f"({rows},)"
        raise DataError(f"{what}: expected an array of shape {wanted}; found {values.shape}")
    return values


def numbered_groups(groups: Any, rows: int) -> NDArray[np.int64] | None:
    """Groups of any type as numbers from 0; all missing ones are one group."""
    if groups is None:
        return None
    if isinstance(groups, Tensor):
        groups = groups.cpu().numpy()
    series = groups if isinstance(groups, pl.Series) else pl.Series(values=groups, strict=False)
    if series.len() != rows:
        raise DataError(f"groups: expected one of each of {rows:,} rows; found {series.len():,}")
    return np.array(series.rank("dense").fill_null(0), np.int64)


def domain_numbers(domain: Any, rows: int) -> NDArray[np.int64] | None:
    """(N,) int64, or None."""
    values = one_column(domain, rows, "domain")
    return None if values is None else values.astype(np.int64)


def check_labels(labelled: Labelled) -> None:
    """Refuse labels of a binary task other than 0 and 1, and negative weights, by their row.

    Raises:
        DataError: for either.
    """
    for place, task in enumerate(labelled.tasks):
        values = labelled.labels[:, place]
        wrong = np.isinf(values) | (~np.isnan(values) & (values != 0) & (values != 1) & (task.kind == "binary"))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"labels of task {task.name!r}: expected 0 or 1, or NaN where it is not observed; found "
                f"{values[row]:g} in {labelled.where(row)} (a task of other values is named in regression)"
            )
    mass = labelled.weights
    if mass is not None and not (np.isfinite(mass) & (mass >= 0)).all():
        row = int(np.flatnonzero(~(np.isfinite(mass) & (mass >= 0)))[0])
        raise DataError(f"weights: expected finite numbers of at least 0; found {mass[row]:g} in {labelled.where(row)}")


def as_logits(values: Floats, labelled: Labelled, name: str, logits: bool) -> Floats:
    """(N, T) logits of binary tasks, values of regressions; 0 where a task is not observed."""
    found = np.zeros(values.shape)
    for place, task in enumerate(labelled.tasks):
        column, seen = values[:, place], ~np.isnan(labelled.labels[:, place])
        where = f"predictions {name!r}, task {task.name!r}"
        _refuse(labelled, seen & ~np.isfinite(column), column, where, "a finite number")
        if task.kind == "binary" and not logits:
            hint = "a probability, from 0 to 1 (logits are told by logits=True, or --logits)"
            _refuse(labelled, seen & ((column < 0) | (column > 1)), column, where, hint)
            chances = np.clip(column[seen], SMALLEST, LARGEST)
            found[seen, place] = np.log(chances) - np.log1p(-chances)
        else:
            found[seen, place] = column[seen]
    return found


def _refuse(labelled: Labelled, wrong: NDArray[np.bool_], values: Floats, where: str, expected: str) -> None:
    places = np.flatnonzero(wrong)
    if len(places):
        more = f" (and {len(places) - 1:,} more)" if len(places) > 1 else ""
        row = labelled.where(int(places[0]))
        raise DataError(f"{where}: expected {expected}; found {values[places[0]]:g} in {row}{more}")
