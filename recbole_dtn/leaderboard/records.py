"""The records below an output folder and beside the tables of a leaderboard, found by cell."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from recbole_dtn.errors import DataError, why
from recbole_dtn.leaderboard.archive import read_archive
from recbole_dtn.leaderboard.cells import CellKey
from recbole_dtn.record.record import FILE_NAME, RunRecord, read_record

__all__ = ["Recorded"]

RunKey = tuple[str, str, str]
"""What makes two records those of one run: data set, model and ``run_id``."""


@dataclass
class Recorded:
    """Finished runs by cell, oldest first, and a message per record that could not be read.

    Interrupted, preempted and failed runs fill no cell. A record that cannot be read (incomplete, of another version)
    is left out; the others count. ``seen`` has the time at which each file was last written, ``archived`` the cells
    of runs that only an archive has.
    """

    runs: dict[CellKey, list[tuple[Path, RunRecord]]] = field(default_factory=lambda: defaultdict(list))
    unreadable: list[str] = field(default_factory=list)
    seen: dict[Path, int] = field(default_factory=dict)
    archived: dict[RunKey, CellKey] = field(default_factory=dict)

    @property
    def folders(self) -> dict[RunKey, Path]:
        """The folder of each run, or the archive that it is in."""
        return {_run(record): folder for runs in self.runs.values() for folder, record in runs}

    def read(self, folder: Path) -> None:
        """Read the records in a folder ``<output_dir>/<dataset>/<model>`` that are new or were written again.

        A run that was preempted ends in the folder where it began. The name of that folder begins with the time at
        which it was made, so that sorting by name sorts by time.
        """
        for path in sorted(folder.glob(f"*/{FILE_NAME}")):
            try:
                if not self._is_new(path):
                    continue
                record = read_record(path)
            except DataError as error:  # a damaged record must not stop a board
                self.unreadable.append(str(error))
            except OSError as error:
                self.unreadable.append(f"{path}: cannot be read {why(error)}")
            else:
                if record.status == "finished":
                    self._add(path.parent, record)

    def read_archive(self, path: Path) -> None:
        """Read the records of an archive, if there is one; those of runs whose folders are known are left out."""
        try:
            if not path.is_file() or not self._is_new(path):
                return
            known = self.folders
            found = read_archive(path)
            for record in (*found.records, *found.others):
                if _run(record) not in known:
                    self._add(path, record)
                    self.archived[_run(record)] = CellKey.of(record)
        except DataError as error:
            self.unreadable.append(str(error))

    def _is_new(self, path: Path) -> bool:
        written = path.stat().st_mtime_ns
        if self.seen.get(path) == written:
            return False
        self.seen[path] = written
        return True

    def _add(self, place: Path, record: RunRecord) -> None:
        """Add a run, in place of what an archive has of it; the newest comes last."""
        before = self.archived.pop(_run(record), None)
        if before is not None:
            self.runs[before] = [known for known in self.runs[before] if _run(known[1]) != _run(record)]
        runs = self.runs[CellKey.of(record)]
        runs.append((place, record))
        runs.sort(key=lambda known: known[1].run_id)

    def newest(self, key: CellKey, fingerprint: str | None) -> tuple[Path, RunRecord] | None:
        """The newest run of a cell on the data with ``fingerprint`` (None: on any data), or None."""
        fitting = [
            (folder, record)
            for folder, record in self.runs.get(key, [])
            if fingerprint is None or record.data_fingerprint == fingerprint
        ]
        return fitting[-1] if fitting else None


def _run(record: RunRecord) -> RunKey:
    return record.dataset, record.model, record.run_id
