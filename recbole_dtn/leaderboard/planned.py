"""Planned comparisons in short: of one data set by task, and of all data sets of a leaderboard side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recbole_dtn.leaderboard.compare import SIGNIFICANT, Compared, Difference, contrasts
from recbole_dtn.leaderboard.details import Table
from recbole_dtn.leaderboard.differences import contrast_name, contrasts_title, interval, signed
from recbole_dtn.leaderboard.labels import metric_title
from recbole_dtn.leaderboard.statistics import BoardRow, by_dataset
from recbole_dtn.report.tables import marked
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
    """The comparisons in the order of the leaderboard's file, and the data sets.

    ``descriptive``: those with too few runs for a claim. ``several``: whether the leaderboard has more than one.
    """

    datasets: tuple[str, ...]
    lines: tuple[PlannedLine, ...]
    descriptive: tuple[str, ...]
    exploratory: bool
    several: bool

    @property
    def title(self) -> str:
        """What they are called."""
        return contrasts_title(self.exploratory)

    @property
    def note(self) -> str:
        """What is in the table."""
        start = "Differences with 95 % intervals. "
        start += "Chosen after results were known. " if self.exploratory else ""
        if len(self.descriptive) == len(self.datasets):
            return f"{start}Too few runs to claim any."
        of = " for the comparisons of one column" if self.several else ""
        few = f" Too few runs to claim any on {', '.join(self.descriptive)}." if self.descriptive else ""
        return f"{start}Bold: p < {SIGNIFICANT} after Holm's correction{of}.{few}"


def _value(each: Difference, found: Compared) -> PlannedValue:
    """The value of one difference."""
    of = each.whole(found.over)
    return PlannedValue(
        each.paired.mean, None if of is None else of.low, None if of is None else of.high, found.significant(each)
    )


def planned_across(rows: Sequence[BoardRow]) -> Planned | None:
    """The planned comparisons of a leaderboard of several data sets; None for one, or without any."""
    found = planned(rows)
    return found if found is not None and found.several else None


def planned(rows: Sequence[BoardRow]) -> Planned | None:
    """The planned comparisons of the rows of any number of data sets; None without any."""
    lines: dict[tuple[int, str, str], dict[str, PlannedValue]] = {}
    places = {title: place for row in rows for place, title, _ in row.contrasts}
    descriptive, exploratory, groups = [], False, by_dataset(rows)
    for dataset, group in groups.items():
        found = contrasts(group)
        if found is None:
            continue
        descriptive += [dataset] if found.descriptive else []
        exploratory |= found.exploratory
        names = {id(row): row.name for row in group}
        for each in found.differences:
            key = places[each.title], contrast_name(each, names), metric_title(each.row, each.metric)
            lines.setdefault(key, {})[dataset] = _value(each, found)
    if not lines:
        return None
    datasets = tuple(name for name in groups if any(name in values for values in lines.values()))
    ordered = sorted(lines.items(), key=lambda item: item[0][0])
    found_lines = tuple(PlannedLine(name, metric, values) for (_, name, metric), values in ordered)
    return Planned(datasets, found_lines, tuple(descriptive), exploratory, len(groups) > 1)


def in_bold(value: PlannedValue) -> str:
    """A value in Markdown."""
    return marked(str(value), "**") if value.significant else str(value)


def planned_table(found: Planned, shown: Callable[[PlannedValue], str] = str) -> Table:
    """A line per comparison and metric, and a column per data set; on one data set a column per metric."""
    if not found.several:
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
