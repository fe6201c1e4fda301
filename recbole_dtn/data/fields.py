"""One input field of a data set: its vocabulary or statistics, and its column as the narrowest integers.

The scratch files of a field are read twice, a block of rows at a time: once to count the values of training, once to
write ids. A side table is stored once, with an extra last row in which every field is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.config.settings import FieldSettings
from recbole_dtn.data.floats import FloatStatistics, bin_ids
from recbole_dtn.data.layout import ArrayWriter, Chosen, RowBlock, SplitLayout, narrowest
from recbole_dtn.data.raw import RawFloats, RawSequences, RawTable, RawTokens
from recbole_dtn.data.scratch import ScratchArray
from recbole_dtn.data.sources import PARTS
from recbole_dtn.data.store import ragged_positions
from recbole_dtn.data.vocabulary import TokenVocabulary, Vocabulary, float_options
from recbole_dtn.errors import DataError
from recbole_dtn.schema import ABSENT, UNKNOWN

__all__ = ["StoredTable", "write_field"]

# Values of lists that are in memory at a time (8 to 16 MiB, as codes and then as positions).
BLOCK_VALUES = 1 << 21
# Vocabularies and statistics are those of the training split (position 0 of PARTS).
TRAIN = (0,)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredTable:
    """A table and the order in which its rows are stored.

    ``shown`` is None for the interactions. For a side table, ``shown[s][r]`` is the number of interactions of split s
    that point to its row r; those without a row point to the last one.
    """

    kind: str
    raw: RawTable
    layout: SplitLayout
    shown: list[npt.NDArray[np.int64]] | None = None

    @property
    def stored_rows(self) -> int:
        """Rows of every array of the table."""
        return self.layout.rows + (self.shown is not None)

    def counted(self, block: RowBlock, parts: Sequence[int]) -> Iterator[tuple[Chosen, Array | None]]:
        """Rows of a block that belong to the splits ``parts``, with how often each counts (None: once)."""
        if self.shown is None:
            for part, chosen in block.pieces:
                if part in parts:
                    yield chosen, None
        else:
            # A side table has one piece per block. Its rows count as often as interactions of these splits point to
            # them, so that the counts equal those of the joined table without joining it.
            counts = np.stack([self.shown[part][block.start : block.stop] for part in parts])
            yield slice(0, len(block)), counts.sum(0)


class _Tally:
    """Counts the interactions of each split that have a property."""

    def __init__(self, table: StoredTable) -> None:
        self.table = table
        self.found = dict.fromkeys(PARTS, 0)

    def add(self, block: RowBlock, part: int, which: npt.NDArray[np.bool_]) -> None:
        """Count rows of a block: ``which`` is a mask over those that belong to split ``part``."""
        if self.table.shown is None:
            self.found[PARTS[part]] += int(np.count_nonzero(which))
        else:
            # ``part`` is 0 for every row of a side table; the split is that of the interactions.
            for name, shown in zip(PARTS, self.table.shown, strict=True):
                self.found[name] += int(shown[block.start : block.stop][which].sum())

    def add_absent(self) -> None:
        """Count the interactions that have no row in the side table."""
        if self.table.shown is not None:
            for name, shown in zip(PARTS, self.table.shown, strict=True):
                # The last count is that of interactions without a row there.
                self.found[name] += int(shown[-1])


def write_field(
    position: int, spec: FieldSettings, table: StoredTable, min_count: int, target: Path
) -> tuple[Vocabulary, dict[str, Any]]:
    """Write ``f<position>*.npy`` into ``target``.

    Returns:
        The vocabulary, and what ``data info`` shows: ``missing`` and ``unknown`` interactions per split, ``values``.

    Raises:
        DataError: for a column of another type, a number beyond float32, weights that do not fit.
    """
    path = table.raw.table.paths[0]
    found = table.raw.table.type_of(spec.name)
    if found != spec.type:
        raise DataError(
            f"{path}, line 1: column {spec.name!r} is of type {found}, the data set's field says {spec.type}; "
            "make the two equal"
        )
    raw = table.raw.columns[spec.name]
    base = target / f"f{position}"
    if isinstance(raw, RawFloats):
        return _write_floats(base, spec, table, raw)
    known, ids = _vocabulary(spec, table, raw, min_count)
    if isinstance(raw, RawSequences):
        return known, _write_sequences(base, spec, table, raw, ids)
    return known, _write_tokens(base, table, raw, ids)


def _vocabulary(
    spec: FieldSettings, table: StoredTable, raw: RawTokens | RawSequences, min_count: int
) -> tuple[TokenVocabulary, Array]:
    """The vocabulary, and the stored id of each code; the last is that of code -1, an empty cell."""
    assert raw.space is not None
    space = raw.space
    training = _counts(table, raw, TRAIN)
    counts = training
    if spec.count_parts is not None:
        counts = _counts(table, raw, [PARTS.index(part) for part in spec.count_parts])
    known, ids = TokenVocabulary.ranked(space.tokens(), counts, spec.min_count or min_count, training)
    # Words such as NA are absent values; their counts are 0, so that none has an id of its own.
    ids[space.missing] = ABSENT
    # Indexing with code -1 finds the appended last element, so an empty cell needs no special case.
    return known, np.append(ids, ABSENT).astype(narrowest(known.size - 1))


def _counts(table: StoredTable, raw: RawTokens | RawSequences, parts: Sequence[int]) -> npt.NDArray[np.int64]:
    """How often each code occurs in the splits ``parts``; 0 for a word that means a missing value."""
    assert raw.space is not None
    # counts[c + 1] is that of code c; counts[0] takes the code -1 of empty cells and is dropped below.
    counts = np.zeros(raw.space.size + 1, np.int64)
    if isinstance(raw, RawTokens):
        for block in table.layout.blocks():
            codes = raw.codes.read(block.start, block.stop)
            for chosen, weights in table.counted(block, parts):
                _add_counts(counts, codes[chosen], weights)
    else:
        for block, lengths, first in _value_blocks(table.layout, raw.lengths):
            values = raw.values.read(first, first + int(lengths.sum()))
            for chosen, weights in table.counted(block, parts):
                # A row that counts n times gives n occurrences of each of its values.
                repeated = None if weights is None else np.repeat(weights, lengths)
                _add_counts(counts, values[_places(lengths, chosen)], repeated)
    counts = counts[1:]
    counts[raw.space.missing] = 0
    return counts


def _add_counts(counts: npt.NDArray[np.int64], codes: Array, weights: Array | None) -> None:
    # With weights, bincount adds in float64, which is exact below 2^53 interactions.
    found = np.bincount(codes + 1, weights)
    counts[: len(found)] += found if weights is None else found.astype(np.int64)


def _write_tokens(base: Path, table: StoredTable, raw: RawTokens, ids: Array) -> dict[str, Any]:
    missing, unknown = _Tally(table), _Tally(table)
    with _writer(base.with_suffix(".npy"), ids.dtype, table) as out:
        for block in table.layout.blocks():
            codes = raw.codes.read(block.start, block.stop)
            for part, chosen in block.pieces:
                found = ids[codes[chosen]]
                out.write(part, found)
                missing.add(block, part, found == ABSENT)
                unknown.add(block, part, found == UNKNOWN)
        _write_absent(out, table, ABSENT)
    missing.add_absent()
    return {"missing": missing.found, "unknown": unknown.found}


def _write_floats(
    base: Path, spec: FieldSettings, table: StoredTable, raw: RawFloats
) -> tuple[FloatStatistics, dict[str, Any]]:
    def training() -> Iterator[tuple[Array, Array | None]]:
        for block in table.layout.blocks():
            values = raw.values.read(block.start, block.stop)
            for chosen, counts in table.counted(block, TRAIN):
                yield values[chosen], counts

    _refuse_overflow(spec.name, table, raw)
    known = FloatStatistics.from_blocks(training, **float_options(spec))
    # Bins are ids (0 absent, 1 unused, then the intervals); other numbers are standardised, NaN where absent.
    binned = bool(known.edges)
    dtype = narrowest(known.size - 1) if binned else np.float32
    missing = _Tally(table)
    with _writer(base.with_suffix(".npy"), dtype, table) as out:
        for block in table.layout.blocks():
            values = raw.values.read(block.start, block.stop)
            for part, chosen in block.pieces:
                numbers = values[chosen]
                out.write(part, bin_ids(numbers, known.edges) if binned else known.standardise(numbers))
                missing.add(block, part, np.isnan(numbers))
        _write_absent(out, table, ABSENT if binned else np.nan)
    missing.add_absent()
    return known, {"missing": missing.found}


def _refuse_overflow(name: str, table: StoredTable, raw: RawFloats) -> None:
    for block in table.layout.blocks():
        values = raw.values.read(block.start, block.stop)
        wide = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
        if len(wide):
            row = int(wide[0])
            raise DataError(
                f"{table.raw.where(block.start + row)}: field {name!r}: {values[row]} is too large for a 32-bit float"
            )


def _write_sequences(
    base: Path, spec: FieldSettings, table: StoredTable, raw: RawSequences, ids: Array
) -> dict[str, Any]:
    weights = None if spec.weights is None else _weights(spec.name, spec.weights, table, raw)
    # First pass, over the lengths alone: where the values of each split begin.
    missing = _Tally(table)
    totals = [0] * len(table.layout.stretches())
    for block, lengths, _ in _value_blocks(table.layout, raw.lengths):
        for part, chosen in block.pieces:
            totals[part] += int(lengths[chosen].sum())
            missing.add(block, part, lengths[chosen] == 0)
    missing.add_absent()
    # The values of a split are one stretch of the value array, which begins after those of the splits before it.
    total = sum(totals)
    firsts = np.cumsum([0, *totals[:-1]]).tolist()
    with ArrayWriter(base.with_suffix(".npy"), ids.dtype, (total,), firsts) as out:
        for part, positions, values in _pieces(table.layout, raw, raw.values):
            out.write(part, ids[values[positions]])
    if weights is not None:
        with ArrayWriter(base.with_suffix(".weights.npy"), np.float32, (total,), firsts) as out:
            for part, positions, values in _pieces(table.layout, raw, weights.values):
                out.write(part, values[positions])
    _write_offsets(base.with_suffix(".offsets.npy"), table, raw.lengths, firsts, total)
    return {"missing": missing.found, "values": total}


def _write_offsets(path: Path, table: StoredTable, lengths: ScratchArray, firsts: list[int], total: int) -> None:
    """Write offsets: row r owns the values from ``offsets[r]`` to ``offsets[r + 1]``."""
    # offsets[0] = 0 is a stretch of its own; those of a split's rows follow, one place later than the rows.
    ends = list(firsts)
    starts = [0, *(start + 1 for start in table.layout.ends[:-1])]
    with ArrayWriter(path, narrowest(total), (table.stored_rows + 1,), starts) as out:
        out.write(0, np.zeros(1))
        for block in table.layout.blocks():
            found = lengths.read(block.start, block.stop)
            for part, chosen in block.pieces:
                # The lengths are int32; their sum may not fit.
                offsets = ends[part] + np.cumsum(found[chosen], dtype=np.int64)
                out.write(part + 1, offsets)
                ends[part] = int(offsets[-1])
        # The absent row begins and ends at the last value: an empty list.
        _write_absent(out, table, total, part=1)


def _value_blocks(layout: SplitLayout, lengths: ScratchArray) -> Iterator[tuple[RowBlock, Array, int]]:
    """Blocks of at most about ``BLOCK_VALUES`` values, the lengths of their rows, and the index of the first value."""
    first = 0
    for block in layout.blocks():
        found = lengths.read(block.start, block.stop).astype(np.int64)
        ends = np.cumsum(found)
        start = 0
        while start < len(block):
            # At least one row per block: a single list may be longer than BLOCK_VALUES.
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK_VALUES, side="right")))
            yield block.cut(start, stop), found[start:stop], first + before
            start = stop
        first += int(ends[-1]) if len(ends) else 0


def _pieces(layout: SplitLayout, raw: RawSequences, values: ScratchArray) -> Iterator[tuple[int, slice | Array, Array]]:
    """Per block: the split, the positions of its values among those of the block, and the values of the block."""
    for block, lengths, first in _value_blocks(layout, raw.lengths):
        found = values.read(first, first + int(lengths.sum()))
        for part, chosen in block.pieces:
            yield part, _places(lengths, chosen), found


def _places(lengths: Array, chosen: Chosen) -> slice | Array:
    """Positions of the values of the ``chosen`` rows among the values of all rows of a block."""
    ends = np.cumsum(lengths)
    if isinstance(chosen, slice):  # neighbouring rows have neighbouring values: no copy is made
        # A slice is never empty here: `RowBlock.cut` leaves empty pieces out.
        return slice(int(ends[chosen.start] - lengths[chosen.start]), int(ends[chosen.stop - 1]))
    return ragged_positions((ends - lengths)[chosen], lengths[chosen])


def _weights(name: str, weights: str, table: StoredTable, raw: RawSequences) -> RawSequences:
    source = table.raw.table
    if weights not in source.names or source.type_of(weights) != "float_seq":
        raise DataError(
            f"{source.paths[0]}, line 1: field {name!r} has weights {weights!r}, which must be a float_seq column of "
            "the same file"
        )
    found = table.raw.columns[weights]
    assert isinstance(found, RawSequences)
    # Lengths must agree row by row; equal totals would pair values with the weights of other rows.
    for block in table.layout.blocks():
        mine, theirs = (column.lengths.read(block.start, block.stop) for column in (raw, found))
        differing = np.flatnonzero(mine != theirs)
        if len(differing):
            row = int(differing[0])
            raise DataError(
                f"{table.raw.where(block.start + row)}: {name!r} has {mine[row]} values, its weights {weights!r} "
                f"have {theirs[row]}"
            )
    return found


def _writer(path: Path, dtype: npt.DTypeLike, table: StoredTable) -> ArrayWriter:
    """One value per row of a table."""
    return ArrayWriter(path, dtype, (table.stored_rows,), table.layout.ends[:-1])


def _write_absent(out: ArrayWriter, table: StoredTable, value: float, *, part: int = 0) -> None:
    """Write the last row of a side table, in which the field is absent."""
    if table.shown is not None:
        out.write(part, np.array([value]))
