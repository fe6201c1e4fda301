"""Positive rates with their standard errors, and how tasks occur together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recbole_dtn.inspect.info.report import PairInfo, TaskInfo, TaskSplit
from recbole_dtn.inspect.info.view import StoreView

__all__ = ["FEW", "auc_error", "few_in_test", "few_words", "task_infos"]

TYPICAL_AUC = 0.7
FEW = 100
"""Positives (or negatives) below which a split's numbers mean little: the standard error of an AUC is above .02."""
Matrix = npt.NDArray[np.float64]


def auc_error(positives: int, negatives: int, auc: float = TYPICAL_AUC) -> float | None:
    """Standard error of an AUC (Hanley and McNeil, Radiology 1982, eq. 1 and 2); None without one of the classes.

    ``Q1 = A / (2 - A)``, ``Q2 = 2 A^2 / (1 + A)``,
    ``SE^2 = (A (1 - A) + (n1 - 1)(Q1 - A^2) + (n0 - 1)(Q2 - A^2)) / (n1 n0)``.

    >>> round(auc_error(116, 19_884, auc=0.65), 3)
    0.028
    """
    if positives <= 0 or negatives <= 0:
        return None
    both, pair = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    # The numerator; the denominator is the number of pairs.
    spread = auc * (1 - auc) + (positives - 1) * (both - auc**2) + (negatives - 1) * (pair - auc**2)
    return math.sqrt(spread / (positives * negatives))


def few_in_test(binary: Sequence[str], positives: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """Sentences about classes of binary tasks that are rare in test.

    Args:
        binary: names of the tasks. positives: positive and observed rows of test by task.
    """
    for name in binary:
        ones, observed = positives[name]
        if min(ones, observed - ones) < FEW:
            yield f"{few_words(name, ones, observed, 'test')}; {_error(ones, observed)}"


def few_words(name: str, ones: int, observed: int, split: str) -> str:
    """How often a task's rarer class occurs.

    >>> few_words("buy", 60, 1000, "test")
    "task 'buy' has 60 positives in test (1,000 rows)"
    """
    zeros = observed - ones
    rows = f"{ones:,} positives" if ones <= zeros else f"{zeros:,} negatives"
    return f"task {name!r} has {rows} in {split} ({observed:,} rows)"


def _error(ones: int, observed: int) -> str:
    error = auc_error(ones, observed - ones)
    if error is None:
        return "without both classes it has no AUC: test on other rows (split_ratio, split_seed)"
    return (
        f"an AUC of .7 has a standard error of {error:.3f} there, so that models closer than about {2 * error:.2f} "
        "cannot be told apart: test on more rows (split_ratio), or average over several splits (--split_seeds)"
    )


def task_infos(view: StoreView) -> tuple[tuple[TaskInfo, ...], tuple[PairInfo, ...]]:
    """Every task, and every pair of binary tasks, in each split; one pass over the labels."""
    tasks = view.schema.tasks
    splits: dict[str, dict[str, TaskSplit]] = {task.name: {} for task in tasks}
    pairs: list[PairInfo] = []
    for split in view.bounds:
        sums = _Sums(view, split)
        for position, task in enumerate(tasks):
            splits[task.name][split] = sums.task(position, binary=task.kind == "binary")
        pairs += sums.pairs(split)
    found = tuple(TaskInfo(task.name, task.kind, task.after, splits[task.name]) for task in tasks)
    return found, tuple(pairs)


class _Sums:
    """Sums over the rows of a split; each is ``(T, T)``, over rows where both tasks are observed."""

    def __init__(self, view: StoreView, split: str) -> None:
        self.tasks = view.schema.tasks
        shape = (len(self.tasks), len(self.tasks))
        self.both: Matrix = np.zeros(shape)  # rows observed in both
        self.first: Matrix = np.zeros(shape)  # ... where the row's task is 1 (its labels added up)
        self.joint: Matrix = np.zeros(shape)  # ... where both are 1
        self.squares: Matrix = np.zeros(len(self.tasks))
        for start, stop in view.blocks(split):
            labels, observed = view.labels(start, stop)
            seen, values = observed.astype(np.float64), labels.astype(np.float64)
            # Products of (T, n) and (n, T): all pairs in one pass. Labels are 0 where they are not observed.
            self.both += seen.T @ seen
            self.first += values.T @ seen
            self.joint += values.T @ values
            self.squares += np.square(values).sum(0)

    def task(self, position: int, *, binary: bool) -> TaskSplit:
        observed, total = int(self.both[position, position]), float(self.first[position, position])
        if not observed:
            return TaskSplit(0, 0 if binary else None, None, None, None, None, None)
        mean = total / observed
        if not binary:
            spread = math.sqrt(max(float(self.squares[position]) / observed - mean**2, 0.0))
            return TaskSplit(observed, None, None, None, None, mean, spread)
        positives = round(total)
        error = math.sqrt(mean * (1 - mean) / observed)
        return TaskSplit(observed, positives, mean, error, auc_error(positives, observed - positives), None, None)

    def pairs(self, split: str) -> list[PairInfo]:
        binary = [position for position, task in enumerate(self.tasks) if task.kind == "binary"]
        return [self._pair(split, row, column) for row in binary for column in binary if row != column]

    def _pair(self, split: str, row: int, column: int) -> PairInfo:
        task, other = self.tasks[row], self.tasks[column]
        both, joint = float(self.both[row, column]), float(self.joint[row, column])
        ones, others = float(self.first[row, column]), float(self.first[column, row])
        # The phi coefficient, from the counts of the 2 x 2 table.
        spread = ones * (both - ones) * others * (both - others)
        return PairInfo(
            split=split,
            task=task.name,
            other=other.name,
            both=round(both),
            given=joint / others if others else None,
            phi=(both * joint - ones * others) / math.sqrt(spread) if spread > 0 else None,
            violations=round(ones - joint) if other.name in task.after else None,
        )
