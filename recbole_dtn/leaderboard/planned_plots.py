"""Drawings of planned comparisons: a difference with its interval for each comparison and data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from recbole_dtn.leaderboard.planned import Planned, PlannedLine
from recbole_dtn.report.plots import MARKS, Plot, legend, new_figure, standalone, style, svg

__all__ = ["planned_plots", "planned_svg"]

SIZE = 4.5
"""Of a mark, in points."""
LARGE = 0.7
"""The part of a comparison's room that the intervals of its data sets take."""


def planned_plots(found: Planned) -> Iterator[Plot]:
    """For a page, a drawing per metric."""
    for place, lines in enumerate(_by_metric(found).values()):
        yield _drawn(f"planned-{place}", lines[0].metric, found, [lines])


def planned_svg(found: Planned, title: str) -> str:
    """As a file: one drawing with a column per metric.

    Args:
        found: the comparisons. title: of the leaderboard.
    """
    return standalone(_drawn("planned", f"{title}: {found.title.lower()}", found, list(_by_metric(found).values())))


def _by_metric(found: Planned) -> dict[str, list[PlannedLine]]:
    lines: dict[str, list[PlannedLine]] = {}
    for line in found.lines:
        lines.setdefault(line.metric, []).append(line)
    return lines


def _drawn(name: str, title: str, found: Planned, metrics: Sequence[Sequence[PlannedLine]]) -> Plot:
    """A row per comparison, the first on top, and a column per metric."""
    every = [line for lines in metrics for line in lines]
    datasets = [each for each in found.datasets if any(each in line.values for line in every)]
    names = list(dict.fromkeys(line.name for line in every))
    with style():
        height = 0.6 + len(names) * (0.25 + 0.16 * len(datasets))
        figure, columns = new_figure(height, len(metrics), sharey=True, squeeze=False)
        for axes, lines in zip(columns[0], metrics, strict=True):
            _draw(axes, lines, names, datasets, 6 if len(metrics) == 1 else 4)
        columns[0][0].set_yticks(range(len(names)), [each.replace(": ", "\n", 1) for each in names])
        columns[0][0].set_ylim(len(names) - 0.45, -0.55)
        if len(datasets) > 1:
            legend(columns[0][-1])
        shown = ", ".join(dict.fromkeys(line.metric for line in every))
        return svg(name, title, f"differences of {shown} with 95 % intervals: {', '.join(names)}", figure)


def _draw(axes: Axes, lines: Sequence[PlannedLine], names: Sequence[str], datasets: Sequence[str], ticks: int) -> None:
    """Intervals of one metric, with marks that are filled where a difference is significant."""
    axes.axvline(0, color="C7", linewidth=0.8, linestyle="--")
    looks = [(f"C{number % 10}", MARKS[number // 10 % len(MARKS)]) for number in range(len(datasets))]
    for name, (colour, mark) in zip(
        datasets, looks, strict=True
    ):  # in the legend a mark is filled, whatever is significant
        axes.plot([], [], mark, color=colour, markersize=SIZE, label=name)
    for line in lines:
        for number, (name, (colour, mark)) in enumerate(zip(datasets, looks, strict=True)):
            value = line.values.get(name)
            if value is None or value.mean is None:
                continue
            at = names.index(line.name) + LARGE * ((number + 0.5) / len(datasets) - 0.5)
            if value.low is not None and value.high is not None:
                axes.plot([value.low, value.high], [at, at], color=colour, linewidth=1.4)
            filled = colour if value.significant else "none"
            axes.plot(value.mean, at, mark, color=colour, markersize=SIZE, markerfacecolor=filled)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=ticks)
    axes.set_xlabel(f"difference of {lines[0].metric}")
