"""Paired differences as a section of Markdown, as CSV and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from recbole_dtn.leaderboard.compare import (
    CLAIMS_NEED,
    SIGNIFICANT,
    Compared,
    Comparison,
    Difference,
    compare,
    contrasts,
)
from recbole_dtn.leaderboard.labels import metric_title, row_labels
from recbole_dtn.leaderboard.statistics import BoardRow, Paired
from recbole_dtn.report.console import say
from recbole_dtn.report.tables import csv_text, escaped, markdown_table, marked, show_table
from recbole_dtn.report.text import NONE, decimal, p_value, share

__all__ = [
    "ALL_TASKS", "OF_SEEDS", "OF_SPLITS", "all_tasks_table", "best_name", "contrast_name", "contrasts_title",
    "difference_lines", "difference_notes", "difference_title", "differences_csv", "interval", "share_interval",
    "show_differences", "signed", "signed_share", "tables_of",
]  # fmt: skip

OF_SPLITS = ("model", "test metric", "difference", "standard error", "95 % interval", "p (Holm)", "n")
OF_SEEDS = (
    "model", "test metric", "difference", "RelaImpr", "± training", "p (t)", "p (Wilcoxon)", "± test sample",
    "95 % interval", "p (Holm)", "n",
)  # fmt: skip
ALL_TASKS = ("model", "delta-m", "RelaImpr", "standard error", "95 % interval", "n")
CSV_COLUMNS = (
    "dataset", "model", "best", "task", "metric", "difference", "standard_error", "low", "high", "p", "p_holm", "n",
    "over", "test", "settings_digest", "best_settings_digest", "relaimpr", "p_wilcoxon", "sample_method",
    "sample_error", "sample_low", "sample_high", "both_error", "both_low", "both_high", "both_p", "significant",
    "planned",
)  # fmt: skip
TESTED = ("sample_method", "sample_error", "sample_low", "sample_high", "error", "low", "high", "p")


def signed(value: float | None) -> str:
    """A difference with its sign, which it keeps where it is rounded to 0.

    >>> signed(0.00123), signed(-0.5), signed(-0.00001), signed(-0.0), signed(None)
    ('+0.0012', '-0.5000', '-0.0000', '+0.0000', '–')
    """
    return NONE if value is None else f"{value + 0.0:+.4f}"


def signed_share(value: float | None) -> str:
    """A share in per cent with its sign.

    >>> signed_share(0.0123), signed_share(-0.5), signed_share(None)
    ('+1.23%', '-50.00%', '–')
    """
    return NONE if value is None else f"{value + 0.0:+.2%}"


def interval(low: float | None, high: float | None) -> str:
    """Two signed ends, or a dash."""
    return NONE if low is None else f"{signed(low)} to {signed(high)}"


def share_interval(low: float | None, high: float | None) -> str:
    """Two signed shares, or a dash."""
    return NONE if low is None else f"{signed_share(low)} to {signed_share(high)}"


def _cells(difference: Difference, name: str, over: str, *, bold: bool) -> list[str]:
    paired, metric, tested = difference.paired, difference.metric, difference.tested
    shown = signed(paired.mean)
    starts = [name, metric_title(difference.row, metric), marked(shown, "**") if bold else shown]
    ends = [p_value(difference.adjusted), str(paired.n)]
    if over != "seeds":
        return [*starts, decimal(paired.error, 4), interval(paired.low, paired.high), *ends]
    trained = [decimal(paired.error, 4), p_value(paired.p), p_value(difference.wilcoxon)]
    sample = (
        [decimal(tested.sample_error, 4), interval(tested.low, tested.high)] if tested is not None else [NONE, NONE]
    )
    return [*starts, signed_share(difference.relative), *trained, *sample, *ends]


def _table(found: Compared, rows: Sequence[BoardRow], *, bold: bool) -> list[list[str]]:
    names = dict(zip(map(id, rows), row_labels(rows), strict=True))
    return [
        _cells(each, contrast_name(each, names), found.over, bold=bold and found.significant(each))
        for each in found.differences
    ]


def contrast_name(difference: Difference, names: Mapping[int, str]) -> str:
    """The name of the row, and of a planned comparison its title and both rows; ``names``: by the rows' ids."""
    name = names[id(difference.row)]
    return f"{difference.title}: {name} − {names[id(difference.other)]}" if difference.title else name


def contrasts_title(exploratory: bool) -> str:
    """What comparisons of two named rows are called."""
    return "Exploratory comparisons" if exploratory else "Planned comparisons"


def all_tasks_table(found: Comparison, rows: Sequence[BoardRow]) -> list[list[str]]:
    """A line per row: delta-m and the mean RelaImpr of its tasks."""
    names = dict(zip(map(id, rows), row_labels(rows), strict=True))
    return [
        [names[id(each.row)], signed_share(each.delta_m.mean), signed_share(each.relative),
         share(each.delta_m.error), share_interval(each.delta_m.low, each.delta_m.high), str(each.delta_m.n)]
        for each in found.all_tasks
    ]  # fmt: skip


def _columns(found: Compared) -> tuple[str, ...]:
    columns = OF_SEEDS if found.over == "seeds" else OF_SPLITS
    return columns if isinstance(found, Comparison) else ("comparison", *columns[1:])


def best_name(found: Comparison, rows: Sequence[BoardRow]) -> str:
    """The label of the comparator."""
    return row_labels(rows)[[id(row) for row in rows].index(id(found.best))]


def difference_title(found: Comparison, rows: Sequence[BoardRow]) -> str:
    """Which row the others are compared with, and why."""
    kind = "the baseline that is best" if any(row.proposed for row in rows) else "the best"
    return f"Differences to {best_name(found, rows)}, {kind} on validation ({found.best.valid_metric})"


