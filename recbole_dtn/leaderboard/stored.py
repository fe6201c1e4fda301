"""The files beside a leaderboard's tables that are not made of records: statistics, failures, speed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recbole_dtn.errors import DataError
from recbole_dtn.leaderboard.statistics import BoardRow, by_dataset, runs_of_rows
from recbole_dtn.leaderboard.tested import FolderOf, statistics_of, with_statistics
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.files import write_text

__all__ = ["BUSY", "FORMAT", "Failure", "Stored", "compute_statistics"]

FORMAT = 1
BUSY = 0.5
"""Cores in use by other processes from which a speed is said to be too low."""


@dataclass(frozen=True)
class Failure:
    """A cell that failed, and why."""

    dataset: str
    name: str
    split: str
    seed: int
    settings_digest: str
    reason: str


@dataclass(frozen=True)
class Stored:
    """What stands beside the tables of a leaderboard.

    Attributes:
        statistics: of each data set, as :func:`~.tested.statistics_of` gives them.
        speed: ``machine`` and ``rows``, as :mod:`~recbole_dtn.leaderboard.speed` writes them.
        failures: of cells.
    """

    statistics: Mapping[str, Any] = field(default_factory=dict)
    speed: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()

    @classmethod
    def read(cls, board: str, *folders: Path | None) -> Stored:
        """The files of a leaderboard, each from the first of the folders that has it.

        Raises:
            DataError: for a file that cannot be read.
        """
        places = [folder for folder in folders if folder is not None]
        statistics = _json(board, "statistics", places)
        failures = _text(board, "failures.csv", places)
        lines = csv.DictReader(io.StringIO(failures or ""))
        return cls(
            statistics.get("datasets", {}),
            _json(board, "speed", places),
            tuple(
                Failure(line["dataset"], line["name"], line["split"], int(line["seed"]), line["settings_digest"],
                        line["reason"])
                for line in lines
            ),
        )  # fmt: skip

    def or_else(self, other: Stored) -> Stored:
        """With the files of another place where this one has none."""
        return Stored(self.statistics or other.statistics, self.speed or other.speed, self.failures or other.failures)

    @property
    def measured_on(self) -> str | None:
        """Where the speeds were measured, and whether something else was running; None where there are none."""
        if not self.speed:
            return None
        busy = max((line.get("busy_cores") or 0.0 for line in self.speed["rows"]), default=0.0)
        others = f", while other processes used up to {busy:.1f} cores" if busy > BUSY else ""
        return f"measured one row at a time on {self.speed['machine']}{others}"

    def rows(self, rows: Sequence[BoardRow], records: Sequence[RunRecord]) -> list[BoardRow]:
        """The rows of a leaderboard with their statistics and speed."""
        found = []
        for dataset, of_set in by_dataset(rows).items():
            found += with_statistics(of_set, runs_of_rows(of_set, records), self.statistics.get(dataset))
        measured = {(line["dataset"], line["settings_digest"]): line for line in self.speed.get("rows", ())}
        return [replace(row, speed=measured.get((row.dataset, row.settings_digest), {})) for row in found]

    def failures_of(self, rows: Sequence[BoardRow], dataset: str) -> list[Failure]:
        """The cells of a data set that failed and have not been run since."""
        ran = {
            (row.settings_digest, split.title, seed) for row in rows if row.dataset == dataset
            for split, seed in row.runs_at
        }  # fmt: skip
        return [
            failure
            for failure in self.failures
            if failure.dataset == dataset and (failure.settings_digest, failure.split, failure.seed) not in ran
        ]


def compute_statistics(
    rows: Sequence[BoardRow], records: Sequence[RunRecord], stored: Stored, folder_of: FolderOf, path: Path
) -> Stored:
    """The statistics of a leaderboard; those that are not known of its runs are computed from their test scores.

    They are written where anything is new, or the file is missing. Those of other data sets stay.

    Args:
        rows, records: of the leaderboard. stored: what is known. folder_of: where the test scores of a run are.
        path: of the file of the statistics.
    """
    found = dict(stored.statistics)
    for dataset, of_set in by_dataset(rows).items():
        new = statistics_of(of_set, runs_of_rows(of_set, records), folder_of, stored.statistics.get(dataset))
        if new is not None:
            found[dataset] = new
    if found != stored.statistics or (found and not path.is_file()):
        text = json.dumps({"format": FORMAT, "datasets": found}, indent=1, allow_nan=False)
        write_text(path, text + "\n")
    return replace(stored, statistics=found)


def _text(board: str, name: str, folders: Sequence[Path]) -> str | None:
    for folder in folders:
        path = folder / f"{board}.{name}"
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: cannot be read ({error})") from error
    return None


def _json(board: str, name: str, folders: Sequence[Path]) -> dict[str, Any]:
    text = _text(board, f"{name}.json", folders)
    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise DataError(f"{board}.{name}.json, line {error.lineno}: not JSON ({error.msg}); remove the file") from error
    if found and (not isinstance(found, dict) or found.get("format") != FORMAT):
        raise DataError(f"{board}.{name}.json: expected format {FORMAT}; remove the file to have it made again")
    return dict(found)
