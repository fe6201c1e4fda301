"""A leaderboard as one short table for a page of documentation, from the records beside its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole_dtn.leaderboard.compare import Comparison, compare, compared_metric
from recbole_dtn.leaderboard.fairness import board_rows
from recbole_dtn.leaderboard.labels import WORSE, metric_title, row_labels, sampled
from recbole_dtn.leaderboard.match import MATCHED
from recbole_dtn.leaderboard.planned import in_bold, planned, planned_table
from recbole_dtn.leaderboard.remake import of_archive
from recbole_dtn.leaderboard.statistics import BoardRow, by_dataset
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.report.tables import escaped, markdown_table, marked
from recbole_dtn.report.text import NONE, count, decimal

__all__ = ["brief"]

BELOW = "↓"
"""Behind the mean of a row that is significantly worse than the comparator."""


def brief(archive: Path, *, comparisons: bool = True) -> str:
    """Tables in Markdown: per data set the compared metric of every task and the size, then what was planned.

    The size is dense parameters, with those of codebooks where rows are matched by both.

    Args:
        archive: ``<board>.records.jsonl.gz``; statistics and plan are read beside it.
        comparisons: whether to write the planned comparisons too.

    Raises:
        DataError: for a file that cannot be read.
    """
    found = of_archive(archive)
    stored = Stored.read(found.name, archive.parent)
    rows = board_rows(found.records, found.names, found.design, stored, found.plan)
    groups = by_dataset(rows).values()
    match = found.plan.match if found.plan is not None else None
    codebook = match is not None and match.by == "dense+codebook"
    parts = [_table(group, titled=len(groups) > 1, codebook=codebook) for group in groups]
    compared = planned(rows) if comparisons else None
    if compared is not None:
        table = planned_table(compared, in_bold)
        parts.append("\n".join([*markdown_table(table.columns, table.cells), "", compared.note]))
    return "\n\n".join(parts)


def _table(rows: Sequence[BoardRow], *, titled: bool, codebook: bool) -> str:
    found, tasks = compare(rows), rows[0].tasks
    names = dict(zip(map(id, rows), row_labels(rows), strict=True))
    first = [compared_metric(rows[0], task) for task in tasks]
    tasks = tuple(task for task, metric in zip(tasks, first, strict=True) if metric is not None)
    heads = [metric_title(rows[0], metric) for metric in first if metric is not None]
    lines = [
        [
            marked(names[id(row)], "*") if found is not None and row is found.best else names[id(row)],
            *(_cell(row, task, found) for task in tasks),
            count(_size(row, codebook=codebook)),
        ]
        for row in rows
    ]
    errors = [
        decimal(row.errors.get(metric), 4) if (metric := compared_metric(row, task)) is not None else NONE
        for row in [found.best if found is not None else rows[0]]
        for task in tasks
    ]
    if any(error != NONE for error in errors):
        of = names[id(found.best)] if found is not None else names[id(rows[0])]
        lines.append([f"standard error of {of} over the test {sampled(rows[0])}", *errors, ""])
    table = markdown_table(["model", *heads, MATCHED["dense+codebook" if codebook else "dense"]], lines)
    title = [marked(rows[0].dataset, "**"), ""] if titled else []
    told = [_significant(found, names), _diverged(rows)]
    return "\n\n".join(part for part in ("\n".join([*title, *table]), " ".join(filter(None, told))) if part)


def _size(row: BoardRow, *, codebook: bool) -> int | None:
    dense = row.parameters.get("dense")
    return dense if dense is None or not codebook else dense + row.parameters.get("codebook", 0)


def _diverged(rows: Sequence[BoardRow]) -> str:
    if not any(row.worse for row in rows):
        return ""
    return f"{WORSE}: has runs whose log loss is above that of predicting the share of positives for every row."


def _cell(row: BoardRow, task: str, found: Comparison | None) -> str:
    metric = compared_metric(row, task)
    values = None if metric is None else row.metrics.get(metric)
    if values is None or values.mean is None:
        return NONE
    text = f"{decimal(values.mean, 4)}" + (f" ± {decimal(values.sd, 4)}" if values.sd is not None else "")
    each = [line for line in found.differences if line.row is row and line.metric == metric] if found else []
    better = found.better(each[0]) if found is not None and each else None
    return marked(text, "**") if better else f"{text} {BELOW}" if better is False else text


def _significant(found: Comparison | None, names: dict[int, str]) -> str:
    """What differs significantly from the comparator."""
    if found is None:
        return ""
    best, number = escaped(names[id(found.best)]), len(found.differences)
    if found.descriptive:
        return f"Too few {found.over} to claim a difference."
    told = [line for line in found.differences if found.significant(line)]
    kind = "baseline" if any(line.row.proposed for line in found.differences) else "row"
    start = f"*{best}* is the {kind} that is best on validation. Of the {number} differences to it "
    never = " Two rows of one run each are never marked." if any(line.one_run for line in found.differences) else ""
    if not told:
        return f"{start}none is significant (p < .05 after Holm's correction).{never}"
    better = sum(found.better(line) is True for line in told)
    some = [f"{number} {text}" for number, text in ((better, "better (bold)"), (len(told) - better, f"worse ({BELOW})"))
            if number]  # fmt: skip
    verb = "is" if len(told) == 1 else "are"
    return f"{start}{len(told)} {verb} significant (p < .05 after Holm's correction): {' and '.join(some)}.{never}"
