"""Rows with the same inputs, within splits and between them, in bounded memory.

The inputs of a row become a 128-bit number: per field a bijective mix of its id (or of a number's float32 bits), added
up, twice. Two different rows are taken for the same with a probability of about 2^-128 per pair. Rows are partitioned
by that number, on disk where they are many, and Polars groups one partition at a time: memory depends on the size of a
partition, not on the number of rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.building import WRITING, locked_folder
from recbole_dtn.data.hashing import GOLDEN, mix
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.store import Column
from recbole_dtn.errors import DataError
from recbole_dtn.inspect.info.report import DuplicateInfo
from recbole_dtn.inspect.info.view import StoreView, ragged, value_cuts
from recbole_dtn.schema import FieldSpec

__all__ = ["duplicates"]

PART_ROWS = 1 << 18
"""Rows of a partition, about: Polars takes some 100 MB to group that many."""
# Files that are open one at a time; beyond 2^27 rows partitions grow.
MOST_PARTS = 512
# 64 MiB of hashes; those of more rows are in a mapped file.
SIDE_ROWS_IN_MEMORY = 1 << 22
EXACT_TASKS = 30
INPUTS = ["first", "second"]
"""The two words of the hash of a row's inputs."""
COLUMNS = [*INPUTS, "labels", "rows"]
"""A record, 32 bytes: inputs, labels (with the split in the two lowest bits), and how many interactions have them."""
EARLIER = (0, 1)
"""Train and valid, which later splits are compared with."""
Words = npt.NDArray[np.uint64]


def duplicates(view: StoreView, scratch: Path | None = None, meter: Meter = silent) -> dict[str, DuplicateInfo]:
    """Count rows with equal inputs in every split, and between splits.

    Args:
        view: the data.
        scratch: folder for records on disk when there are many rows (32 bytes each); by default the system's.
        meter: gets the progress.
    """
    tallies = [_SplitTally() for _ in view.bounds]
    try:
        with locked_folder(scratch or Path(tempfile.gettempdir()), f"{WRITING}hashing-") as folder:
            _count(view, folder, tallies, meter)
    except OSError as error:
        raise DataError(
            f"{scratch or tempfile.gettempdir()}: rows cannot be compared there ({error.strerror}); make room, set "
            "cache_dir to another folder, or leave duplicates out with --quick"
        ) from None
    return {
        split: _info(view.rows[split], index, tally)
        for index, (split, tally) in enumerate(zip(view.bounds, tallies, strict=True))
    }


def _info(rows: int, split: int, tally: _SplitTally) -> DuplicateInfo:
    shared = {
        name: (tally.shared[earlier], tally.shared[earlier] / rows, tally.shared_same[earlier])
        if earlier < split
        else (None, None, None)
        for earlier, name in enumerate(("train", "valid"))
    }
    return DuplicateInfo(rows, tally.distinct, tally.repeated, tally.conflicting, *shared["train"], *shared["valid"])


