"""The records below an output folder, found by cell."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from recbole_dtn.errors import DataError, why
from recbole_dtn.leaderboard.cells import CellKey
from recbole_dtn.record.record import FILE_NAME, RunRecord, read_record

__all__ = ["Recorded"]


@dataclass
class Recorded:
    """Finished runs by cell, oldest first, and a message per record that could not be read.

    Interrupted, preempted and failed runs fill no cell. A record that cannot be read (incomplete, of another version)
    is left out; the others count. ``seen`` has the time at which each file was last written.
    """

    runs: dict[CellKey, list[tuple[Path, RunRecord]]] = field(default_factory=lambda: defaultdict(list))
    unreadable: list[str] = field(default_factory=list)
    seen: dict[Path, int] = field(default_factory=dict)

    @property
    def folders(self) -> dict[tuple[str, str, str], Path]:
        """The folder of each run, by data set, model and ``run_id``."""
        return {
            (record.dataset, record.model, record.run_id): folder
            for runs in self.runs.values()
            for folder, record in runs
        }

    def read(self, folder: Path) -> None:
        """Read the records in a folder ``<output_dir>/<dataset>/<model>`` that are new or were written again.

        A run that was preempted ends in the folder where it began. The name of that folder begins with the time at
        which it was made, so that sorting by name sorts by time.
        """
        for path in sorted(folder.glob(f"*/{FILE_NAME}")):
            try:
                written = path.stat().st_mtime_ns
                if self.seen.get(path) == written:
                    continue
                self.seen[path] = written
                record = read_record(path)
            except DataError as error:  # a damaged record must not stop a board
                self.unreadable.append(str(error))
            except OSError as error:
                self.unreadable.append(f"{path}: cannot be read {why(error)}")
            else:
                if record.status == "finished":
                    self.runs[CellKey.of(record)].append((path.parent, record))

    def newest(self, key: CellKey, fingerprint: str | None) -> tuple[Path, RunRecord] | None:
        """The newest run of a cell on the data with ``fingerprint`` (None: on any data), or None."""
        fitting = [
            (folder, record)
            for folder, record in self.runs.get(key, [])
            if fingerprint is None or record.data_fingerprint == fingerprint
        ]
        return fitting[-1] if fitting else None