def difference_notes(found: Compared) -> list[str]:
    """How the differences were tested, and what is claimed."""
    if isinstance(found, Comparison):
        lines = ["The comparator was chosen by validation alone: test metrics play no part in it."]
    else:
        chosen = "Chosen after results were known" if found.exploratory else "Named in the leaderboard's file"
        lines = [f"{chosen}, and corrected (Holm) for each other alone."]
    lines += _how_seeds(found) if found.over == "seeds" else _how_splits(found)
    if isinstance(found, Comparison) and found.all_tasks:
        lines.append(
            f"delta-m: mean over the tasks of the relative change; its interval is over the {found.over} alone, not "
            "corrected, and not used for significance."
        )
    if found.left_out:
        lines.append(f"Left out, as fewer than two of their runs compare: {', '.join(found.left_out)}.")
    for reason, names in found.untested.items():
        lines.append(f"Not tested over the test sample, and so not called significant: {', '.join(names)} ({reason}).")
    if found.descriptive:
        lines.append(f"Fewer than {CLAIMS_NEED} {found.over}: descriptive, no difference is claimed.")
    else:
        alone = "; never of two models of one run" if any(each.one_run for each in found.differences) else ""
        lines.append(f"Bold: p < {SIGNIFICANT} after Holm's correction for all differences of this table{alone}.")
    return lines


def _how_splits(found: Compared) -> list[str]:
    best = found.differences[0].other
    if found.corrected:
        how = (
            f"Paired split by split. Splits share training rows: the variance of a mean is s² (1/n + "
            f"{best.test_rows:,.0f} / {best.train_rows:,.0f}), test over training rows (Nadeau and Bengio, 2003)."
        )
    elif found.over == "draws":
        how = "Paired by draw of the data (Student's t): the sampling error of each draw's test rows is in the spread."
    else:
        how = "Paired split by split (Student's t), on the same test rows, whose sampling error is not in it."
    return [how]


def _how_seeds(found: Compared) -> list[str]:
    lines = ["± training: standard error over the seeds, paired by seed on one split (Student's t, Wilcoxon)."]
    tested = [each for each in found.differences if each.tested is not None]
    if tested:
        first = tested[0]
        about = first.row.tested_on
        drawn, draws, units = about.get("drawn", "rows"), about.get("draws", 0), about.get("units", 0)
        method = first.tested.sample_method if first.tested is not None else ""
        how = "DeLong" if method == "DeLong" else f"bootstrap of {units:,} {drawn}"
        lines.append(
            f"± test sample: standard error over the test {drawn} ({how}). 95 % interval and p: {draws:,} draws of "
            f"seeds x {drawn} at once."
        )
    return lines


def difference_lines(rows: Sequence[BoardRow]) -> list[str]:
    """The sections of one data set in Markdown; empty without differences. With enough runs, p < .05 is bold."""
    lines: list[str] = []
    for title, found in tables_of(rows):
        lines += ["", f"### {escaped(title)}", "", *markdown_table(_columns(found), _table(found, rows, bold=True))]
        if isinstance(found, Comparison) and found.all_tasks:
            lines += ["", "all tasks:", "", *markdown_table(ALL_TASKS, all_tasks_table(found, rows))]
        lines += ["", *(f"- {escaped(note)}" for note in difference_notes(found))]
    return lines


def tables_of(rows: Sequence[BoardRow]) -> list[tuple[str, Compared]]:
    """The tables of differences of one data set with their titles: planned ones first, then those to the comparator."""
    planned, found = contrasts(rows), compare(rows)
    return [
        *([(contrasts_title(planned.exploratory), planned)] if planned is not None else []),
        *([(difference_title(found, rows), found)] if found is not None else []),
    ]


def show_differences(rows: Sequence[BoardRow], console: Console) -> None:
    """Print the tables of one data set, where there are differences."""
    for title, found in tables_of(rows):
        say(console, title)
        show_table(console, _columns(found), _table(found, rows, bold=False), numbers=True)
        if isinstance(found, Comparison) and found.all_tasks:
            say(console, "\nall tasks")
            show_table(console, ALL_TASKS, all_tasks_table(found, rows), numbers=True)
        notes = [note for note in difference_notes(found) if not note.startswith("Bold")]  # a terminal shows none
        say(console, "\n".join(notes) + "\n")


def differences_csv(groups: Sequence[Sequence[BoardRow]]) -> str | None:
    """Every difference on a line of its own, at full precision, and delta-m without a task; None without any."""
    lines: list[list[Any]] = []
    for found in [table for rows in groups for _, table in tables_of(rows)]:
        for each in found.differences:
            of_test = [getattr(each.tested, name, None) for name in TESTED]
            lines.append([
                *_csv_start(found, each.row, each.other, each.metric.task, each.metric.name, each.paired,
                            each.adjusted, each.relative),
                each.wilcoxon, *of_test, found.significant(each), each.title,
            ])  # fmt: skip
        if isinstance(found, Comparison):
            for row in found.all_tasks:
                start = _csv_start(found, row.row, found.best, "", "delta_m", row.delta_m, None, row.relative)
                lines.append(start + [None] * (len(CSV_COLUMNS) - len(start)))
    return csv_text(CSV_COLUMNS, lines) if lines else None


def _csv_start(
    found: Compared, row: BoardRow, other: BoardRow, task: str, metric: str, paired: Paired, adjusted: float | None,
    relative: float | None,
) -> list[Any]:  # fmt: skip
    return [
        row.dataset, row.name, other.name, task, metric, paired.mean, paired.error, paired.low, paired.high, paired.p,
        adjusted, paired.n, found.over, "corrected_t" if found.corrected else "paired_t", row.settings_digest,
        other.settings_digest, relative,
    ]  # fmt: skip
