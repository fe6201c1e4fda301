"""The plots of the page of ``data info``, as SVG that takes the colour of the text around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from recbole_dtn.inspect.info.report import DataInfo, FieldInfo
from recbole_dtn.report.plots import (
    COLOURS,
    MARKS,
    NAME,
    TEXT,
    Plot,
    few_ticks,
    legend,
    named_rows,
    new_figure,
    style,
    svg,
)
from recbole_dtn.report.text import clipped, count, share

__all__ = ["plots"]

LARGEST = 6


def plots(info: DataInfo) -> dict[str, Plot]:
    """The plots of a data set by name, without those that would be empty."""
    makers: Sequence[Callable[[DataInfo], Plot | None]] = (_splits, _rates, _together, _missing, _frequency, _lengths)
    with style():
        found = [maker(info) for maker in makers]
    return {plot.name: plot for plot in found if plot is not None}


def _splits(info: DataInfo) -> Plot:
    figure, axes = new_figure(1.5)
    bars = axes.barh(list(info.rows), list(info.rows.values()), color=COLOURS[0], height=0.6)
    axes.bar_label(bars, [count(rows) for rows in info.rows.values()], padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    axes.xaxis.set_major_formatter(lambda value, _: count(int(value)))
    axes.set_xlim(0, max(info.rows.values()) * 1.15)
    words = "; ".join(f"{split}: {count(rows)} rows" for split, rows in info.rows.items())
    return svg("splits", "Rows per split", words, figure)


def _rates(info: DataInfo) -> Plot | None:
    tasks = [task for task in info.tasks if task.kind == "binary"]
    if not tasks:
        return None
    figure, axes = new_figure(1.0 + 0.42 * len(tasks))
    rates = [found.rate for task in tasks for found in task.splits.values() if found.rate]
    for index, split in enumerate(info.rows):
        for place, task in enumerate(tasks):
            found = task.splits[split]
            if found.rate is None:
                continue
            # A logarithmic axis cannot show 0 or less.
            low = min(2 * (found.rate_error or 0), found.rate * 0.999)
            error = [[low], [2 * (found.rate_error or 0)]]
            label = split if place == 0 else None
            at = place + 0.22 * (index - 1)
            axes.errorbar(
                found.rate, at, xerr=error, fmt=MARKS[index], color=COLOURS[index], label=label, capsize=2, markersize=5
            )
    named_rows(axes, [task.name for task in tasks])
    if rates and max(rates) > 20 * min(rates):
        axes.set_xscale("log")
        few_ticks(axes.xaxis)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axes.set_xlabel("positives among the observed rows, ± 2 standard errors")
    legend(axes)
    axes.grid(axis="x", alpha=0.25)
    words = "; ".join(
        f"{task.name} in {split}: {share(found.rate)}" for task in tasks for split, found in task.splits.items()
    )
    return svg("rates", "Positives per task and split", words, figure)


def _together(info: DataInfo) -> Plot | None:
    names = list(dict.fromkeys(pair.task for pair in info.pairs))
    if not names:
        return None
    found = {(pair.task, pair.other): pair.given for pair in info.pairs if pair.split == "train"}
    size = 0.62 * len(names)
    figure = Figure(figsize=(max(size, 1.6) + 1.6, max(size * 0.75, 1.2) + 0.8))
    axes = figure.subplots()
    for row, task in enumerate(names):
        for column, other in enumerate(names):
            value = 1.0 if row == column else found[task, other]
            axes.fill_between(
                [column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=COLOURS[0], alpha=0.6 * (value or 0), lw=0
            )
            text = share(value, 1 if value is not None and value >= 0.01 else 2)
            axes.text(column, row, text.replace("%", ""), ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(names)), [clipped(name, 14) for name in names], rotation=40, ha="right")
    axes.set_yticks(range(len(names)), [clipped(name, NAME) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("given that this task is 1")
    axes.set_ylabel("per cent with this one 1")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    words = "; ".join(f"P({task} | {other}) = {share(value)}" for (task, other), value in found.items())
    return svg("together", "Tasks together, in training", words, figure)


def _missing(info: DataInfo) -> Plot:
    figure, (left, right) = new_figure(0.9 + 0.19 * len(info.fields), 2, sharey=True)
    for index, split in enumerate(info.rows):
        places = [place + 0.24 * (index - 1) for place in range(len(info.fields))]
        left.plot(
            [100 * field.splits[split].missing for field in info.fields],
            places,
            MARKS[index],
            color=COLOURS[index],
            label=split,
            markersize=4,
        )
        # Training knows its own tokens: its coverage only shows how many are rare.
        known = [
            (100 * value, place)
            for place, field in zip(places, info.fields, strict=True)
            if split != "train" and (value := field.splits[split].coverage) is not None
        ]
        right.plot(*zip(*known, strict=True) if known else ([], []), MARKS[index], color=COLOURS[index], markersize=4)
    named_rows(left, [field.name for field in info.fields])
    for axes, label in ((left, "rows without a value, %"), (right, "values whose token has an id, %")):
        axes.set_xlabel(label)
        axes.set_xlim(-3, 103)
        axes.grid(alpha=0.25)
    handles, labels = left.get_legend_handles_labels()
    right.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5))
    words = "; ".join(
        f"{field.name}: {share(field.splits['train'].missing)} missing in training, "
        f"{share(field.splits['test'].coverage)} known in test"
        for field in info.fields
    )
    return svg("missing", "Missing values, and values known to training", words, figure)


def _frequency(info: DataInfo) -> Plot | None:
    fields = [field for field in info.fields if field.tokens is not None and len(field.tokens.frequency) > 2]
    fields = sorted(fields, key=lambda field: -field.vocabulary)[:LARGEST]
    if not fields:
        return None
    figure, axes = new_figure(3.4)
    for index, field in enumerate(fields):
        assert field.tokens is not None
        ranks, counts = zip(*field.tokens.frequency, strict=True)
        style = "-" if index < len(COLOURS) else "--"
        colour = COLOURS[index % len(COLOURS)]
        label = clipped(field.name, NAME)
        label = f"\u200b{label}" if label.startswith("_") else label  # else matplotlib hides it
        axes.loglog(ranks, counts, style, marker=MARKS[index], color=colour, label=label, markersize=3, lw=1)
    for axis in (axes.xaxis, axes.yaxis):
        few_ticks(axis)
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("rank of the token")
    axes.set_ylabel("occurrences in training")
    axes.grid(alpha=0.25)
    legend(axes)
    words = "; ".join(f"{field.name}: {_frequency_words(field)}" for field in fields)
    return svg("frequency", "Token frequencies of the largest fields", words, figure)


def _frequency_words(field: FieldInfo) -> str:
    assert field.tokens is not None
    effective = field.tokens.effective or 0
    return f"{count(field.vocabulary)} tokens, effectively {effective:,.0f}"


def _lengths(info: DataInfo) -> Plot | None:
    fields = [(field, field.lengths["train"]) for field in info.fields if field.lengths is not None]
    if not fields:
        return None
    figure, axes = new_figure(1.0 + 0.3 * len(fields))
    places = range(len(fields))
    axes.hlines(places, [found.median for _, found in fields], [found.longest for _, found in fields], TEXT, alpha=0.3)
    kinds = (("mean", "mean"), ("median", "median"), ("p95", "95 %"), ("longest", "longest"))
    for index, (key, label) in enumerate(kinds):
        colour = COLOURS[index % len(COLOURS)]
        values = [getattr(found, key) for _, found in fields]
        axes.plot(values, places, MARKS[index], color=colour, label=label, markersize=5)
    named_rows(axes, [field.name for field, _ in fields])
    if max(found.longest for _, found in fields) > 100:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    axes.set_xlim(left=-0.2)
    axes.set_xlabel("values in a list, over the training rows")
    axes.grid(axis="x", alpha=0.25)
    legend(axes)
    words = "; ".join(
        f"{field.name}: mean {found.mean:.1f}, median {found.median}, 95 % {found.p95}, longest {found.longest}"
        for field, found in fields
    )
    return svg("lengths", "Lengths of lists", words, figure)
