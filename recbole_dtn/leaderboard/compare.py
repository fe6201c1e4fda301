"""Paired differences of a leaderboard's rows to the one that is best on validation, split by split or seed by seed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from recbole_dtn.config.metrics import higher_is_better
from recbole_dtn.config.splits import SplitKey
from recbole_dtn.leaderboard.cells import runs_once
from recbole_dtn.leaderboard.statistics import (
    BoardRow,
    Metric,
    Paired,
    UnitKey,
    corrected_t,
    paired_t,
    summary,
)
from recbole_dtn.metric.paired import holm

__all__ = ["CLAIMS_NEED", "COMPARED", "Comparison", "Difference", "compare"]

CLAIMS_NEED = 10
"""Fewest seeds or splits for a claim; with five or fewer, a two-sided Wilcoxon test cannot reach p < .05."""
COMPARED = ("reach", "auc", "rmse")
"""The test metric of a task that is compared: the first of these that it has."""
Unit = SplitKey | int
"""A split, or a seed where there is one split."""
Number = TypeVar("Number")


@dataclass(frozen=True)
class Difference:
    """The test metric of one row less that of the best row, over what both have run.

    ``adjusted`` is ``paired.p`` after Holm's correction over the rows and tasks of the data set.
    """

    row: BoardRow
    metric: Metric
    paired: Paired
    adjusted: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The rows of one data set against the one whose mean on validation is best.

    Attributes:
        best: that row. over: ``splits``, ``seeds`` or ``draws``. corrected: whether the test is :func:`corrected_t`,
            for splits with test rows of their own.
    """

    best: BoardRow
    over: str
    corrected: bool
    differences: tuple[Difference, ...]

    @property
    def descriptive(self) -> bool:
        """Whether there are too few splits or seeds for a claim."""
        return min(difference.paired.n for difference in self.differences) < CLAIMS_NEED


def compare(rows: Sequence[BoardRow]) -> Comparison | None:
    """The comparison of the rows of one data set.

    Returns:
        None where fewer than two rows share two splits or seeds, or the rows are not selected by one metric, so that
        none is the best on validation. Rows on other data than most (such as with a domain field) are left out.
    """
    rows = _of_one_source(rows)
    over = "splits" if any(len(row.splits) > 1 for row in rows) else "seeds"
    best = _best_on_validation(rows)
    if best is None:
        return None
    corrected = over == "splits" and best.test_is_drawn
    found = []
    for row in rows:
        for task in row.tasks if row is not best else ():
            metric = next((m for name in COMPARED if (m := Metric("test", task, name)) in row.values), None)
            if metric is None:
                continue
            mine, theirs = (_of_every_seed(one, one.values.get(metric, {}), rows) for one in (row, best))
            pairs = _paired(mine, theirs, over)
            if len(pairs) < 2:
                continue
            given = list(pairs.values())
            paired = corrected_t(given, best.train_rows, best.test_rows) if corrected else paired_t(given)
            found.append(Difference(row, metric, paired))
    if not found:
        return None
    adjusted = holm([difference.paired.p for difference in found])
    differences = tuple(replace(each, adjusted=p) for each, p in zip(found, adjusted, strict=True))
    return Comparison(best, "draws" if best.unit == "draws" else over, corrected, differences)


def _of_one_source(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """The rows on the data that most of them are on."""
    counts = Counter(row.source_fingerprint for row in rows)
    usual = counts.most_common(1)[0][0] if counts else ""
    return [row for row in rows if row.source_fingerprint == usual]


def _best_on_validation(rows: Sequence[BoardRow]) -> BoardRow | None:
    """The row with the best mean of ``valid_metric`` over the runs that all have, before test is looked at.

    A row without a validation result is not chosen; the others are compared by what they share.
    """
    selected = [row for row in rows if row.valid_values]
    if len(rows) < 2 or not selected:
        return None
    first = selected[0]
    values = {id(row): _of_every_seed(row, row.valid_values, selected) for row in selected}
    shared = set(values[id(first)]).intersection(*values.values())
    if len({row.valid_metric for row in selected}) > 1 or not shared:
        return None
    sign = 1 if higher_is_better(first.valid_metric, first.tasks) else -1
    # Of equal ones, the first.
    return max(selected, key=lambda row: sign * statistics.fmean(values[id(row)][key] for key in shared))


def _of_every_seed(
    row: BoardRow, values: Mapping[UnitKey, Number], others: Sequence[BoardRow]
) -> Mapping[UnitKey, Number]:
    """Values by split and seed; a deterministic model's value of a split is that of every seed of the others."""
    if not runs_once(row.model):
        return values
    keys = {key for other in others for key in other.runs_at}
    of_split = {split: value for (split, _), value in values.items()}
    return {(split, seed): of_split[split] for split, seed in keys if split in of_split}


def _paired(
    mine: Mapping[UnitKey, float | None], theirs: Mapping[UnitKey, float | None], over: str
) -> dict[Unit, float]:
    """Differences by split (the mean over its seeds) or by seed, of runs in which both are defined."""
    by_unit: dict[Unit, list[float | None]] = {}
    for (split, seed), value in mine.items():
        other = theirs.get((split, seed))
        if value is not None and other is not None:
            by_unit.setdefault(split if over == "splits" else seed, []).append(value - other)
    means = {unit: summary(values).mean for unit, values in by_unit.items()}
    return {unit: mean for unit, mean in means.items() if mean is not None}
