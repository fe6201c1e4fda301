"""Paired differences of a leaderboard's rows to its comparator, the baseline that is best on validation.

The comparator is chosen by validation alone, so that it is fixed before the test rows are read.
"""

from __future__ import annotations

import statistics
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
    Tested,
    UnitKey,
    corrected_t,
    more_is_better,
    paired_t,
    summary,
    unit_of,
    usual_source,
    wilcoxon_p,
)
from recbole_dtn.metric.paired import holm

__all__ = [
    "CLAIMS_NEED", "COMPARED", "SIGNIFICANT", "AllTasks", "Compared", "Comparison", "Difference", "comparator",
    "compare", "compared_metric", "contrasts", "of_every_seed", "of_one_source", "relative_improvement",
]  # fmt: skip

CLAIMS_NEED = 10
"""Fewest seeds or splits for a claim; with five or fewer, a two-sided Wilcoxon test cannot reach p < .05."""
SIGNIFICANT = 0.05
COMPARED = ("reach", "auc", "rmse")
"""The test metric of a task that is compared: the first of these that it has."""
Unit = SplitKey | int
"""A split, or a seed where there is one split."""
Number = TypeVar("Number")


@dataclass(frozen=True)
class Difference:
    """The test metric of one row less that of another, over what both have run.

    Attributes:
        other: the comparator, or the second row of a contrast, whose ``title`` this has.
        paired: over seeds or splits: the uncertainty of training. wilcoxon: p of the signed-rank test over seeds.
        tested: the uncertainty of the test sample, and that of seeds and sample at once; null where it is not known.
        relative: ``(AUC - .5) / (AUC of the other - .5) - 1``, of the means.
        adjusted: p after Holm's correction over all differences of one table: that of :meth:`whole`.
        untested: why ``tested`` is not known, over seeds.
    """

    row: BoardRow
    other: BoardRow
    metric: Metric
    paired: Paired
    wilcoxon: float | None = None
    tested: Tested | None = None
    relative: float | None = None
    adjusted: float | None = None
    title: str = ""
    untested: str = ""

    @property
    def one_run(self) -> bool:
        """Whether no seed changes either row, so that the sample of test rows is all that is uncertain."""
        return runs_once(self.row.model) and runs_once(self.other.model) and self.paired.n == 1

    def whole(self, over: str) -> Tested | Paired | None:
        """The whole uncertainty, with ``low``, ``high`` and ``p``: over seeds that of seeds and test sample at once."""
        return self.tested if over == "seeds" else self.paired


@dataclass(frozen=True)
class AllTasks:
    """All tasks of one row against the comparator.

    Attributes:
        delta_m: mean over the tasks of the relative change of the test metric, over seeds or splits (Vandenhende et
            al., TPAMI 2021, equation 7; Maninis et al., CVPR 2019). Positive where the row is better.
        relative: mean over the tasks of RelaImpr, which does not favour tasks of low AUC.
    """

    row: BoardRow
    delta_m: Paired
    relative: float | None


@dataclass(frozen=True)
class Compared:
    """Differences that are corrected together.

    Attributes:
        over: ``splits``, ``seeds`` or ``draws``. corrected: whether the test is :func:`corrected_t`, for splits with
            test rows of their own. left_out: names of rows, or titles of contrasts, that share fewer than two runs.
            exploratory: whether it was chosen after results were known what is compared.
    """

    over: str
    corrected: bool
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...] = ()
    exploratory: bool = False

    @property
    def descriptive(self) -> bool:
        """Whether there are too few splits or seeds for a claim."""
        return min((each.paired.n for each in self.differences if not each.one_run), default=0) < CLAIMS_NEED

    def significant(self, difference: Difference) -> bool:
        """Whether the interval of the difference excludes 0 after Holm's correction, with enough seeds or splits.

        Never where both rows have one run.
        """
        return (
            not self.descriptive
            and not difference.one_run
            and difference.adjusted is not None
            and difference.adjusted < SIGNIFICANT
        )

    def better(self, difference: Difference) -> bool | None:
        """Whether the first row is significantly better than the other (True) or worse (False); else None."""
        mean = difference.paired.mean
        if not mean or not self.significant(difference):
            return None
        return (mean > 0) == more_is_better(difference.metric.name)

    @property
    def untested(self) -> dict[str, list[str]]:
        """Why rows have no uncertainty of the test sample, over seeds: the reason and their names."""
        found: dict[str, list[str]] = {}
        for each in self.differences if self.over == "seeds" else ():
            if each.tested is None:
                names, name = found.setdefault(each.untested or "it was not computed", []), each.title or each.row.name
                names += [name] if name not in names else []
        return found