def _count(view: StoreView, folder: Path, tallies: list[_SplitTally], meter: Meter) -> None:
    total = sum(view.rows.values())
    rows = _RowHashes(view, folder)
    # Equal inputs have equal hashes and so lie in the same partition: partitions are counted one by one.
    parts = _Partitions(max(1, min(MOST_PARTS, -(-total // PART_ROWS))), folder)
    done = 0
    for index, split in enumerate(view.bounds):
        for start, stop in view.blocks(split):
            parts.add(_records(view, rows, index, start, stop))
            done += stop - start
            meter("hashing rows", done, total)
    for number, records in enumerate(parts.read()):
        _tally(records, tallies)
        meter("comparing rows", number + 1, parts.count)


# ---- hashes -------------------------------------------------------------------------------------------------------


class _RowHashes:
    """Two 64-bit sums per interaction. Those of a side table are computed once per row of the side table."""

    def __init__(self, view: StoreView, folder: Path) -> None:
        self.view = view
        self.fields: dict[str, list[tuple[int, FieldSpec, Column]]] = {}
        for position, spec in enumerate(view.schema.fields):
            column = view.store.columns[spec.name]
            self.fields.setdefault(column.table, []).append((position, spec, column))
        self.side = {kind: self._side(kind, folder) for kind in self.fields if kind != "inter"}

    def _side(self, kind: str, folder: Path) -> Words:
        rows = self.view.table_rows(kind)
        in_memory = rows <= SIDE_ROWS_IN_MEMORY
        out: Words = (
            np.empty((2, rows), np.uint64)
            if in_memory
            else np.memmap(folder / f"{kind}.hashes", np.uint64, "w+", shape=(2, rows))
        )
        size = 1 << 16
        for start in range(0, rows, size):
            out[:, start : start + size] = self._table(kind, start, min(start + size, rows))
        return out

    def _table(self, kind: str, start: int, stop: int) -> Words:
        sums = np.zeros((2, stop - start), np.uint64)
        for position, spec, column in self.fields.get(kind, []):
            first = _field_words(column, start, stop, continuous=spec.continuous)
            # Without the field's constant, two fields that exchange their values would give the same sum. Sums wrap at
            # 2^64.
            first += _field_constant(position)
            first = mix(first)
            sums[0] += first
            # The second word is another mix of the same values: two rows must agree in both.
            sums[1] += mix(first + GOLDEN)
        return sums

    def of(self, start: int, stop: int) -> Words:
        """(2, n) for the interactions ``start`` to ``stop``."""
        sums = self._table("inter", start, stop)
        for kind, hashes in self.side.items():
            # Sums do not depend on the order of the fields, so that the share of a side table is added as a whole.
            sums += hashes[:, np.asarray(self.view.store.pointers[kind][start:stop])]
        return sums


def _field_constant(position: int) -> np.uint64:
    """Added to the words of a field (or task), so that equal values of two fields give different words."""
    return np.uint64((position + 1) * int(GOLDEN) % 2**64)


def _field_words(column: Column, start: int, stop: int, *, continuous: bool) -> Words:
    """One 64-bit number per row for the value of a field."""
    if column.offsets is not None:
        return _list_words(column, start, stop)
    values = np.asarray(column.values[start:stop])
    return _float_words(values) if continuous else values.astype(np.uint64)


def _float_words(values: npt.NDArray[np.float32]) -> Words:
    plain = values.astype(np.float32) + np.float32(0)  # -0 is 0
    # All NaNs get the same bits.
    plain[np.isnan(plain)] = np.nan
    return plain.view(np.uint32).astype(np.uint64)


def _list_words(column: Column, start: int, stop: int) -> Words:
    """A sum over the values (and weights) of each list, so that their order does not matter."""
    sums = np.zeros(stop - start, np.uint64)
    for first, last in value_cuts(column, start, stop):
        values, lengths = ragged(column, first, last)
        words = values.astype(np.uint64)
        words = mix(words + GOLDEN)
        if column.weights is not None:
            assert column.offsets is not None
            at = int(column.offsets[first])
            # A value counts together with its weight.
            words = mix(words ^ _float_words(np.asarray(column.weights[at : at + len(values)])))
        filled = lengths > 0
        if filled.any():
            # reduceat gives the next value instead of 0 for an empty list: only filled lists are summed.
            starts = np.cumsum(lengths) - lengths
            sums[first - start : last - start][filled] = np.add.reduceat(words, starts[filled])
    return sums


def _records(view: StoreView, rows: _RowHashes, split: int, start: int, stop: int) -> pl.DataFrame:
    """Records (:data:`COLUMNS`) of the interactions ``start`` to ``stop``, which belong to one split."""
    first, second = rows.of(start, stop)
    # The hash of many tasks loses its two highest bits here.
    labels = (_label_words(view, start, stop) << np.uint64(2)) | np.uint64(split)
    columns = (first, second, labels, np.ones(stop - start, np.uint64))
    return _merged(pl.DataFrame(dict(zip(COLUMNS, columns, strict=True))))


def _label_words(view: StoreView, start: int, stop: int) -> Words:
    """Labels as one number: exact for up to 30 binary tasks, else a hash."""
    labels, observed = view.labels(start, stop)
    words = np.zeros(stop - start, np.uint64)
    tasks = view.schema.tasks
    exact = len(tasks) <= EXACT_TASKS and all(task.kind == "binary" for task in tasks)
    for position in range(len(tasks)):
        seen = observed[:, position]
        if exact:
            # Two bits per task: 0 not observed, 1 negative, 2 positive. 30 tasks and the split take 62 bits.
            state = np.where(seen, np.where(labels[:, position] > 0, 2, 1), 0).astype(np.uint64)
            words |= state << np.uint64(2 * position)
            continue
        bits = _float_words(labels[:, position]) | (seen.astype(np.uint64) << np.uint64(32))
        words += mix(bits + _field_constant(position))
    return words


# ---- partitions and counts ----------------------------------------------------------------------------------------


class _Partitions:
    """Records partitioned by their hash: in memory when there is one partition, else in a file each."""

    def __init__(self, count: int, folder: Path) -> None:
        self.count, self.folder = count, folder
        self.kept: list[pl.DataFrame] = []

    def add(self, records: pl.DataFrame) -> None:
        if self.count == 1:
            self.kept.append(records)
            return
        # Any bits of a hash are as good as others.
        numbered = records.with_columns(number=pl.col("first") % self.count)
        for (number,), chosen in numbered.partition_by("number", include_key=False, as_dict=True).items():
            with (self.folder / f"{number}.records").open("ab") as file:
                chosen.to_numpy().tofile(file)

    def read(self) -> Iterator[pl.DataFrame]:
        """Each partition, equal records merged."""
        if self.count == 1:
            yield _merged(pl.concat(self.kept)) if self.kept else pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.UInt64))
            return
        for number in range(self.count):
            found = pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.UInt64))
            path = self.folder / f"{number}.records"
            if path.is_file():
                with path.open("rb") as file:
                    # Merged a piece at a time: one row that is repeated everywhere makes a partition long, not large.
                    while len(words := np.fromfile(file, np.uint64, PART_ROWS * len(COLUMNS))):
                        piece = pl.DataFrame(words.reshape(-1, len(COLUMNS)), schema=COLUMNS, orient="row")
                        found = _merged(pl.concat([found, piece]))
                path.unlink()
            yield found


