"""The cells of a leaderboard that are missing, as shell commands for any scheduler."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.cell_run import present_fingerprint, recorded_run
from recbole_dtn.leaderboard.cells import Cell, resolve_cell
from recbole_dtn.leaderboard.choose import Chooser, candidates_of, refuse_trial_seeds, schema_of
from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import make_console

__all__ = ["PROGRAM", "board_jobs", "missing_jobs"]

PROGRAM = "python -m recbole_dtn"


def missing_jobs(cells: Sequence[Cell], known: Recorded | None = None) -> Iterator[str]:
    """A command per cell without a record; it can be started in any folder, on any machine with the same disk.

    ``known``: records from elsewhere, which count too.

    Raises:
        UsageError: for a line break in a setting or in the folder, before the first command: what reads the commands
            line by line would run the rest of it by itself.
    """
    here = shlex.quote(str(Path.cwd()))
    for word in (here, *(word for cell in cells for word in cell.overrides)):
        if word.splitlines() not in ([word], []):
            raise UsageError(f"--print_jobs: expected one line per command, found a line break in {word!r}")
    known = Recorded() if known is None else known
    for cell in cells:
        if recorded_run(cell, known) is None:
            words = shlex.join([*cell.overrides, "--threads=1"])
            yield f"cd {here} && {PROGRAM} leaderboard cell {words}"


def board_jobs(
    cells: Sequence[Cell],
    match: MatchWanted | None,
    tune: TuneWanted | None,
    cells_with: Callable[[BoardPlan], Sequence[Cell]],
    keep: Callable[[BoardPlan], object],
    known: Recorded | None = None,
    plan: BoardPlan | None = None,
) -> Iterator[str]:
    """The commands of a leaderboard that can run now: those of the next trial of each row, then those of its cells.

    Args:
        cells: of the leaderboard, without what is chosen. match, tune: how rows are chosen. cells_with: the cells with
            what was chosen. keep: gets the plan. known, plan: records and trials of an earlier pass.

    Raises:
        UsageError: for what cannot be matched or tuned.
    """
    if match is None and tune is None:
        return missing_jobs(cells, known)
    chooser = Chooser(
        candidates_of(cells), match, tune, resolve=resolve_cell, fingerprint=present_fingerprint, schema=schema_of,
        console=make_console(quiet=True), known=plan,
    )  # fmt: skip
    missing: list[Cell] = []

    def recorded(trials: Sequence[Cell]) -> tuple[Mapping[int, RunRecord], Mapping[int, str]]:
        found = {place: run for place, cell in enumerate(trials) if (run := recorded_run(cell)) is not None}
        missing.extend(cell for place, cell in enumerate(trials) if place not in found)
        return found, {}

    if tune is not None:
        refuse_trial_seeds([cell.key.seed for cell in cells], tune)
        chooser.run_trials(recorded, keep)
    chosen = chooser.chosen()
    keep(chosen)
    return missing_jobs(missing or cells_with(chosen), known)
