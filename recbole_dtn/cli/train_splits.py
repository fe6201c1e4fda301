"""Training on several splits of one data set: a run each, and a table of mean and spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.splits import SplitKey
from recbole_dtn.leaderboard.cells import refuse_devices, seed_of_split
from recbole_dtn.leaderboard.details import warnings_of
from recbole_dtn.leaderboard.statistics import BoardRow, summarise
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import decimal
from recbole_dtn.training.fit import fit_settings
from recbole_dtn.training.report import METRIC_NAMES, metric_rows
from recbole_dtn.training.warn import refuse_untrusted

__all__ = ["run_splits", "split_rows"]

COLUMNS = ("task", "metric", "mean", "sd", "n")


def run_splits(
    words: Sequence[str],
    settings: Settings,
    splits: Sequence[SplitKey],
    console: Console,
    *,
    resume: str | None = None,
) -> Literal["finished", "interrupted", "preempted"]:
    """Train and test on each split, with a seed for each, and print the table of all.

    The first run prints what it does; of the others, each prints its result (a log is in every run's folder). The
    warnings of all stand below the table, each with the number of splits that have it.

    Args:
        words: settings as on the command line. settings: what they give. splits: to run. console: where to print.
        resume: ``"auto"``: a split whose run has stopped goes on with it.

    Raises:
        UsageError: for several devices. Whatever ends a run, after the table of those that are finished.
    """
    refuse_devices(
        settings,
        "several splits are trained one after another",
        "train on each by itself (--split_seed=..., --fold=...)",
    )
    given = [
        resolve([*words, *split.words(), f"--seed={seed_of_split(position, settings.seed)}"])
        for position, split in enumerate(splits)
    ]
    records: list[RunRecord] = []
    try:
        for position, (split, resolved) in enumerate(zip(splits, given, strict=True)):
            first = position == 0
            title = f"[{position + 1}/{len(splits)}] {split.title}, seed {resolved.settings.seed}"
            say(console, title if first else f"{title} ... ", end="\n" if first else "")
            run = fit_settings(resolved, console=console if first else make_console(quiet=True), resume=resume)
            if run.status != "finished":
                say(console, run.status)
                return run.status
            records.append(run.record)
            if settings.quiet:
                print(run.folder)
            if not first:
                say(console, f"{_result(run.record)} ({run.folder})")
    finally:
        _show(records, console)
    if settings.strict:
        refuse_untrusted([(record.run_id, record) for record in records])
    return "finished"


def _result(record: RunRecord) -> str:
    """The first metric of each task."""
    columns, rows = metric_rows(record.test or {})
    name, _, error = columns[1].partition(" ± ")
    return ", ".join(f"{row[0]} {name} {row[1]}" for row in rows) + f" (± {error})" * bool(error)


def _show(records: Sequence[RunRecord], console: Console) -> None:
    for row in summarise(records):
        say(console, f"\ntest over {len(row.splits)} splits, one seed each")
        show_table(console, COLUMNS, split_rows(row), numbers=True)
        if row.test_is_drawn:
            say(console, "Splits share training rows: the standard error of a mean is larger than sd / sqrt(n).")
        else:
            say(console, "All splits have the same test rows.")
        for text in warnings_of([row], [row.model]):
            say(console, f"\nwarning: {text}")


def split_rows(row: BoardRow) -> list[list[str]]:
    """A row per task and test metric: mean, standard deviation over splits, and how many splits have it."""
    return [
        [
            metric.task,
            METRIC_NAMES.get(metric.name, metric.name.upper()),
            decimal(found.mean, 4),
            decimal(found.sd, 4),
            str(found.n),
        ]
        for metric, found in row.metrics.items()
        if metric.split == "test"
    ]
