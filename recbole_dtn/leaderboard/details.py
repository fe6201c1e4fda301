"""What stands beside a board's results: positives, both uncertainties, calibration, epochs, and the runs' warnings."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recbole_dtn.leaderboard.statistics import BoardRow, Metric
from recbole_dtn.report.text import NONE, count, decimal, share

__all__ = ["Table", "detail_tables", "warnings_of"]

LISTED = 5
"""Most seeds whose best epochs are listed one by one."""
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Table:
    """A title, headings and cells."""

    title: str
    columns: list[str]
    cells: list[list[str]]


def detail_tables(rows: Sequence[BoardRow], labels: Sequence[str]) -> list[Table]:
    """The tables of one data set, each at most about 100 columns wide; without one that has nothing to show.

    Args:
        rows: of the board, on one data set. labels: their names.
    """
    return [table for table in (_positives(rows), _uncertainty(rows, labels)) if table.cells]


def _positives(rows: Sequence[BoardRow]) -> Table:
    """Positive rows per task and split; of binary tasks, and of each data set that the rows were made of."""
    data = {row.data_fingerprint: row.positives for row in rows if row.positives}
    cells = []
    for fingerprint, positives in data.items():
        for task in positives["test"]:
            if not any(Metric(split, task, "auc") in row.metrics for row in rows for split in ("valid", "test")):
                continue
            name = task if len(data) == 1 else f"{task} (data {fingerprint[:6]})"
            cells.append([name, *(_share(*positives[split][task]) for split in SPLITS)])
    return Table("positives per task", ["task", *SPLITS], cells)


def _share(positives: int, observed: int) -> str:
    return f"{count(positives)} of {count(observed)} ({share(positives / observed if observed else None)})"


def _uncertainty(rows: Sequence[BoardRow], labels: Sequence[str]) -> Table:
    """Per row and task: test AUC, its spread over seeds, its standard error over rows, calibration, best epochs."""
    cells = []
    for label, row in zip(labels, rows, strict=True):
        for place, task in enumerate(row.tasks):
            auc, calibration = (row.metrics.get(Metric("test", task, name)) for name in ("auc", "calibration"))
            epochs = [_listed(row.best_epochs), _listed(row.epochs)] if place == 0 else ["", ""]
            cells.append(
                [
                    label if place == 0 else "",
                    task,
                    decimal(auc.mean if auc else None, 4),
                    decimal(auc.sd if auc else None, 4),
                    decimal(row.errors.get(Metric("test", task, "auc")), 4),
                    decimal(calibration.mean if calibration else None, 3),
                    *epochs,
                ]
            )
    columns = ["model", "task", "test AUC", "± seeds", "± sample", "calibration", "best epoch", "of epochs"]
    return Table("test AUC with its spread over seeds and its standard error over the test rows", columns, cells)


def _listed(epochs: Sequence[int | None]) -> str:
    """One number per seed; of many seeds the range and the median.

    >>> _listed([5, 5, 4]), _listed([5, None]), _listed([]), _listed([2, 9, 4, 4, 5, 6])
    ('5, 5, 4', '5, –', '–', '2 to 9, median 4.5')
    """
    if len(epochs) <= LISTED:
        return ", ".join(NONE if epoch is None else str(epoch) for epoch in epochs) or NONE
    known = [epoch for epoch in epochs if epoch is not None]
    return f"{min(known)} to {max(known)}, median {statistics.median(known):g}" if known else NONE


# ---- warnings -------------------------------------------------------------------------------------------------------


def warnings_of(rows: Sequence[BoardRow], labels: Sequence[str]) -> list[str]:
    """The warnings of all runs, each once, with the rows and the number of seeds that have it.

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
                seeds = found.setdefault(key, {})
                seeds[place] = seeds.get(place, 0) + 1
    return [f"{texts[key]} [{_where(found[key], rows, labels, varied=varied[key])}]" for key in texts]


def _without_numbers(text: str) -> str:
    """A sentence with ``#`` for its numbers; names in quotes stay.

    >>> _without_numbers("task 'day7' has 12 positives in 1,200 rows")
    "task 'day7' has # positives in # rows"
    """
    parts = re.split(r"('[^']*')", text)
    return "".join(part if part.startswith("'") else re.sub(r"\d[\d.,]*(?<![.,])", "#", part) for part in parts)


def _where(seeds: Mapping[int, int], rows: Sequence[BoardRow], labels: Sequence[str], *, varied: bool) -> str:
    runs = {place: len(row.seeds) for place, row in enumerate(rows)}
    if dict(seeds) == runs:
        told = f"all {sum(runs.values())} runs" if sum(runs.values()) > 1 else labels[0]
    else:
        told = "; ".join(f"{labels[place]}: {found} of {runs[place]} seeds" for place, found in seeds.items())
    return f"{told}; numbers of the first" if varied else told
