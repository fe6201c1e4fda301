"""Paired differences as a section of Markdown, as CSV and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from recbole_dtn.leaderboard.compare import CLAIMS_NEED, Comparison, Difference, compare
from recbole_dtn.leaderboard.labels import row_labels
from recbole_dtn.leaderboard.statistics import BoardRow
from recbole_dtn.report.console import say
from recbole_dtn.report.tables import csv_text, escaped, markdown_table, show_table
from recbole_dtn.report.text import NONE, decimal, p_value

__all__ = ["difference_lines", "differences_csv", "show_differences"]

COLUMNS = ("model", "test metric", "difference", "standard error", "95 % interval", "p (Holm)", "n")
CSV_COLUMNS = (
    "dataset", "model", "best", "task", "metric", "difference", "standard_error", "low", "high", "p", "p_holm", "n",
    "over", "test", "settings_digest", "best_settings_digest",
)  # fmt: skip
SIGNIFICANT = 0.05


def signed(value: float | None) -> str:
    """A difference with its sign.

    >>> signed(0.00123), signed(-0.5), signed(None)
    ('+0.0012', '-0.5000', '–')
    """
    text = decimal(value, 4)
    return text if value is None or text.startswith("-") else f"+{text}"


def _cells(difference: Difference, name: str, *, bold: bool) -> list[str]:
    paired, metric = difference.paired, difference.metric
    interval = NONE if paired.low is None else f"{signed(paired.low)} to {signed(paired.high)}"
    shown = signed(paired.mean)
    if bold and difference.adjusted is not None and difference.adjusted < SIGNIFICANT:
        shown = f"**{shown}**"
    label = f"{metric.task} {metric.name.upper()}"
    return [name, label, shown, decimal(paired.error, 4), interval, p_value(difference.adjusted), str(paired.n)]


def _table(found: Comparison, rows: Sequence[BoardRow], *, bold: bool) -> list[list[str]]:
    names = dict(zip(map(id, rows), row_labels(rows), strict=True))
    bold = bold and not found.descriptive
    return [_cells(difference, names[id(difference.row)], bold=bold) for difference in found.differences]


def _title(found: Comparison, rows: Sequence[BoardRow]) -> str:
    name = row_labels(rows)[[id(row) for row in rows].index(id(found.best))]
    return f"Differences to {name}, the best on validation ({found.best.valid_metric})"


def _notes(found: Comparison) -> list[str]:
    best = found.best
    if found.corrected:
        how = (
            f"Paired split by split. Splits share training rows: the variance of a mean is s² (1/n + "
            f"{best.test_rows:,.0f} / {best.train_rows:,.0f}), test over training rows (Nadeau and Bengio, 2003)."
        )
    elif found.over == "draws":
        how = "Paired by draw of the data (Student's t): the sampling error of each draw's test rows is in the spread."
    else:
        how = f"Paired by {found.over[:-1]} (Student's t), on the same test rows, whose sampling error is not in it."
    lines = [f"{how} p is corrected for all differences of this table (Holm)."]
    if found.descriptive:
        lines.append(f"Fewer than {CLAIMS_NEED} {found.over}: descriptive, no difference is claimed.")
    return lines


def difference_lines(rows: Sequence[BoardRow]) -> list[str]:
    """The section of one data set in Markdown; empty without differences. With enough runs, p < .05 is bold."""
    found = compare(rows)
    if found is None:
        return []
    lines = ["", f"### {escaped(_title(found, rows))}", "", *markdown_table(COLUMNS, _table(found, rows, bold=True))]
    return [*lines, "", *(f"- {escaped(note)}" for note in _notes(found))]


def show_differences(rows: Sequence[BoardRow], console: Console) -> None:
    """Print the table of one data set, where there are differences."""
    found = compare(rows)
    if found is None:
        return
    say(console, _title(found, rows))
    show_table(console, COLUMNS, _table(found, rows, bold=False), numbers=True)
    say(console, "\n".join(_notes(found)) + "\n")


def differences_csv(groups: Sequence[Sequence[BoardRow]]) -> str | None:
    """Every difference on a line of its own, at full precision; None without any."""
    lines: list[list[Any]] = []
    for rows in groups:
        found = compare(rows)
        for each in found.differences if found is not None else ():
            assert found is not None
            paired, metric = each.paired, each.metric
            lines.append([
                each.row.dataset, each.row.name, found.best.name, metric.task, metric.name, paired.mean, paired.error,
                paired.low, paired.high, paired.p, each.adjusted, paired.n, found.over,
                "corrected_t" if found.corrected else "paired_t", each.row.settings_digest, found.best.settings_digest,
            ])  # fmt: skip
    return csv_text(CSV_COLUMNS, lines) if lines else None
