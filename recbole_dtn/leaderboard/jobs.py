"""The cells of a leaderboard that are missing, as shell commands for any scheduler."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from recbole_dtn.leaderboard.cell_run import recorded_run
from recbole_dtn.leaderboard.cells import Cell

__all__ = ["PROGRAM", "missing_jobs"]

PROGRAM = "python run_recbole_dtn.py"


def missing_jobs(cells: Sequence[Cell]) -> Iterator[str]:
    """A command per cell without a record; it can be started in any folder, on any machine with the same disk."""
    here = shlex.quote(str(Path.cwd()))
    for cell in cells:
        if recorded_run(cell) is None:
            words = shlex.join([*cell.overrides, "--threads=1"])
            yield f"cd {here} && {PROGRAM} leaderboard cell {words}"