@dataclass(frozen=True)
class Comparison(Compared):
    """The rows of one data set against the comparator: the baseline whose mean on validation is best."""

    all_tasks: tuple[AllTasks, ...] = ()

    @property
    def best(self) -> BoardRow:
        """The comparator."""
        return self.differences[0].other


def compare(rows: Sequence[BoardRow]) -> Comparison | None:
    """The comparison of the rows of one data set.

    Returns:
        None where fewer than two rows share two splits or seeds, or the rows are not selected by one metric, so that
        none is the best on validation. Rows on other data than most are left out.
    """
    rows = of_one_source(rows)
    best = comparator(rows)
    if best is None:
        return None
    over = unit_of(rows)
    corrected = over == "splits" and best.test_is_drawn
    found: list[Difference] = []
    all_tasks: list[AllTasks] = []
    left_out = []
    for row in rows:
        if row is not best:
            differences = _differences(row, best, row.tested, row.untested, over)
            found += differences
            left_out += [row.name] if not differences else []
            if {each.metric.task for each in differences} == set(best.tasks):
                all_tasks += _all_tasks(row, best, differences, over)
    if not found:
        return None
    return Comparison(over, corrected, _adjusted(found, over), tuple(left_out), all_tasks=tuple(all_tasks))


def contrasts(rows: Sequence[BoardRow]) -> Compared | None:
    """The planned comparisons of one data set in the order of the file, corrected for each other alone.

    Returns:
        None without any.
    """
    wanted = sorted(
        ((place, title, row, name) for row in rows for place, title, name in row.contrasts), key=lambda each: each[0]
    )
    used = of_one_source(rows)
    by_name, over = {row.name: row for row in used}, unit_of(used)
    found: list[Difference] = []
    left_out = []
    for _, title, row, name in wanted:
        differences = []
        if name in by_name and any(row is each for each in used):
            tested, untested = row.tested_against.get(name, {}), row.untested_against.get(name, "")
            differences = _differences(row, by_name[name], tested, untested, over)
        found += [replace(difference, title=title) for difference in differences]
        left_out += [title] if not differences else []
    if not found:
        return None
    corrected = over == "splits" and found[0].other.test_is_drawn
    return Compared(over, corrected, _adjusted(found, over), tuple(left_out), used[0].exploratory)


def _differences(
    row: BoardRow, other: BoardRow, tested: Mapping[Metric, Tested], untested: str, over: str
) -> list[Difference]:
    """The differences of one row to another, one for each task that both have run twice or more.

    Two rows that no seed changes need one run each: their difference has the uncertainty of the test sample alone.
    """
    found = []
    fewest = 1 if over == "seeds" and runs_once(row.model) and runs_once(other.model) else 2
    for task in row.tasks:
        metric = compared_metric(row, task)
        if metric is None:
            continue
        given = list(_paired(*_both(row, other, metric), over).values())
        if len(given) < fewest:
            continue
        of_seeds = over == "seeds"
        found.append(
            Difference(
                row, other, metric, _test(given, other, over), wilcoxon_p(given) if of_seeds else None,
                tested.get(metric) if of_seeds else None, _relative(row, other, metric), untested=untested,
            )
        )  # fmt: skip
    return found


def _both(
    row: BoardRow, other: BoardRow, metric: Metric
) -> tuple[Mapping[UnitKey, float | None], Mapping[UnitKey, float | None]]:
    mine, theirs = (of_every_seed(one, one.values.get(metric, {}), (row, other)) for one in (row, other))
    return mine, theirs


def _test(given: Sequence[float], other: BoardRow, over: str) -> Paired:
    if over == "splits" and other.test_is_drawn:
        return corrected_t(given, other.train_rows, other.test_rows)
    return paired_t(given)


def _adjusted(differences: Sequence[Difference], over: str) -> tuple[Difference, ...]:
    adjusted = holm([_p(each, over) for each in differences])
    return tuple(replace(each, adjusted=p) for each, p in zip(differences, adjusted, strict=True))


