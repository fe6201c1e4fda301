"""Planned comparisons in short: of one data set by task, and of all data sets of a leaderboard side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recbole_dtn.leaderboard.compare import SIGNIFICANT, Compared, Difference, contrasts
from recbole_dtn.leaderboard.details import Table
from recbole_dtn.leaderboard.differences import contrast_name, contrasts_title, interval, signed
from recbole_dtn.leaderboard.labels import metric_title
from recbole_dtn.leaderboard.statistics import BoardRow, by_dataset
from recbole_dtn.report.text import NONE

__all__ = ["Planned", "PlannedLine", "PlannedValue", "in_bold", "planned", "planned_across", "planned_table"]


@dataclass(frozen=True)
class PlannedValue:
    """A difference with its 95 % interval; over seeds that of seeds and test sample at once, None where unknown.

    ``significant``: after Holm's correction for the planned comparisons of the data set, with enough runs.
    """

    mean: float | None
    low: float | None
    high: float | None
    significant: bool

    def __str__(self) -> str:
        return signed(self.mean) if self.low is None else f"{signed(self.mean)} ({interval(self.low, self.high)})"


@dataclass(frozen=True)
class PlannedLine:
    """One comparison by one metric, on the data sets that have it."""

    name: str
    metric: str
    values: Mapping[str, PlannedValue]


@dataclass(frozen=True)
class Planned:
    """The comparisons in the order of the leaderboard's file, and the data sets."""

    datasets: tuple[str, ...]
    lines: tuple[PlannedLine, ...]
    descriptive: bool
    exploratory: bool

    @property
    def title(self) -> str:
        """What they are called."""
        return contrasts_title(self.exploratory)

    @property
    def note(self) -> str:
        """What is in the table."""
        start = "Differences with 95 % intervals. "
        start += "Chosen after results were known. " if self.exploratory else ""
        if self.descriptive:
            return f"{start}Too few runs to claim any."
        of = " for the comparisons of one data set" if len(self.datasets) > 1 else ""
        return f"{start}Bold: p < {SIGNIFICANT} after Holm's correction{of}."


def _value(each: Difference, found: Compared) -> PlannedValue:
    """The value of one difference."""
    of = each.whole(found.over)
    return PlannedValue(
        each.paired.mean, None if of is None else of.low, None if of is None else of.high, found.significant(each)
    )


def planned_across(rows: Sequence[BoardRow]) -> Planned | None:
    """The planned comparisons of the rows of several data sets; None where fewer than two have any."""
    found = planned(rows)
    return found if found is not None and len(found.datasets) > 1 else None


def planned(rows: Sequence[BoardRow]) -> Planned | None:
    """The planned comparisons of the rows of any number of data sets; None without any."""
    lines: dict[tuple[str, str], dict[str, PlannedValue]] = {}
    descriptive = exploratory = False
    for dataset, group in by_dataset(rows).items():
        found = contrasts(group)
        if found is None:
            continue
        descriptive |= found.descriptive
        exploratory |= found.exploratory
        names = {id(row): row.name for row in group}
        for each in found.differences:
            line = lines.setdefault((contrast_name(each, names), metric_title(each.row, each.metric)), {})
            line[dataset] = _value(each, found)
    if not lines:
        return None
    datasets = tuple(dict.fromkeys(dataset for values in lines.values() for dataset in values))
    found_lines = tuple(PlannedLine(*key, values) for key, values in lines.items())
    return Planned(datasets, found_lines, descriptive, exploratory)


def in_bold(value: PlannedValue) -> str:
    """A value in Markdown."""
    return f"**{value}**" if value.significant else str(value)


def planned_table(found: Planned, shown: Callable[[PlannedValue], str] = str) -> Table:
    """A line per comparison and metric, and a column per data set; on one data set a column per metric."""
    if len(found.datasets) == 1:
        metrics = list(dict.fromkeys(line.metric for line in found.lines))
        values = {(line.name, line.metric): shown(line.values[found.datasets[0]]) for line in found.lines}
        names = dict.fromkeys(line.name for line in found.lines)
        of_one = [[name, *(values.get((name, metric), NONE) for metric in metrics)] for name in names]
        return Table(found.title, [found.title[:-1].lower(), *metrics], of_one)
    cells = [
        [
            line.name,
            line.metric,
            *(shown(line.values[name]) if name in line.values else NONE for name in found.datasets),
        ]
        for line in found.lines
    ]
    columns = [found.title[:-1].lower(), "test metric", *found.datasets]
    return Table(f"{found.title} on all data sets", columns, cells)
