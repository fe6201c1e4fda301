"""A leaderboard as one short table for a page of documentation, from the records beside its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole_dtn.leaderboard.compare import Compared, Comparison, Difference, compare, compared_metric, contrasts
from recbole_dtn.leaderboard.differences import contrast_name, interval, signed
from recbole_dtn.leaderboard.fairness import board_rows
from recbole_dtn.leaderboard.labels import row_labels
from recbole_dtn.leaderboard.remake import of_archive
from recbole_dtn.leaderboard.render import SHOWN
from recbole_dtn.leaderboard.statistics import BoardRow, by_dataset
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.report.tables import escaped, markdown_table
from recbole_dtn.report.text import NONE, count, decimal

__all__ = ["brief"]


def brief(archive: Path, *, planned: bool = True) -> str:
    """Tables per data set in Markdown: the compared metric of every task, dense parameters, and planned comparisons.

    Args:
        archive: ``<board>.records.jsonl.gz``; statistics and plan are read beside it.
        planned: whether to write the planned comparisons too.

    Raises:
        DataError: for a file that cannot be read.
    """
    found = of_archive(archive)
    stored = Stored.read(found.name, archive.parent)
    groups = by_dataset(board_rows(found.records, found.names, found.design, stored, found.plan)).values()
    return "\n\n".join(_table(group, titled=len(groups) > 1, planned=planned) for group in groups)


def _table(rows: Sequence[BoardRow], *, titled: bool, planned: bool) -> str:
    found, tasks = compare(rows), rows[0].tasks
    names = dict(zip(map(id, rows), row_labels(rows), strict=True))
    first = [compared_metric(rows[0], task) for task in tasks]
    tasks = tuple(task for task, metric in zip(tasks, first, strict=True) if metric is not None)
    heads = [f"{rows[0].title_of(metric.task)} {SHOWN[metric.name]}" for metric in first if metric is not None]
    lines = [
        [
            f"*{names[id(row)]}*" if found is not None and row is found.best else names[id(row)],
            *(_cell(row, task, found) for task in tasks),
            count(row.parameters.get("dense")),
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
        lines.append([f"standard error of {of} over the test rows", *errors, ""])
    table = markdown_table(["model", *heads, "dense parameters"], lines)
    title = [f"**{rows[0].dataset}**", ""] if titled else []
    parts = ["\n".join([*title, *table]), _significant(found, names), _planned(rows, tasks, heads) if planned else ""]
    return "\n\n".join(part for part in parts if part)


def _planned(rows: Sequence[BoardRow], tasks: Sequence[str], heads: Sequence[str]) -> str:
    """The planned comparisons, a line each."""
    found = contrasts(rows)
    if found is None:
        return ""
    lines: dict[str, dict[str, str]] = {}
    for each in found.differences:
        name = contrast_name(each, {id(row): row.name for row in rows})
        lines.setdefault(name, {})[each.metric.task] = _difference(each, found)
    claims = "Bold: p < .05 after Holm's correction." if not found.descriptive else "Too few runs to claim any."
    table = markdown_table(
        ["planned comparison", *heads],
        [[name, *(cells.get(task, NONE) for task in tasks)] for name, cells in lines.items()],
    )
    return "\n".join([*table, "", f"Differences with 95 % intervals. {claims}"])


def _difference(each: Difference, found: Compared) -> str:
    """The difference and its interval: over seeds that of seeds and test sample at once."""
    of = each.whole(found.over)
    shown = f"{signed(each.paired.mean)} ({interval(of.low, of.high)})" if of is not None else signed(each.paired.mean)
    return f"**{shown}**" if found.significant(each) else shown


def _cell(row: BoardRow, task: str, found: Comparison | None) -> str:
    metric = compared_metric(row, task)
    values = None if metric is None else row.metrics.get(metric)
    if values is None or values.mean is None:
        return NONE
    text = f"{decimal(values.mean, 4)}" + (f" ± {decimal(values.sd, 4)}" if values.sd is not None else "")
    each = [line for line in found.differences if line.row is row and line.metric == metric] if found else []
    return f"**{text}**" if found is not None and any(found.significant(line) for line in each) else text


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
    if not told:
        return f"{start}none is significant (p < .05 after Holm's correction)."
    return f"{start}{len(told)} are significant (bold; p < .05 after Holm's correction)."
