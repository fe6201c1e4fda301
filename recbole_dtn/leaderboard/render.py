"""A leaderboard as Markdown, as CSV and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_dtn.leaderboard.cells import runs_once
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, Summary
from recbole_dtn.report.console import say
from recbole_dtn.report.files import write_text
from recbole_dtn.report.tables import csv_text, escaped, markdown_table, show_table
from recbole_dtn.report.text import NONE, count, decimal

__all__ = ["board_csv", "markdown", "notes", "print_board", "write_board"]

SHOWN = {"auc": "AUC", "logloss": "log loss", "rmse": "RMSE", "mae": "MAE"}
PARTS = ("embedding", "codebook", "dense", "total")
CSV_COLUMNS = (
    "dataset", "model", "task", "metric", "split", "mean", "sd", "n",
    *(f"parameters_{part}" for part in PARTS),
    "samples_per_second", "settings_digest", "data_fingerprint", "selected_on_test",
)  # fmt: skip
MARK = "†"
"""Behind the name of a row whose numbers were selected on the test set."""
CLAIMS_NEED = 10
"""Fewest seeds for a comparison; with five or fewer, a two-sided Wilcoxon test cannot reach p < .05."""


# ---- cells of the table ---------------------------------------------------------------------------------------------


def spread(values: Summary | None, seeds: int) -> str:
    """``mean ± sd``; a dash for what is undefined, and n where some of the seeds have no value.

    >>> spread(Summary(0.78514, 0.00123, 3), 3), spread(Summary(0.5, None, 1), 1), spread(Summary(None, None, 0), 3)
    ('0.7851 ± 0.0012', '0.5000 ± –', '–')
    >>> spread(Summary(0.5, 0.01, 2), 3)
    '0.5000 ± 0.0100 (n=2)'
    """
    if values is None or values.mean is None:
        return NONE
    return f"{decimal(values.mean, 4)} ± {decimal(values.sd, 4)}" + (f" (n={values.n})" if values.n != seeds else "")


def labels(rows: Sequence[BoardRow]) -> list[str]:
    """A name per row: the model, a digest where its rows on one data set differ, the mark of selection on test."""
    named = []
    for row in rows:
        # A digest is shown only where a name alone would be ambiguous.
        same = [other for other in rows if (other.dataset, other.model) == (row.dataset, row.model)]
        parts = []
        if len({other.settings_digest for other in same}) > 1:
            parts.append(row.settings_digest[:6])
        if len({other.data_fingerprint for other in same}) > 1:
            parts.append(f"data {row.data_fingerprint[:6]}")
        name = f"{row.model} ({', '.join(parts)})" if parts else row.model
        named.append(f"{name} {MARK}" if row.selected_on_test else name)
    return named


def _shown_metrics(rows: Sequence[BoardRow]) -> list[Metric]:
    tasks = dict.fromkeys(task for row in rows for task in row.tasks)
    # The board shows test metrics; the CSV has validation too.
    wanted = [Metric("test", task, name) for task in tasks for name in SHOWN]
    return [metric for metric in wanted if any(metric in row.metrics for row in rows)]


def _columns(rows: Sequence[BoardRow]) -> list[str]:
    return [
        "model", "seeds",
        *(f"{metric.task} {SHOWN[metric.name]}" for metric in _shown_metrics(rows)),
        "embedding", "codebook", "dense", "parameters", "samples/s",
    ]  # fmt: skip


def _cells(rows: Sequence[BoardRow]) -> list[list[str]]:
    metrics = _shown_metrics(rows)
    return [
        [
            label,
            str(len(row.seeds)),
            *(spread(row.metrics.get(metric), len(row.seeds)) for metric in metrics),
            *(count(row.parameters.get(part)) for part in PARTS),
            NONE if row.samples_per_second is None else count(round(row.samples_per_second)),
        ]
        for label, row in zip(labels(rows), rows, strict=True)
    ]


def notes(rows: Sequence[BoardRow]) -> list[str]:
    """Notes on the rows of one data set: seeds, selection on the test set, different data, weights of positives."""
    names = labels(rows)
    # A model that no seed changes has one run and no spread: its row says nothing about the seeds of the board.
    seeded = [(name, row) for name, row in zip(names, rows, strict=True) if not runs_once(row.model)]
    once = [name for name, row in zip(names, rows, strict=True) if runs_once(row.model)]
    seeds = dict.fromkeys(", ".join(map(str, row.seeds)) for _, row in seeded)
    if not seeded:
        found = ["Test split."]
    elif len(seeds) == 1:
        found = [f"Test split, mean ± standard deviation over seeds {next(iter(seeds))}."]
    else:
        each = "; ".join(f"{name} {', '.join(map(str, row.seeds))}" for name, row in seeded)
        found = [f"Test split, mean ± standard deviation over seeds, which differ between rows: {each}."]
    if once:
        found.append(f"{', '.join(once)}: deterministic, one run.")
    if any(row.selected_on_test for row in rows):
        found.append(
            f"{MARK} Selected on the test set: these numbers are optimistic; they compare with published tables of the "
            "same protocol only."
        )
    found.append("The spread is that of training alone: the sampling error of the test split is not in it.")
    if min((len(row.seeds) for _, row in seeded), default=0) < CLAIMS_NEED:
        found.append(f"With fewer than {CLAIMS_NEED} seeds a leaderboard is descriptive; it claims no difference.")
    fingerprints = dict.fromkeys(row.data_fingerprint[:12] for row in rows)
    if len(fingerprints) > 1:
        found.append(
            f"Rows of different data or splits do not compare: found the data fingerprints {', '.join(fingerprints)}."
        )
    for name, row in zip(names, rows, strict=True):
        for task, weight in row.pos_weights.items():
            found.append(
                f"{name}: {task} is trained with pos_weight {weight:g}, so its predictions are not probabilities of "
                "the data and its log loss compares only under the same weight."
            )
    return found


# ---- the three forms ------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[BoardRow]) -> str:
    """One section per data set: a table with a line per row of the leaderboard, and the notes to it."""
    sections = []
    for dataset, group in _by_dataset(rows):
        lines = [f"## {escaped(dataset)}", "", *markdown_table(_columns(group), _cells(group))]
        lines += ["", *(f"- {escaped(note)}" for note in notes(group))]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


def board_csv(rows: Sequence[BoardRow]) -> str:
    """Every summary on a line of its own, at full precision; what is undefined is an empty cell."""
    lines: list[list[Any]] = []
    for row in rows:
        sizes = [row.parameters.get(part) for part in PARTS]
        ends = [*sizes, row.samples_per_second, row.settings_digest, row.data_fingerprint, row.selected_on_test]
        for metric, values in row.metrics.items():
            starts = [row.dataset, row.model, metric.task, metric.name, metric.split]
            lines.append([*starts, values.mean, values.sd, values.n, *ends])
    return csv_text(CSV_COLUMNS, lines)


def print_board(rows: Sequence[BoardRow], console: Console) -> None:
    """Print the leaderboard: a table as wide as the terminal allows, or plain columns without a terminal."""
    for dataset, group in _by_dataset(rows):
        say(console, dataset)
        show_table(console, _columns(group), _cells(group), numbers=True)
        say(console, "\n".join(notes(group)) + "\n")


def write_board(rows: Sequence[BoardRow], folder: Path, name: str) -> Path:
    """Write ``<folder>/<name>.md`` and ``.csv``, each whole or not at all; returns the path of the Markdown."""
    path = folder / f"{name}.md"
    write_text(folder / f"{name}.csv", board_csv(rows))
    write_text(path, markdown(rows))
    return path


def _by_dataset(rows: Sequence[BoardRow]) -> list[tuple[str, list[BoardRow]]]:
    return [(dataset, list(group)) for dataset, group in groupby(rows, key=lambda row: row.dataset)]