def _merged(records: pl.DataFrame) -> pl.DataFrame:
    """Equal records as one, their interactions added up."""
    return records.group_by(*INPUTS, "labels").agg(pl.col("rows").sum())


@dataclass
class _SplitTally:
    distinct: int = 0
    repeated: int = 0
    conflicting: int = 0
    shared: list[int] = field(default_factory=lambda: [0, 0])  # rows whose inputs a row of train, of valid has
    shared_same: list[int] = field(default_factory=lambda: [0, 0])  # ... with its labels too


def _tally(records: pl.DataFrame, tallies: list[_SplitTally]) -> None:
    """Add one partition to the tallies of the splits; equal inputs are always in the same partition."""
    # The records of one combination of labels: ``combinations`` counts how many an input has.
    split = (pl.col("labels") & 3).alias("split")
    labelled = [*INPUTS, "labels"]
    parts = records.with_columns(split, pl.col("labels") // 4).partition_by("split", include_key=False, as_dict=True)
    found = {number: chosen for (number,), chosen in parts.items()}
    inputs = {
        number: chosen.group_by(INPUTS).agg(pl.col("rows").sum(), combinations=pl.len())
        for number, chosen in found.items()
    }
    for number, rows in inputs.items():
        tally = tallies[number]
        tally.distinct += rows.height
        tally.repeated += _sum(rows.filter(pl.col("rows") > 1))
        tally.conflicting += _sum(rows.filter(pl.col("combinations") > 1))
        for earlier in (part for part in EARLIER if part < number and part in found):
            # A semi join keeps each row once, however often the earlier split has its inputs.
            tally.shared[earlier] += _sum(rows.join(inputs[earlier], on=INPUTS, how="semi"))
            tally.shared_same[earlier] += _sum(found[number].join(found[earlier], on=labelled, how="semi"))


def _sum(records: pl.DataFrame) -> int:
    """Interactions that records stand for."""
    return int(records["rows"].sum())
