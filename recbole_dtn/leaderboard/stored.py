"""The files beside a leaderboard's tables that are not made of records: statistics, failures, speed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from recbole_dtn.errors import DataError, why
from recbole_dtn.leaderboard.plan import first_fault
from recbole_dtn.leaderboard.statistics import BoardRow, by_dataset, runs_of_rows
from recbole_dtn.leaderboard.tested import FolderOf, statistics_of, with_statistics
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.files import json_value, write_text
from recbole_dtn.report.tables import csv_lines

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


class _Part(BaseModel):
    """What the tables take from a part of a file; other keys may be there."""

    model_config = ConfigDict(strict=True)


class _Spread(_Part):
    error: float | None
    low: float | None
    high: float | None
    p: float | None


class _SampleSpread(_Spread):
    method: str


class _Difference(_Part):
    task: str
    metric: str
    sample: _SampleSpread
    both: _Spread


class _Pair(_Part):
    key: str = ""
    settings_digest: str
    against: str
    missing: str = ""
    draws: int = 0
    differences: Sequence[_Difference] = ()


class _Chain(_Part):
    auc: list[float | None]
    error: list[float | None]


class _Row(_Part):
    key: str = ""
    settings_digest: str
    ece: dict[str, list[float | None]] = {}
    chain: dict[str, dict[str, _Chain]] = {}


class _DataSet(_Part):
    drawn: str = ""
    units: int = 0
    test_rows: int = 0
    rows: Sequence[_Row] = ()
    pairs: Sequence[_Pair] = ()


class _Statistics(_Part):
    """``<board>.statistics.json``."""

    format: Literal[1]
    datasets: dict[str, _DataSet]


class _Measured(_Part):
    dataset: str
    settings_digest: str
    code_version: str
    busy_cores: float | None = None
    train_samples_per_second: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    throughput: float | None = None
    flops: float | None = None
    peak_memory_mib: float | None = None


class _Speeds(_Part):
    """``<board>.speed.json``."""

    format: Literal[1]
    machine: str
    rows: list[_Measured]


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
            DataError: for a file that cannot be read, or does not hold what is expected.
        """

        def place(name: str) -> Path | None:
            paths = (folder / f"{board}.{name}" for folder in folders if folder is not None)
            return next((path for path in paths if path.is_file()), None)

        statistics = _json(
            place("statistics.json"), _Statistics, "statistics are computed again where runs have test scores"
        )
        speed = _json(place("speed.json"), _Speeds, "`leaderboard speed` measures again")
        return cls(statistics.get("datasets", {}), speed, _failures(place("failures.csv")))

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

    @property
    def untested(self) -> list[str]:
        """Why differences are not tested, for each pair of rows for which they are not."""
        pairs = (pair for dataset in self.statistics.values() for pair in dataset.get("pairs", ()))
        return [pair["missing"] for pair in pairs if pair.get("missing")]

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


def _json(path: Path | None, kind: type[BaseModel], again: str) -> dict[str, Any]:
    """The content of a file, as it is there; empty without one."""
    if path is None:
        return {}
    with _checking(path, again):
        found: dict[str, Any] = json_value(path.read_text(encoding="utf-8"), path)
        kind.model_validate(found)
    return found


def _failures(path: Path | None) -> tuple[Failure, ...]:
    if path is None:
        return ()
    with _checking(path, "`leaderboard run` writes it again"):
        lines = {f"line {number}": line for number, line in csv_lines(path.read_text(encoding="utf-8"))}
        return tuple(TypeAdapter(dict[str, Failure]).validate_python(lines).values())


@contextmanager
def _checking(path: Path, again: str) -> Iterator[None]:
    """``with _checking(path, again):`` a fault of a file is told with its path, and that it can be made again."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read {why(error)}") from error
    except DataError as error:  # not JSON
        raise DataError(f"{error}: remove the file, and {again}") from None
    except (csv.Error, UnicodeDecodeError, ValidationError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else error
        raise DataError(f"{path}: not as a leaderboard writes it: {fault}; remove the file, and {again}") from None
