"""A leaderboard as Markdown, as CSV and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_dtn.leaderboard.across import across, across_csv, across_table
from recbole_dtn.leaderboard.cells import runs_once
from recbole_dtn.leaderboard.compare import CLAIMS_NEED
from recbole_dtn.leaderboard.costs import COSTS
from recbole_dtn.leaderboard.details import detail_tables, failure_table, stored_tables, warnings_of
from recbole_dtn.leaderboard.differences import difference_lines, differences_csv, show_differences
from recbole_dtn.leaderboard.fairness import fairness_notes
from recbole_dtn.leaderboard.labels import MARK, SHOWN, WORSE, row_labels, sampled
from recbole_dtn.leaderboard.planned import in_bold, planned_across, planned_table
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, Summary, by_dataset, unit_of
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.report.console import say
from recbole_dtn.report.files import write_text
from recbole_dtn.report.tables import csv_text, escaped, markdown_table, show_table
from recbole_dtn.report.text import NONE, count, counted, decimal

__all__ = [
    "PARTS", "board_csv", "markdown", "notes", "print_board", "shown_error", "shown_tasks", "spread",
    "write_board", "write_csv", "write_markdown",
]  # fmt: skip

PARTS = ("embedding", "codebook", "dense", "total")
CSV_COLUMNS = (
    "dataset", "name", "model", "task", "metric", "split", "mean", "sd", "n",
    *(f"parameters_{part}" for part in PARTS),
    "samples_per_second", "settings_digest", "data_fingerprint", "selected_on_test", "runs", "runs_above_constant",
    "sample_error", *(cost.key for cost in COSTS if cost.own_table),
)  # fmt: skip
NOTHING = Stored()


# ---- cells of the table ---------------------------------------------------------------------------------------------


def spread(values: Summary | None, units: int, error: float | None = None) -> str:
    """``mean ± sd [standard error over the test rows]``; a dash for what is undefined.

    Where some of the seeds or splits have no value, n is their number.

    >>> spread(Summary(0.78514, 0.00123, 3), 3), spread(Summary(0.5, None, 1), 1), spread(Summary(None, None, 0), 3)
    ('0.7851 ± 0.0012', '0.5000 ± –', '–')
    >>> spread(Summary(0.5, 0.01, 2), 3)
    '0.5000 ± 0.0100 (n=2)'
    >>> spread(Summary(0.78514, 0.00123, 3), 3, 0.0045)
    '0.7851 ± 0.0012 [0.0045]'
    """
    if values is None or values.mean is None:
        return NONE
    sample = "" if error is None else f" [{decimal(error, 4)}]"
    some = f" (n={values.n})" if values.n != units else ""
    return f"{decimal(values.mean, 4)} ± {decimal(values.sd, 4)}{sample}{some}"


def shown_tasks(rows: Sequence[BoardRow]) -> dict[str, str]:
    """The titles of all tasks, and of the conditional probabilities that models predict beside them, by name."""
    return {name: row.title_of(name) for names in ("tasks", "factors") for row in rows for name in getattr(row, names)}


def shown_error(row: BoardRow, metric: Metric) -> float | None:
    """The standard error over the test rows, of an AUC."""
    return row.errors.get(metric) if metric.name == "auc" else None


def _shown_metrics(rows: Sequence[BoardRow]) -> list[Metric]:
    tasks = shown_tasks(rows)
    # The board shows test metrics; the CSV has validation too.
    wanted = [Metric("test", task, name) for task in tasks for name in SHOWN]
    return [metric for metric in wanted if any(metric in row.metrics for row in rows)]


def _columns(rows: Sequence[BoardRow]) -> list[str]:
    unit = unit_of(rows)
    counts = [unit] if unit == "seeds" else [unit, "runs"]
    tasks = shown_tasks(rows)
    return [
        "model", *counts,
        *(f"{tasks[metric.task]} {SHOWN[metric.name]}" for metric in _shown_metrics(rows)),
        "embedding", "codebook", "dense", "parameters", "samples/s",
    ]  # fmt: skip


def _over_splits(rows: Sequence[BoardRow]) -> bool:
    return unit_of(rows) != "seeds"


def _cells(rows: Sequence[BoardRow]) -> list[list[str]]:
    metrics, several = _shown_metrics(rows), unit_of(rows) != "seeds"
    return [
        [
            label,
            *([str(len(row.splits)), str(row.runs)] if several else [str(len(row.seeds))]),
            *(spread(row.metrics.get(metric), row.units, shown_error(row, metric)) for metric in metrics),
            *(count(row.parameters.get(part)) for part in PARTS),
            NONE if row.train_rate is None else count(round(row.train_rate)),
        ]
        for label, row in zip(row_labels(rows), rows, strict=True)
    ]


def notes(rows: Sequence[BoardRow]) -> list[str]:
    """Notes on the rows of one data set: seeds, splits, selection on the test set, other data, weights of positives."""
    names, several = row_labels(rows), _over_splits(rows)
    # A model that no seed changes has one run per split: over seeds, its row says nothing about the others.
    once = [name for name, row in zip(names, rows, strict=True) if runs_once(row.model)]
    pairs = [(row, name) for row, name in zip(rows, names, strict=True) if several or name not in once]
    found = [_over_what(*map(list, zip(*pairs, strict=True)))] if pairs else ["Test split."]
    if once:
        found.append(f"{', '.join(once)}: deterministic, one run{' per split' if several else ''}.")
    if any(row.selected_on_test for row in rows):
        found.append(
            f"{MARK} Selected on the test set: these numbers are optimistic; they compare with published tables of the "
            "same protocol only."
        )
    if worse := [_worse_runs(name, row, several) for name, row in zip(names, rows, strict=True) if row.worse]:
        found.append(
            f"{WORSE} The log loss of a run is above that of predicting the share of positives of the split for every "
            "row: it diverged, overfit, or learned from rows with another share. Such runs are in the means: "
            f"{'; '.join(worse)}."
        )
    found.append(_what_the_spread_is(rows))
    if any(shown_error(row, metric) is not None for row in rows for metric in row.errors):
        found.append(
            f"In brackets beside an AUC: its standard error over the test {sampled(rows[0])}, mean over the runs."
        )
    if min((row.units for row, _ in pairs), default=0) < CLAIMS_NEED:
        found.append(
            f"With fewer than {CLAIMS_NEED} {unit_of(rows)} a leaderboard is descriptive; it claims no difference."
        )
    fingerprints = dict.fromkeys(row.source_fingerprint[:12] for row in rows)
    if len(fingerprints) > 1:
        found.append(
            f"Rows of different data or splits do not compare: found the data fingerprints {', '.join(fingerprints)}."
        )
    codes = sorted({code for row in rows for code in row.codes})
    if len(codes) > 1:
        known = [code for code in codes if code]
        made = f"{counted(len(known), 'state')} of the code ({', '.join(known)})"
        made += " and by others, which are not recorded" if len(known) < len(codes) else ""
        found.append(
            f"The runs were made by {made}: to have one, run all of them again in another --output_dir and --output."
        )
    for name, row in zip(names, rows, strict=True):
        for task, weight in row.pos_weights.items():
            found.append(
                f"{name}: {task} is trained with pos_weight {weight:g}, so its predictions are not probabilities of "
                "the data and its log loss compares only under the same weight."
            )
    return [*found, *fairness_notes(rows, names)]


def _worse_runs(name: str, row: BoardRow, several: bool) -> str:
    tasks = ", ".join(dict.fromkeys(task for found in row.worse.values() for task in found))
    if several:
        where = "; ".join(f"{split.title}, seed {seed}" for split, seed in row.worse)
    else:
        where = f"seed{'s' * (len(row.worse) > 1)} {_listed([seed for _, seed in row.worse])}"
    return f"{name} {len(row.worse)} of {row.runs} ({tasks}; {where})"


def _over_what(rows: Sequence[BoardRow], names: Sequence[str]) -> str:
    """Which splits and seeds the rows are over."""
    start = "Test split, mean ± standard deviation over"
    several = _over_splits(rows)
    runs = [_splits_of(row) if several else _listed(row.seeds) for row in rows]
    unit = unit_of(rows)
    if len(set(runs)) == 1:
        return f"{start} {unit} {runs[0]}." if not several else f"{start} {len(rows[0].splits)} {unit}: {runs[0]}."
    each = "; ".join(f"{name} {run}" for name, run in zip(names, runs, strict=True))
    return f"{start} {unit}, which differ between rows: {each}."


def _splits_of(row: BoardRow) -> str:
    """The splits and seeds of a row: ``folds 0 to 4 of 5, split_seed 2020; one seed a split (2020 to 2024)``."""
    if row.unit == "draws":
        draws = list(dict.fromkeys(split.draw for split in row.splits))
        named = draws[0] if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
        return f"{named}; {'one seed' if len(row.seeds) == 1 else 'seeds'} ({_listed(row.seeds)})"
    seeds = list(dict.fromkeys(split.split_seed for split in row.splits))
    text = f"split_seed {_listed(seeds)}"
    folds = row.splits[0].folds
    if folds is not None:
        tested = sorted({split.fold for split in row.splits if split.fold is not None})
        text = f"folds {_listed(tested)} of {folds}, {text}"
    if row.runs == len(row.splits):
        return f"{text}; one seed a split ({_listed(row.seeds)})"
    return f"{text}; the mean over seeds {_listed(row.seeds)} in each"


def _listed(numbers: Sequence[int]) -> str:
    """Numbers, three and more in a row by the first and last.

    >>> _listed([3, 4, 5, 6]), _listed([3, 4]), _listed([1, 3, 4, 5])
    ('3 to 6', '3, 4', '1, 3 to 5')
    """
    parts: list[str] = []
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        parts += [f"{found[0]} to {found[-1]}"] if len(found) > 2 else map(str, found)
    return ", ".join(parts)


def _what_the_spread_is(rows: Sequence[BoardRow]) -> str:
    if unit_of(rows) == "draws":
        return (
            "Every draw has data of its own: the spread is that of the data, the test rows and training. reach is "
            "(AUC - .5) / (best - .5), best being the AUC of the true probabilities on the test rows; where it is "
            "known, rows are compared by it."
        )
    if not _over_splits(rows):
        return "± is the standard deviation over the seeds: the sampling error of the test split is not in it."
    if all(row.test_is_drawn for row in rows):
        return (
            "The spread is that of training and of the test rows. Splits share training rows: the standard "
            "error of a mean is larger than sd / sqrt(n)."
        )
    return "The spread is that of training and of the validation rows: all splits have the same test rows."


# ---- the three forms ------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[BoardRow], stored: Stored = NOTHING) -> str:
    """One section per data set: a table with a line per row of the leaderboard, and the notes to it."""
    sections = []
    for dataset, group in by_dataset(rows).items():
        labels = row_labels(group)
        lines = [f"## {escaped(dataset)}", "", *markdown_table(_columns(group), _cells(group))]
        for table in [*detail_tables(group, labels), *stored_tables(group, labels, stored)]:
            lines += ["", f"{table.title}:", "", *markdown_table(table.columns, table.cells)]
        warnings = [f"Warning: {text}" for text in warnings_of(group, labels)]
        lines += ["", *(f"- {escaped(note)}" for note in [*notes(group), *warnings]), *difference_lines(group)]
        sections.append("\n".join(lines) + "\n")
    together = across(rows)
    if together is not None:
        table, told = across_table(together)
        lines = [
            "## All data sets",
            "",
            *markdown_table(table.columns, table.cells),
            "",
            *(f"- {escaped(note)}" for note in told),
        ]
        sections.append("\n".join(map(str, lines)) + "\n")
    planned = planned_across(rows)
    if planned is not None:
        table = planned_table(planned, in_bold)
        lines = [f"## {table.title}", "", *markdown_table(table.columns, table.cells)]
        sections.append("\n".join([*lines, "", f"- {escaped(planned.note)}"]) + "\n")
    for failure_set in dict.fromkeys(failure.dataset for failure in stored.failures):
        if failure_set not in {row.dataset for row in rows}:
            table = failure_table(stored.failures_of(rows, failure_set))
            sections.append("\n".join([f"## {escaped(failure_set)}", "", *markdown_table(table.columns, table.cells)]))
    return "\n".join(sections)


def board_csv(rows: Sequence[BoardRow]) -> str:
    """Every summary on a line of its own, at full precision; what is undefined is an empty cell."""
    lines: list[list[Any]] = []
    for row in rows:
        sizes = [row.parameters.get(part) for part in PARTS]
        ends = [*sizes, row.train_rate, row.settings_digest, row.data_fingerprint, row.selected_on_test,
                row.runs, len(row.worse)]  # fmt: skip
        costs = [cost.of(row) for cost in COSTS if cost.own_table]
        for metric, values in row.metrics.items():
            starts = [row.dataset, row.name, row.model, metric.task, metric.name, metric.split]
            lines.append([*starts, values.mean, values.sd, values.n, *ends, row.errors.get(metric), *costs])
    return csv_text(CSV_COLUMNS, lines)


def print_board(rows: Sequence[BoardRow], console: Console, stored: Stored = NOTHING) -> None:
    """Print the leaderboard: a table as wide as the terminal allows, or plain columns without a terminal."""
    for dataset, group in by_dataset(rows).items():
        say(console, dataset)
        show_table(console, _columns(group), _cells(group), numbers=True)
        labels = row_labels(group)
        for table in [*detail_tables(group, labels), *stored_tables(group, labels, stored)]:
            say(console, f"\n{table.title}")
            show_table(console, table.columns, table.cells, numbers=True)
        warnings = [f"warning: {text}" for text in warnings_of(group, row_labels(group))]
        say(console, "\n".join(["", *notes(group), *warnings]) + "\n")
        show_differences(group, console)
    together = across(rows)
    if together is not None:
        table, told = across_table(together)
        say(console, table.title)
        show_table(console, table.columns, table.cells, numbers=True)
        say(console, "\n".join(["", *told]))
    planned = planned_across(rows)
    if planned is not None:
        table = planned_table(planned)
        say(console, f"\n{table.title}")
        show_table(console, table.columns, table.cells)
        say(console, "\n" + planned.note)


def write_board(rows: Sequence[BoardRow], folder: Path, name: str) -> Path:
    """Write ``<folder>/<name>.md`` and ``.csv``, each whole or not at all; returns the path of the Markdown."""
    write_csv(rows, folder, name)
    return write_markdown(rows, folder, name)


def write_markdown(rows: Sequence[BoardRow], folder: Path, name: str, stored: Stored = NOTHING) -> Path:
    """Write ``<folder>/<name>.md``; returns its path."""
    path = folder / f"{name}.md"
    write_text(path, markdown(rows, stored))
    return path


def write_csv(rows: Sequence[BoardRow], folder: Path, name: str) -> Path:
    """Write ``<folder>/<name>.csv``; returns its path.

    Paired differences go to ``<name>.differences.csv``, and ratings over several data sets to ``<name>.across.csv``,
    where there are any; those of an earlier board are removed.
    """
    path = folder / f"{name}.csv"
    write_text(path, board_csv(rows))
    lines = differences_csv([group for _, group in by_dataset(rows).items()])
    if lines is None:
        (folder / f"{name}.differences.csv").unlink(missing_ok=True)
    else:
        write_text(folder / f"{name}.differences.csv", lines)
    together = across(rows)
    if together is None:
        (folder / f"{name}.across.csv").unlink(missing_ok=True)
    else:
        write_text(folder / f"{name}.across.csv", across_csv(together))
    return path
