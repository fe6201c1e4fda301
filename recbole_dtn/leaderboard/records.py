"""The records below an output folder, found by cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from recbole_dtn.errors import DataError
from recbole_dtn.leaderboard.cells import CellKey
from recbole_dtn.record.record import FILE_NAME, RunRecord, read_record

__all__ = ["Recorded", "read_finished"]


@dataclass
class Recorded:
    """Finished runs by cell, oldest first, and a message per record that could not be read."""

    runs: dict[CellKey, list[tuple[Path, RunRecord]]] = field(default_factory=lambda: defaultdict(list))
    unreadable: list[str] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def read(self, folder: Path) -> None:
        """Read the records of the runs in a folder ``<output_dir>/<dataset>/<model>`` that were not read before."""
        for path in sorted(folder.glob(f"*/{FILE_NAME}")):
            if path in self.seen:
                continue
            self.seen.add(path)
            try:
                record = read_record(path)
            except DataError as error:
                self.unreadable.append(str(error))
            # A damaged record must not stop a board.
            except (OSError, UnicodeDecodeError) as error:
                self.unreadable.append(f"{path}: {error}")
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


def read_finished(output_dirs: Iterable[Path]) -> Recorded:
    """Read every record below the folders; interrupted and failed runs fill no cell.

    A record that cannot be read (incomplete, of another version) is reported in ``unreadable`` and left out; the others
    count. The name of a run's folder begins with the time at which it was made, so sorting by name sorts by time.
    """
    found = Recorded()
    for output_dir in dict.fromkeys(output_dirs):
        for folder in sorted(output_dir.glob("*/*")):
            found.read(folder)
    return found
