"""Rows with the same inputs, within splits and between them, in bounded memory.

The inputs of a row become a 128-bit number: per field a bijective mix of its id (or of a number's float32 bits), added
up, twice. Two different rows are taken for the same with a probability of about 2^-128 per pair. Rows are parted by
that number, on disk where they are many, and each part is sorted on its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.store import Column
from recbole_dtn.errors import DataError
from recbole_dtn.inspect.info.report import DuplicateInfo
from recbole_dtn.inspect.info.view import StoreView, ragged, value_cuts
from recbole_dtn.schema import FieldSpec

__all__ = ["duplicates", "mix"]

PART_ROWS = 1 << 20
MOST_PARTS = 256
SIDE_ROWS_IN_MEMORY = 1 << 22
EXACT_TASKS = 30
WORDS = 4  # two of the hash, labels with the split in the two lowest bits, count
EARLIER = (0, 1)  # train and valid, which later splits are compared with
GOLDEN = 0x9E3779B97F4A7C15
Words = npt.NDArray[np.uint64]


def mix(words: Words) -> Words:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014), a bijection of the 64-bit numbers, in place.

    >>> mix(np.array([0x9E3779B97F4A7C15], np.uint64)).tolist() == [0xE220A8397B1DCDAF]
    True
    """
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def duplicates(view: StoreView, scratch: Path | None = None, meter: Meter = silent) -> dict[str, DuplicateInfo]:
    """Count them in every split.

    Args:
        view: the data.
        scratch: where rows wait on disk when they are many (32 bytes a row); the system's own folder by default.
        meter: told how far it is.
    """
    tallies = [_Tally() for _ in view.bounds]
    try:
        with tempfile.TemporaryDirectory(prefix=".hashing-", dir=scratch) as folder:
            _count(view, Path(folder), tallies, meter)
    except OSError as error:
        raise DataError(
            f"{scratch or tempfile.gettempdir()}: rows cannot be compared there ({error.strerror}); make room, set "
            "cache_dir to another folder, or leave duplicates out with --quick"
        ) from None
    return {
        split: _info(view.rows[split], index, tally)
        for index, (split, tally) in enumerate(zip(view.bounds, tallies, strict=True))
    }


def _info(rows: int, split: int, tally: _Tally) -> DuplicateInfo:
    shared = {
        name: (tally.shared[earlier], tally.shared[earlier] / rows, tally.shared_same[earlier])
        if earlier < split
        else (None, None, None)
        for earlier, name in enumerate(("train", "valid"))
    }
    return DuplicateInfo(rows, tally.distinct, tally.repeated, tally.conflicting, *shared["train"], *shared["valid"])


