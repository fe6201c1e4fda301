"""The rows that a direct fit reads, whole in memory: inputs as a solver takes them, labels and weights per task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import machine_memory
from recbole_dtn.data.progress import Meter
from recbole_dtn.errors import DataError
from recbole_dtn.schema import TaskSpec

__all__ = ["DirectFit", "LabelledRows", "Rows", "TaskRows", "log_loss", "mean_loss", "read_rows"]

Floats = npt.NDArray[np.float64]
AT_A_TIME = 1 << 16


class Rows(Protocol):
    """Rows by number; :class:`recbole_dtn.data.store.Split` is one."""

    rows: int

    def batch(self, indices: npt.NDArray[Any]) -> Features:
        """The rows at ``indices`` (from 0), in that order."""
        ...


@dataclass(frozen=True)
class DirectFit:
    """How a fit ended.

    Attributes:
        rounds: rounds that were run (trees, of the task with the most); 1 where there are none.
        best_round: the round that validation chose, of the task with the latest.
    """

    rounds: int = 1
    best_round: int = 1


@dataclass(frozen=True)
class TaskRows:
    """The rows on which one task is observed.

    Attributes:
        inputs: (N, ...) matrix. labels: (N,). weights: (N,), all positive: the sample weight, scaled to a mean of 1,
            times the task's ``pos_weight`` where the label is 1.
    """

    inputs: Any
    labels: Floats
    weights: Floats

    @property
    def learnable(self) -> bool:
        """Whether the labels differ."""
        return len(self.labels) > 0 and bool(self.labels.min() < self.labels.max())

    @property
    def mean(self) -> float:
        """Weighted mean label; 0 without rows."""
        return float(np.average(self.labels, weights=self.weights)) if len(self.labels) else 0.0

    def constant(self, kind: str) -> float:
        """The logit, or the value of a regression, that fits best without inputs.

        For a binary task half a positive and half a negative are added, so that it is finite.
        """
        if kind != "binary":
            return self.mean
        positives, total = float(self.weights @ self.labels), float(self.weights.sum())
        return float(np.log((positives + 0.5) / (total - positives + 0.5)))


@dataclass(frozen=True)
class LabelledRows:
    """Rows with the labels of all tasks.

    Attributes:
        inputs: (N, ...) matrix. labels, observed: (N, T). sample_weight: (N,), or None.
    """

    inputs: Any
    labels: npt.NDArray[np.float32]
    observed: npt.NDArray[np.bool_]
    sample_weight: npt.NDArray[np.float32] | None

    def task(self, column: int, task: TaskSpec) -> TaskRows:
        """The rows where a task is observed with a positive weight."""
        keep = self.observed[:, column]
        if self.sample_weight is not None:
            keep = keep & (self.sample_weight > 0)
        labels = self.labels[keep, column].astype(np.float64)
        weights = np.ones(len(labels))
        if self.sample_weight is not None and len(labels):
            weights = self.sample_weight[keep].astype(np.float64)
            weights /= weights.mean()
        if task.kind == "binary":
            weights = weights * (1.0 + (task.pos_weight - 1.0) * labels)
        # Most tasks are observed everywhere: the matrix of all rows is then used as it is.
        return TaskRows(self.inputs if keep.all() else self.inputs[keep], labels, weights)


def read_rows(
    source: Rows,
    encode: Callable[[Features], Any],
    stack: Callable[[Sequence[Any]], Any],
    *,
    meter: Meter,
    stage: str,
) -> LabelledRows:
    """Read all rows into memory.

    Args:
        source: the rows. encode: the inputs of a batch. stack: joins those of several batches.
        meter: gets the progress under the name ``stage``.

    Raises:
        DataError: where the inputs would take more than half of the machine's memory.
    """
    inputs, labels, observed, weights = [], [], [], []
    for done, batch in _batches(source):
        inputs.append(encode(batch))
        labels.append(batch.labels.numpy().copy())
        observed.append(batch.observed.numpy().copy())
        if batch.sample_weight is not None:
            weights.append(batch.sample_weight.numpy().copy())
        if len(inputs) == 1:
            _check_memory(_bytes(inputs[0]) * source.rows // max(1, done), source.rows)
        meter(stage, done, source.rows)
    return LabelledRows(
        stack(inputs), np.concatenate(labels), np.concatenate(observed), np.concatenate(weights) if weights else None
    )


def _batches(source: Rows) -> Iterator[tuple[int, Features]]:
    # At least one, so that the inputs have their width where there are no rows.
    for start in range(0, max(source.rows, 1), AT_A_TIME):
        stop = min(start + AT_A_TIME, source.rows)
        yield stop, source.batch(np.arange(start, stop))


def _bytes(matrix: Any) -> int:
    parts = (matrix.data, matrix.indices, matrix.indptr) if hasattr(matrix, "indptr") else (matrix,)
    return sum(int(part.nbytes) for part in parts)


def _check_memory(needed: int, rows: int) -> None:
    if needed > machine_memory() // 2:
        raise DataError(
            f"the inputs of {rows:,} rows would take {needed / 2**30:.1f} GiB as one matrix, more than half of this "
            f"machine's {machine_memory() / 2**30:.1f} GiB: read fewer rows (limit_rows), or leave this model out of a "
            "leaderboard (--floors=none)"
        )


def log_loss(logits: Floats, labels: Floats) -> Floats:
    """Log loss of each row.

    >>> log_loss(np.array([0.0, 800.0]), np.array([1.0, 0.0])).round(4).tolist()
    [0.6931, 800.0]
    """
    found: Floats = np.logaddexp(0.0, logits) - labels * logits
    return found


def mean_loss(kind: str, scores: Floats, rows: TaskRows) -> float:
    """Weighted mean log loss of a binary task, mean squared error of a regression."""
    each = log_loss(scores, rows.labels) if kind == "binary" else (scores - rows.labels) ** 2
    return float(np.average(each, weights=rows.weights))
