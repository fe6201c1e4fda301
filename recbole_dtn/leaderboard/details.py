"""What stands beside a board's results: positives, both uncertainties, calibration, epochs, and the runs' warnings."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_dtn.leaderboard.costs import cost_cells, costs_in
from recbole_dtn.leaderboard.labels import sampled
from recbole_dtn.leaderboard.rescored import JOINT, RATIO
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, unit_of
from recbole_dtn.leaderboard.stored import Failure, Stored
from recbole_dtn.report.text import NONE, count, decimal, share

__all__ = ["Table", "detail_tables", "failure_table", "stored_tables", "warnings_of"]

WAYS = (f"({RATIO})", f"({JOINT})")
LISTED = 5
"""Most runs whose best epochs are listed one by one."""
SPLITS = ("train", "valid", "test")
Counts = Mapping[str, Mapping[str, tuple[int, int]]]
"""Positive and observed rows by part and task."""


@dataclass(frozen=True)
class Table:
    """A title, headings and cells; ``short``: a word for it where it needs a name."""

    title: str
    columns: list[str]
    cells: list[list[str]]
    short: str = ""


def detail_tables(rows: Sequence[BoardRow], labels: Sequence[str]) -> list[Table]:
    """The tables of one data set, each at most about 100 columns wide; without one that has nothing to show.

    Args:
        rows: of the board, on one data set. labels: their names.
    """
    return [
        table
        for table in (_positives(rows), _uncertainty(rows, labels), _others(rows, labels), _conditional(rows, labels))
        if table.cells
    ]


def stored_tables(rows: Sequence[BoardRow], labels: Sequence[str], stored: Stored) -> list[Table]:
    """Costs of the rows of one data set, and its cells without a result; without one that has nothing to show."""
    costs = costs_in(rows)
    cells = [[label, *cost_cells(row, costs)] for label, row in zip(labels, rows, strict=True)] if costs else []
    where = f"; speed and memory {stored.measured_on}" if stored.measured_on else ""
    table = Table(f"costs{where}", ["model", *(cost.title for cost in costs)], cells)
    failed = failure_table(stored.failures_of(rows, rows[0].dataset))
    return [table for table in (table, failed) if table.cells]


def failure_table(failures: Sequence[Failure]) -> Table:
    """Cells without a result, those of one row and reason on one line."""
    found: dict[tuple[str, str], list[str]] = {}
    splits = {failure.split for failure in failures}
    for failure in failures:
        cell = f"{failure.split}, {failure.seed}" if len(splits) > 1 else str(failure.seed)
        found.setdefault((failure.name, failure.reason), []).append(cell)
    cells = [[name, "; ".join(of_row), " ".join(reason.split())] for (name, reason), of_row in found.items()]
    return Table("cells without a result", ["model", "seeds", "reason"], cells)


def _others(rows: Sequence[BoardRow], labels: Sequence[str]) -> Table:
    """Per row and task: the test metrics that are in no other table, the means over the runs."""
    titles = {"gauc": "GAUC", "ne": "NE", "ece": "ECE"}
    names = [name for name in titles if any(Metric("test", task, name) in row.metrics for row in rows
             for task in row.tasks)]  # fmt: skip
    cells = []
    for label, row in zip(labels, rows, strict=True):
        for place, task in enumerate(row.tasks if names else ()):
            found = [row.metrics.get(Metric("test", task, name)) for name in names]
            cells.append([label if place == 0 else "", row.title_of(task), *(decimal(of.mean if of else None, 4)
                          for of in found)])  # fmt: skip
    return Table("other test metrics", ["model", "task", *(titles[name] for name in names)], cells, "others")


def _conditional(rows: Sequence[BoardRow], labels: Sequence[str]) -> Table:
    """Per row the AUC of the conditional probabilities that follow from its chain of tasks."""
    shown = {name for row in rows for name in (*row.tasks, *row.factors)}
    names = list(dict.fromkeys(
        metric.task for row in rows for metric in row.metrics
        if metric.task.endswith(WAYS) and (metric.split, metric.name) == ("test", "auc") and metric.task not in shown
    ))  # fmt: skip
    cells = []
    for label, row in zip(labels, rows, strict=True):
        metrics = [Metric("test", name, "auc") for name in names]
        if any(metric in row.metrics for metric in metrics):
            cells.append([label, *(_with_error(row, metric) for metric in metrics)])
    title = "AUC on the rows where the task before happened: by the ratio of both probabilities, by its own (joint)"
    return Table(title, ["model", *names], cells, "conditional")


def _with_error(row: BoardRow, metric: Metric) -> str:
    """``mean ± sd [standard error over the test rows]``; a dash for what is undefined."""
    values, error = row.metrics.get(metric), row.errors.get(metric)
    if values is None or values.mean is None:
        return NONE
    sd = "" if values.sd is None else f" ± {decimal(values.sd, 4)}"
    return f"{decimal(values.mean, 4)}{sd}" + ("" if error is None else f" [{decimal(error, 4)}]")


def _positives(rows: Sequence[BoardRow]) -> Table:
    """Positive rows per task and part; of binary tasks, and of each data set that the rows were made of."""
    data: dict[tuple[str, Any], tuple[Counts, ...]] = {}
    for row in rows:  # rows on one data set may have run different numbers of its splits
        place = row.source_fingerprint, row.splits if len(row.splits) == 1 else None
        data[place] = max(data.get(place, ()), row.positives, key=len)
    data = {place: positives for place, positives in data.items() if positives}
    cells, varied = [], False
    for (fingerprint, _), positives in data.items():
        for task in positives[0]["test"]:
            if not any(Metric(split, task, "auc") in row.metrics for row in rows for split in ("valid", "test")):
                continue
            name = task if len(data) == 1 else f"{task} (data {fingerprint[:6]})"
            found = [[of_split[part][task] for of_split in positives] for part in SPLITS]
            varied = varied or any(len(set(counts)) > 1 for counts in found)
            cells.append([name, *map(_range, found)])
    title = f"positives per task, fewest to most over the {unit_of(rows)}" if varied else "positives per task"
    return Table(title, ["task", *SPLITS], cells, "positives")


def _range(counts: Sequence[tuple[int, int]]) -> str:
    """Positive of observed rows, with their share; of splits that differ the smallest and largest of each.

    >>> _range([(630, 10_000)]), _range([(60, 1000), (71, 1000)]), _range([(6, 99), (7, 101)])
    ('630 of 10,000 (6.30%)', '60 to 71 of 1,000', '6 to 7 of 99 to 101')
    """
    if len(set(counts)) == 1:
        positives, observed = counts[0]
        return f"{count(positives)} of {count(observed)} ({share(positives / observed if observed else None)})"
    return " of ".join(
        " to ".join(count(number) for number in dict.fromkeys((min(numbers), max(numbers))))
        for numbers in zip(*counts, strict=True)
    )


def _uncertainty(rows: Sequence[BoardRow], labels: Sequence[str]) -> Table:
    """Per row and task: test AUC, its spread, its standard error over the test rows, calibration, epochs."""
    cells = []
    for label, row in zip(labels, rows, strict=True):
        for place, task in enumerate(row.tasks):
            auc, calibration = (row.metrics.get(Metric("test", task, name)) for name in ("auc", "calibration"))
            epochs = [_listed(row.best_epochs), _listed(row.epochs)] if place == 0 else ["", ""]
            cells.append(
                [
                    label if place == 0 else "",
                    row.title_of(task),
                    decimal(auc.mean if auc else None, 4),
                    decimal(auc.sd if auc else None, 4),
                    decimal(row.errors.get(Metric("test", task, "auc")), 4),
                    decimal(calibration.mean if calibration else None, 3),
                    *epochs,
                ]
            )
    units = unit_of(rows)
    columns = ["model", "task", "test AUC", f"± {units}", "± sample", "calibration", "best epoch", "of epochs"]
    title = f"test AUC with its spread over {units} and its standard error over the test {sampled(rows[0])}"
    return Table(title, columns, cells, "uncertainty")


def _listed(epochs: Sequence[int | None]) -> str:
    """One number per run; of many runs the range and the median.

    >>> _listed([5, 5, 4]), _listed([5, None]), _listed([]), _listed([2, 9, 4, 4, 5, 6])
    ('5, 5, 4', '5, –', '–', '2 to 9, median 4.5')
    """
    if len(epochs) <= LISTED:
        return ", ".join(NONE if epoch is None else str(epoch) for epoch in epochs) or NONE
    known = [epoch for epoch in epochs if epoch is not None]
    return f"{min(known)} to {max(known)}, median {statistics.median(known):g}" if known else NONE


# ---- warnings -------------------------------------------------------------------------------------------------------


def warnings_of(rows: Sequence[BoardRow], labels: Sequence[str]) -> list[str]:
    """The warnings of all runs, each once, with the rows and how many of their runs have it.

    Sentences that differ in nothing but their numbers are one warning; the numbers are those of the first run.
    """
    texts: dict[str, str] = {}
    found: dict[str, dict[int, int]] = {}
    varied: dict[str, bool] = {}
    for place, row in enumerate(rows):
        for sentences in row.warnings:
            for text in dict.fromkeys(sentences):
                key = _without_numbers(text)
                varied[key] = varied.get(key, False) or texts.setdefault(key, text) != text
                runs = found.setdefault(key, {})
                runs[place] = runs.get(place, 0) + 1
    return [f"{texts[key]} [{_where(found[key], rows, labels, varied=varied[key])}]" for key in texts]


def _without_numbers(text: str) -> str:
    """A sentence with ``#`` for its numbers; names in quotes stay.

    >>> _without_numbers("task 'day7' has 12 positives in 1,200 rows")
    "task 'day7' has # positives in # rows"
    """
    parts = re.split(r"('[^']*')", text)
    return "".join(part if part.startswith("'") else re.sub(r"\d[\d.,]*(?<![.,])", "#", part) for part in parts)


def _where(found: Mapping[int, int], rows: Sequence[BoardRow], labels: Sequence[str], *, varied: bool) -> str:
    runs = {place: row.runs for place, row in enumerate(rows)}
    if dict(found) == runs:
        told = f"all {sum(runs.values())} runs" if sum(runs.values()) > 1 else labels[0]
    else:
        told = "; ".join(
            f"{labels[place]}: {number} of {runs[place]} {rows[place].run_unit}" for place, number in found.items()
        )
    return f"{told}; numbers of the first" if varied else told
