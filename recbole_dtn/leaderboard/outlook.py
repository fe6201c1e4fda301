"""``leaderboard run --dry_run``: rows, matched sizes, cells, trials and the time that they would take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from recbole_dtn.config.settings import Settings
from recbole_dtn.leaderboard.cell_run import present_fingerprint
from recbole_dtn.leaderboard.cells import Cell, resolve_cell
from recbole_dtn.leaderboard.choose import Candidate, Chooser, candidates_of, refuse_trial_seeds, schema_of
from recbole_dtn.leaderboard.fairness import setting_notes
from recbole_dtn.leaderboard.match import MATCHED, can_match
from recbole_dtn.leaderboard.plan import MatchWanted, TuneWanted
from recbole_dtn.report.console import say
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import NONE, count, counted

__all__ = ["show_outlook"]

HOUR = 3600.0


def show_outlook(
    cells: Sequence[Cell],
    match: MatchWanted | None,
    tune: TuneWanted | None,
    console: Console,
    *,
    seconds_per_epoch: Callable[[Settings], float | None] | None = None,
) -> None:
    """Print the plan of a leaderboard; the data is prepared, and a few steps of each row are timed.

    Args:
        cells: of the leaderboard. match, tune: how its rows are chosen. console: where to print.
        seconds_per_epoch: of a row; None: it is not known.

    Raises:
        UsageError: for whatever `leaderboard run` would refuse.
    """
    chooser = Chooser(
        candidates_of(cells), match, tune, resolve=resolve_cell, fingerprint=present_fingerprint, schema=schema_of,
        console=console,
    )  # fmt: skip
    if tune is not None:
        refuse_trial_seeds([cell.key.seed for cell in cells], tune)
    for note in setting_notes(cells):
        say(console, note)
    measure = seconds_per_epoch or _projected
    lines, total, unknown = [], 0.0, 0
    for row in chooser.candidates:
        of_row = [cell for cell in cells if (cell.shown_dataset, cell.name) == (row.dataset, row.cell.name)]
        line, seconds = _line(chooser, row, len(of_row), tune, measure)
        lines.append(line)
        total += seconds or 0.0
        unknown += seconds is None
    sized = ["widths", MATCHED[match.by], "of the reference"] if match is not None else []
    tuned = ["tuned", "trials"] if tune is not None else []
    columns = ["row", "data set", *sized, *tuned, "cells", "s / epoch", "at most, h"]
    show_table(console, columns, lines, numbers=True)
    trials = sum(map(chooser.wanted, chooser.candidates))
    say(
        console,
        f"\n{len(lines)} rows, {count(len(cells))} cells, {count(trials)} trials; training at most {total / HOUR:.1f} "
        "h in one process (from a few steps on this machine, to the last epoch; validation and tests left out)"
        + (f"; {counted(unknown, 'row')} fitted directly and not in it" if unknown else ""),
    )


def _line(
    chooser: Chooser,
    row: Candidate,
    cells: int,
    tune: TuneWanted | None,
    seconds_per_epoch: Callable[[Settings], float | None],
) -> tuple[list[str], float | None]:
    matched, widths = chooser.matched(row, ())
    settings, _ = chooser.resolve([*row.cell.overrides, *widths])
    line = [row.cell.name, row.dataset]
    if row.size is not None:
        own = "own" if can_match(row.cell.key.model) else NONE
        line.append(" ".join(word.removeprefix("--") for word in widths) or own)
        line += [count(matched.size), f"{matched.size / matched.target:.1%}"] if matched else [NONE, NONE]
    trials, epochs = 0, 0
    if tune is not None:
        trials = chooser.wanted(row)
        epochs = tune.epochs_of(settings)
        line += [str(len(row.space)), str(trials)]
    each = seconds_per_epoch(settings)
    seconds = None if each is None else each * (cells * settings.epochs + trials * epochs)
    told = [NONE, NONE] if each is None or seconds is None else [f"{each:.1f}", f"{seconds / HOUR:.2f}"]
    return [*line, str(cells), *told], seconds


def _projected(settings: Settings) -> float | None:
    from recbole_dtn.training.project import project

    return project(settings).seconds_per_epoch
