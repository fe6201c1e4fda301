"""Cells without a result: the file beside the tables, and notes for other leaderboards over the same folder of runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from recbole_dtn.errors import DataError
from recbole_dtn.leaderboard.cells import Cell
from recbole_dtn.leaderboard.stored import Failure
from recbole_dtn.report.files import WRITING, write_text
from recbole_dtn.report.tables import csv_text

__all__ = ["NOT_RUN", "Notes", "with_reasons", "write_failures"]

NOT_RUN = "not run"
"""The reason of a cell that has not ended, neither with a result nor with a failure."""


class Notes:
    """Notes beside the locks of cells, so that a cell that failed in one leaderboard is not run by another beside it.

    A leaderboard that is started later tries the cell again.

    Args:
        cells: of the leaderboard, which starts now.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.began: dict[Path, int] = {}
        for folder in {cell.place().parent for cell in cells}:
            # By the clock of the disk that the folder is on, which may be another machine's.
            with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=WRITING) as file:
                self.began[folder] = Path(file.name).stat().st_mtime_ns

    def write(self, cell: Cell, reason: str) -> None:
        """Write why a cell failed, if the disk takes it; called before its lock is given back."""
        with suppress(DataError):
            write_text(_note(cell), reason)

    def read(self, cell: Cell) -> str | None:
        """Why a cell failed in a leaderboard beside this one, since this one started; None where it did not."""
        note = _note(cell)
        began = self.began.get(note.parent)
        with suppress(OSError):
            if began is not None and note.stat().st_mtime_ns > began:
                return note.read_text("utf-8")
        return None


def with_reasons(cells: Iterable[Cell], known: Iterable[Failure]) -> list[tuple[Cell, str]]:
    """Cells without a result, each with the reason that is known of an earlier pass, or :data:`NOT_RUN`."""
    reasons = {(line.settings_digest, line.split, line.seed): line.reason for line in known}
    return [
        (cell, reasons.get((cell.key.settings_digest, cell.key.split.title, cell.key.seed), NOT_RUN)) for cell in cells
    ]


def _note(cell: Cell) -> Path:
    return cell.place().with_suffix(".failed")


def write_failures(failures: Sequence[tuple[Cell, str]], output: Path, board: str) -> tuple[Failure, ...]:
    """Write ``<board>.failures.csv``, a line per cell without a result, with the reason; without any, one of an
    earlier pass is removed.

    Returns:
        The lines.
    """
    path = output / f"{board}.failures.csv"
    if not failures:
        path.unlink(missing_ok=True)
        return ()
    lines = [
        (cell.shown_dataset, cell.name, cell.key.model, cell.key.split.title, cell.key.seed, cell.key.settings_digest,
         reason)
        for cell, reason in failures
    ]  # fmt: skip
    write_text(path, csv_text(("dataset", "name", "model", "split", "seed", "settings_digest", "reason"), lines))
    return tuple(
        Failure(dataset, name, split, seed, digest, why) for dataset, name, _, split, seed, digest, why in lines
    )
