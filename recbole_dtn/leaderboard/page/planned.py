"""The section of planned comparisons of a page: an interval for each comparison and data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from recbole_dtn.leaderboard.planned import Planned, PlannedLine, planned_table

__all__ = ["planned_content", "planned_plots"]


def planned_content(found: Planned | None) -> dict[str, Any] | None:
    """What the template reads: names of the drawings, and the table; None without comparisons."""
    if found is None:
        return None
    table = planned_table(found, lambda value: Markup("<b>{}</b>").format(value) if value.significant else str(value))
    return {
        "title": found.title,
        "plots": [f"planned-{place}" for place in range(len(_by_metric(found)))],
        "columns": table.columns,
        "cells": table.cells,
        "note": found.note,
    }


def planned_plots(found: Planned | None) -> Iterator[Any]:
    """A drawing per metric: differences with 95 % intervals, filled where they are significant."""
    from recbole_dtn.report.plots import MARKS, legend, new_figure, style, svg  # loads matplotlib

    for place, (metric, lines) in enumerate(_by_metric(found).items()):
        assert found is not None
        datasets = [name for name in found.datasets if any(name in line.values for line in lines)]
        with style():
            figure, axes = new_figure(0.6 + len(lines) * (0.25 + 0.16 * len(datasets)))
            axes.axvline(0, color="C7", linewidth=0.8, linestyle="--")
            for number, name in enumerate(datasets):  # in the legend a mark is filled, whatever is significant
                axes.plot([], [], MARKS[number // 10 % len(MARKS)], color=f"C{number % 10}", markersize=4.5, label=name)
            for row, line in enumerate(lines):
                for number, name in enumerate(datasets):
                    value = line.values.get(name)
                    if value is None or value.mean is None:
                        continue
                    at = row + 0.7 * ((number + 0.5) / len(datasets) - 0.5)
                    colour = f"C{number % 10}"
                    if value.low is not None and value.high is not None:
                        axes.plot([value.low, value.high], [at, at], color=colour, linewidth=1.4)
                    axes.plot(
                        value.mean, at, MARKS[number // 10 % len(MARKS)], color=colour, markersize=4.5,
                        markerfacecolor=colour if value.significant else "none",
                    )  # fmt: skip
            axes.set_yticks(range(len(lines)), [line.name.replace(": ", "\n", 1) for line in lines])
            axes.set_ylim(len(lines) - 0.45, -0.55)
            axes.tick_params(axis="y", length=0)
            axes.xaxis.get_major_locator().set_params(nbins=6)
            axes.set_xlabel(f"difference of {metric}")
            if len(datasets) > 1:
                legend(axes)
            words = f"differences of {metric} with 95 % intervals: {', '.join(line.name for line in lines)}"
            yield svg(f"planned-{place}", metric, words, figure)


def _by_metric(found: Planned | None) -> dict[str, list[PlannedLine]]:
    lines: dict[str, list[PlannedLine]] = {}
    for line in found.lines if found is not None else ():
        lines.setdefault(line.metric, []).append(line)
    return lines