def _count(view: StoreView, folder: Path, tallies: list[_Tally], meter: Meter) -> None:
    total = sum(view.rows.values())
    rows = _RowHashes(view, folder)
    parts = _Parts(max(1, min(MOST_PARTS, -(-total // PART_ROWS))), folder)
    done = 0
    for index, split in enumerate(view.bounds):
        for start, stop in view.blocks(split):
            parts.add(_reduced(_records(view, rows, index, start, stop)))
            done += stop - start
            meter("hashing rows", done, total)
    for number, records in enumerate(parts.read()):
        _tally(records, tallies)
        meter("comparing rows", number + 1, parts.count)


# ---- hashes -------------------------------------------------------------------------------------------------------


class _RowHashes:
    """Two 64-bit sums per interaction; a side table's are taken once per row of its own."""

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
            first += np.uint64((position + 1) * GOLDEN % 2**64)
            sums[0] += mix(first)
            first += np.uint64(GOLDEN)
            sums[1] += mix(first)
        return sums

    def of(self, start: int, stop: int) -> Words:
        """(2, n) for the interactions ``start`` to ``stop``."""
        sums = self._table("inter", start, stop)
        for kind, hashes in self.side.items():
            sums += hashes[:, np.asarray(self.view.store.pointers[kind][start:stop])]
        return sums


def _field_words(column: Column, start: int, stop: int, *, continuous: bool) -> Words:
    """What a field holds in neighbouring rows, as one number a row."""
    if column.offsets is not None:
        return _list_words(column, start, stop)
    values = np.asarray(column.values[start:stop])
    return _float_words(values) if continuous else values.astype(np.uint64)


def _float_words(values: npt.NDArray[np.float32]) -> Words:
    plain = values.astype(np.float32) + np.float32(0)  # -0 is 0
    plain[np.isnan(plain)] = np.nan
    return plain.view(np.uint32).astype(np.uint64)


def _list_words(column: Column, start: int, stop: int) -> Words:
    """A sum over the values (and weights) of each list, so that their order does not matter."""
    sums = np.zeros(stop - start, np.uint64)
    for first, last in value_cuts(column, start, stop):
        values, lengths = ragged(column, first, last)
        words = values.astype(np.uint64)
        words += np.uint64(GOLDEN)
        mix(words)
        if column.weights is not None:
            assert column.offsets is not None
            at = int(column.offsets[first])
            words ^= _float_words(np.asarray(column.weights[at : at + len(values)]))
            mix(words)
        filled = lengths > 0
        if filled.any():
            starts = np.cumsum(lengths) - lengths
            sums[first - start : last - start][filled] = np.add.reduceat(words, starts[filled])
    return sums


def _records(view: StoreView, rows: _RowHashes, split: int, start: int, stop: int) -> Words:
    """(n, 4): hash, hash, labels and split, 1."""
    out = np.empty((stop - start, WORDS), np.uint64)
    out[:, :2] = rows.of(start, stop).T
    out[:, 2] = (_label_words(view, start, stop) << np.uint64(2)) | np.uint64(split)
    out[:, 3] = 1
    return out


def _label_words(view: StoreView, start: int, stop: int) -> Words:
    """Labels as one number: exact for up to 30 binary tasks, else a hash."""
    labels, observed = view.labels(start, stop)
    words = np.zeros(stop - start, np.uint64)
    tasks = view.schema.tasks
    exact = len(tasks) <= EXACT_TASKS and all(task.kind == "binary" for task in tasks)
    for position in range(len(tasks)):
        seen = observed[:, position]
        if exact:
            state = np.where(seen, np.where(labels[:, position] > 0, 2, 1), 0).astype(np.uint64)
            words |= state << np.uint64(2 * position)
            continue
        bits = _float_words(labels[:, position]) | (seen.astype(np.uint64) << np.uint64(32))
        words += mix(bits + np.uint64((position + 1) * GOLDEN % 2**64))
    return words


# ---- parts and counts ---------------------------------------------------------------------------------------------


class _Parts:
    """Records parted by their hash: in memory when there is one part, else in a file each."""

    def __init__(self, count: int, folder: Path) -> None:
        self.count, self.folder = count, folder
        self.kept: list[Words] = []

    def add(self, records: Words) -> None:
        if self.count == 1:
            self.kept.append(records)
            return
        part = (((records[:, 0] >> np.uint64(32)) * np.uint64(self.count)) >> np.uint64(32)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=self.count))
        for number, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if stop > start:
                with (self.folder / f"{number}.records").open("ab") as file:
                    records[order[start:stop]].tofile(file)

    def read(self) -> Iterator[Words]:
        """Each part, equal records counted together."""
        if self.count == 1:
            yield _reduced(np.concatenate(self.kept)) if self.kept else np.empty((0, WORDS), np.uint64)
            return
        for number in range(self.count):
            found = np.empty((0, WORDS), np.uint64)
            path = self.folder / f"{number}.records"
            if path.is_file():
                with path.open("rb") as file:
                    while len(block := np.fromfile(file, np.uint64, PART_ROWS * WORDS)):
                        found = _reduced(np.concatenate([found, block.reshape(-1, WORDS)]))
                path.unlink()
            yield found


def _reduced(records: Words) -> Words:
    """Equal records as one, their counts added up (neighbours after sorting; a rare miss is mended later)."""
    if len(records) < 2:
        return records
    key = records[:, 0] ^ mix(records[:, 2] + np.uint64(GOLDEN))
    records = records[np.argsort(key)]
    starts = np.flatnonzero(_changes(records[:, 0], records[:, 1], records[:, 2]))
    if len(starts) == len(records):
        return records
    out: Words = records[starts]
    out[:, 3] = np.add.reduceat(records[:, 3], starts)
    return out


def _changes(*columns: Words) -> npt.NDArray[np.bool_]:
    """Where a row differs from the one before it; the first does."""
    changed = np.ones(len(columns[0]), np.bool_)
    if len(changed):
        changed[1:] = False
        for column in columns:
            changed[1:] |= column[1:] != column[:-1]
    return changed


@dataclass
class _Tally:
    distinct: int = 0
    repeated: int = 0
    conflicting: int = 0
    shared: list[int] = field(default_factory=lambda: [0, 0])  # rows whose inputs a row of train, of valid has
    shared_same: list[int] = field(default_factory=lambda: [0, 0])  # ... with its labels too


def _tally(records: Words, tallies: list[_Tally]) -> None:
    records = records[np.argsort(records[:, 0])]
    changed = _changes(records[:, 0])
    alone = changed & np.append(changed[1:], True)
    _tally_alone(records[alone], tallies)
    if not alone.all():
        _tally_groups(records[~alone], tallies)


def _tally_alone(records: Words, tallies: list[_Tally]) -> None:
    """Inputs with one combination of labels, in one split."""
    splits = records[:, 2] & np.uint64(3)
    for index, tally in enumerate(tallies):
        counts = records[:, 3][splits == index]
        tally.distinct += len(counts)
        tally.repeated += int(counts[counts > 1].sum())


def _tally_groups(records: Words, tallies: list[_Tally]) -> None:
    """Inputs with several; sorted in full, so that nothing rests on half a hash."""
    records = records[np.lexsort((records[:, 2], records[:, 1], records[:, 0]))]
    starts = np.flatnonzero(_changes(records[:, 0], records[:, 1], records[:, 2]))
    counts = np.add.reduceat(records[:, 3], starts).astype(np.int64)
    records = records[starts]
    labels, splits = records[:, 2] >> np.uint64(2), records[:, 2] & np.uint64(3)
    inputs = np.cumsum(_changes(records[:, 0], records[:, 1])) - 1
    same = np.cumsum(_changes(records[:, 0], records[:, 1], labels)) - 1
    groups = int(inputs[-1]) + 1
    found_in = [np.bincount(inputs[splits == split], minlength=groups) > 0 for split in EARLIER]
    same_in = [np.bincount(same[splits == split], minlength=int(same[-1]) + 1) > 0 for split in EARLIER]
    for index, tally in enumerate(tallies):
        here = splits == index
        rows = np.bincount(inputs[here], counts[here], groups).astype(np.int64)
        combinations = np.bincount(inputs[here], minlength=groups)
        tally.distinct += int(np.count_nonzero(rows))
        tally.repeated += int(rows[rows > 1].sum())
        tally.conflicting += int(rows[combinations > 1].sum())
        for split in EARLIER:
            tally.shared[split] += int(rows[found_in[split]].sum())
            tally.shared_same[split] += int(counts[here & same_in[split][same]].sum())