def _all_tasks(row: BoardRow, best: BoardRow, differences: Sequence[Difference], over: str) -> list[AllTasks]:
    """The mean over the tasks, where there are two or more; else nothing."""
    changes = [_changes(each.metric, *_both(row, best, each.metric), over) for each in differences]
    shared = set(changes[0]).intersection(*changes[1:]) if len(changes) > 1 else set()
    if len(shared) < 2:
        return []
    means = [statistics.fmean(change[unit] for change in changes) for unit in changes[0] if unit in shared]
    return [AllTasks(row, _test(means, best, over), _mean_relative(differences))]


def _changes(
    metric: Metric, mine: Mapping[UnitKey, float | None], theirs: Mapping[UnitKey, float | None], over: str
) -> dict[Unit, float]:
    """The relative change of a metric by split or seed, positive where the first is better."""
    sign = 1.0 if more_is_better(metric.name) else -1.0
    relative = {
        key: sign * (value - other) / abs(other)
        for key, value in mine.items()
        if value is not None and (other := theirs.get(key))
    }
    return _paired(relative, dict.fromkeys(relative, 0.0), over)


def _mean_relative(differences: Sequence[Difference]) -> float | None:
    values = [each.relative for each in differences if each.relative is not None]
    return statistics.fmean(values) if len(values) == len(differences) else None


def _p(difference: Difference, over: str) -> float | None:
    """What Holm's correction is of."""
    whole = difference.whole(over)
    return None if whole is None else whole.p


def compared_metric(row: BoardRow, task: str) -> Metric | None:
    """The test metric of a task that is compared: the first of :data:`COMPARED` that the row has."""
    return next((m for name in COMPARED if (m := Metric("test", task, name)) in row.values), None)


def relative_improvement(auc: float, other: float) -> float | None:
    """RelaImpr: how much more an AUC is above chance than another; None where the other is not above it.

    >>> round(relative_improvement(0.75, 0.70), 12), relative_improvement(0.7, 0.5)
    (0.25, None)
    """
    return (auc - 0.5) / (other - 0.5) - 1 if other > 0.5 else None


def _relative(row: BoardRow, best: BoardRow, metric: Metric) -> float | None:
    means = [of.metrics[metric].mean if metric in of.metrics else None for of in (row, best)]
    if metric.name != "auc" or means[0] is None or means[1] is None:
        return None
    return relative_improvement(means[0], means[1])


def of_one_source(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """The rows on the data that most of them are on."""
    usual = usual_source(rows)
    return [row for row in rows if row.source_fingerprint == usual]


def comparator(rows: Sequence[BoardRow]) -> BoardRow | None:
    """The baseline with the best mean of ``valid_metric`` over the runs that all have, before test is looked at.

    Baselines are the rows that are not ``proposed``; all rows where all are. A row without a validation result is not
    chosen; the others are compared by what they share. None where there are fewer than two rows, or no such metric.
    """
    baselines = [row for row in rows if not row.proposed] or rows
    selected = [row for row in baselines if row.valid_values]
    if len(rows) < 2 or not selected:
        return None
    first = selected[0]
    values = {id(row): of_every_seed(row, row.valid_values, selected) for row in selected}
    shared = set(values[id(first)]).intersection(*values.values())
    if len({row.valid_metric for row in selected}) > 1 or not shared:
        return None
    sign = 1 if higher_is_better(first.valid_metric, first.tasks) else -1
    # Of equal ones, the first.
    return max(selected, key=lambda row: sign * statistics.fmean(values[id(row)][key] for key in shared))


def of_every_seed(
    row: BoardRow, values: Mapping[UnitKey, Number], others: Sequence[BoardRow]
) -> Mapping[UnitKey, Number]:
    """Values by split and seed; a deterministic model's value of a split is that of every seed of the others."""
    if not runs_once(row.model):
        return values
    keys = sorted({key for other in others for key in other.runs_at}, key=lambda key: (*key[0].order, key[1]))
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
            by_unit.setdefault(seed if over == "seeds" else split, []).append(value - other)
    means = {unit: summary(values).mean for unit, values in by_unit.items()}
    return {unit: mean for unit, mean in means.items() if mean is not None}
