"""First pass of encoding: the columns of a table as codes and numbers in scratch files.

Each distinct text of a column gets a code in the column's name space. Tables that share a column share its name space,
so that a key has the same code on both sides of a join. Texts are numbered by a Polars ``Categories``; integers in a
narrow range are their own codes. Only a few blocks of rows and the distinct texts are in memory.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.atomic import AtomicTable, Batch, Tap, missing_mask, parse_floats
from recbole_dtn.data.layout import BLOCK_ROWS
from recbole_dtn.data.scratch import ScratchArray, ScratchWriter
from recbole_dtn.errors import DataError

__all__ = [
    "Integers",
    "NameSpace",
    "RawColumn",
    "RawFloats",
    "RawSequences",
    "RawTable",
    "RawTokens",
    "Texts",
    "read_raw",
    "workers",
]

MOST_THREADS = 8
NO_CODE = 2**32 - 1
"""-1 in 32 bits without a sign."""
WIDEST = 1 << 21
"""Widest range of integers that are their own codes: memory is allocated for every number of the range."""

Codes = npt.NDArray[np.int32]


class NameSpace(ABC):
    """Codes of the distinct texts of one column."""

    size: int

    @abstractmethod
    def tokens(self) -> pl.Series:
        """The distinct texts in the order of their codes, computed at each call; call it after every table was read."""

    @cached_property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Per code, whether the text means a missing value, as stock RecBole reads it."""
        return missing_mask(self.tokens()).to_numpy()


class Texts(NameSpace):
    """Any texts, numbered in the order of their first occurrence."""

    def __init__(self) -> None:
        # Each column has a Categories of its own, so that its codes run from 0 without gaps.
        self.dtype = pl.Categorical(pl.Categories.random())
        # Polars drops the texts of a Categories when its last column is freed: keep an empty one alive.
        self._alive = pl.Series([], dtype=self.dtype)
        self.size = 0

    def coded(self, texts: pl.Expr) -> pl.Expr:
        """Unsigned codes of texts, null for null; pass the result to :meth:`codes`."""
        return texts.cast(self.dtype).to_physical()

    def codes(self, found: pl.Series) -> Codes:
        """Codes that :meth:`coded` gave, -1 for null."""
        if found.null_count():
            found = found.fill_null(NO_CODE)
        # The uint32 codes are reinterpreted, not converted: NO_CODE becomes -1 without a copy.
        codes = found.to_numpy().view(np.int32)
        if len(codes):
            self.size = max(self.size, int(codes.max()) + 1)
        return codes

    def tokens(self) -> pl.Series:
        return pl.Series(np.arange(self.size, dtype=np.uint32)).cat.to(self.dtype).cast(pl.String)


class Integers(NameSpace):
    """Integers from ``low`` to ``high`` without leading zeros or signs; the code of n is ``n - low``."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.size = low, max(0, high - low + 1)

    def tokens(self) -> pl.Series:
        return pl.Series(np.arange(self.low, self.low + self.size)).cast(pl.String)


@dataclass(frozen=True)
class RawTokens:
    """``codes (rows,)``, -1 for an empty cell."""

    space: NameSpace
    codes: ScratchArray

    def texts(self, codes: npt.NDArray[np.int64]) -> pl.Series:
        """Texts of some codes; missing ones are null."""
        # Position ``size`` holds the null that stands for code -1.
        return self._texts.gather(np.where(codes < 0, self.space.size, codes))

    def numbers(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The texts of some codes as numbers; NaN where they are none."""
        # Code -1 reads the appended NaN.
        found: npt.NDArray[np.float64] = self._numbers[codes]
        return found

    @cached_property
    def _texts(self) -> pl.Series:
        tokens = self.space.tokens().set(pl.Series(self.space.missing), None)
        return tokens.append(pl.Series([None], dtype=pl.String))

    @cached_property
    def _numbers(self) -> npt.NDArray[np.float64]:
        numbers = parse_floats(self.space.tokens()).to_numpy().astype(np.float64)
        return np.append(numbers, np.nan)

    def remove(self) -> None:
        """Delete the scratch files."""
        self.codes.remove()


@dataclass(frozen=True)
class RawFloats:
    """``values (rows,)``, NaN where missing."""

    values: ScratchArray

    def remove(self) -> None:
        """Delete the scratch files."""
        self.values.remove()


@dataclass(frozen=True)
class RawSequences:
    """The values of all rows end to end, and the number of values of each row.

    Values are codes of a ``token_seq``, or numbers of a ``float_seq`` (float32), which has no name space.
    """

    space: NameSpace | None
    values: ScratchArray
    lengths: ScratchArray

    def remove(self) -> None:
        """Delete the scratch files."""
        self.values.remove()
        self.lengths.remove()


RawColumn = RawTokens | RawFloats | RawSequences


@dataclass(frozen=True)
class RawTable:
    """Columns of one table. ``parts``: rows of each of its files."""

    table: AtomicTable
    columns: dict[str, RawColumn]
    parts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows over all files."""
        return sum(self.parts)

    def where(self, row: int) -> str:
        """``file, line n`` of a row, for messages."""
        path, line = self.table.locate(row)
        return f"{path}, line {line}"


class _FloatSink:
    """Appends one column of numbers to a scratch file."""

    def __init__(self, name: str, base: Path) -> None:
        self.name = name
        self.values = ScratchWriter(base.with_suffix(".values"), np.float64)

    def expression(self) -> pl.Expr:
        """What to work out of a block; all columns of it at the same time."""
        return pl.col(self.name).fill_null(float("nan"))

    def add(self, texts: pl.Series, found: pl.Series) -> None:
        """What was worked out of the next block."""
        self.values.append(found.to_numpy())

    def finish(self) -> RawColumn:
        return RawFloats(self.values.close())


class _TokenSink:
    """Appends one column of tokens to a scratch file.

    Integers are stored as they are until another text occurs: that takes a fifth of the time of a look-up.

    Args:
        name: of the column. base: of its files. space: shared with another table; None for a column by itself.
    """

    def __init__(self, name: str, base: Path, space: Texts | None) -> None:
        self.name, self.base, self.space = name, base, space
        self.values = ScratchWriter(base.with_suffix(".values"), np.int32)
        # An empty range: every non-negative Int32 lies below ``low`` and above ``high``.
        self.low, self.high = 2**31, -1

    def expression(self) -> pl.Expr:
        """What to work out of a block; all columns of it at the same time."""
        column = pl.col(self.name)
        return column.cast(pl.Int32, strict=False) if self.space is None else self.space.coded(column)

    def add(self, texts: pl.Series, found: pl.Series) -> None:
        """What was worked out of the next block."""
        if self.space is None:
            if self._all_plain(texts, found):
                self.values.append(found.fill_null(-1).to_numpy())
                return
            # The first block with another text than plain integers of a narrow range: recode the rows so far, and read
            # this block and all later ones as texts.
            self.space = self._from_integers()
            found = texts.to_frame().select(self.expression()).to_series()
        self.values.append(self.space.codes(found))

    def _all_plain(self, texts: pl.Series, numbers: pl.Series) -> bool:
        """Whether each text is the shortest spelling of its number, and the numbers lie in a narrow range."""
        # A null that the text is not means that the cast failed: no integer, or one beyond 32 bits.
        if numbers.null_count() != texts.null_count():
            return False
        # The cast to Int32 accepts "+7" and "007" too, which are other tokens than "7".
        present = numbers.drop_nulls().to_numpy()
        if len(present):
            low, high = min(self.low, int(present.min())), max(self.high, int(present.max()))
            if low < 0 or high - low >= WIDEST:
                return False
            # A sign or a leading zero makes a text longer, so equal total lengths mean shortest spellings.
            if int(texts.str.len_bytes().sum()) != _digits(present):
                return False
            self.low, self.high = low, high
        return True

    def _from_integers(self) -> Texts:
        """Convert the integers stored so far to codes of texts."""
        space, done = Texts(), self.values.close()
        self.values = ScratchWriter(self.base.with_suffix(".texts"), np.int32)
        for start in range(0, done.size, BLOCK_ROWS):
            numbers = pl.DataFrame({"n": done.read(start, min(start + BLOCK_ROWS, done.size))})
            texts = pl.when(pl.col("n") >= 0).then(pl.col("n").cast(pl.String))
            self.values.append(space.codes(numbers.select(n=space.coded(texts)).to_series()))
        done.remove()
        return space

    def finish(self) -> RawTokens:
        codes = self.values.close()
        if self.space is not None:
            return RawTokens(self.space, codes)
        # The file has the integers; `low` is subtracted on reading. Empty column: low = high + 1 = 0.
        low = min(self.low, self.high + 1)
        return RawTokens(Integers(low, self.high), replace(codes, offset=low))


def _digits(numbers: npt.NDArray[np.int32]) -> int:
    """The total number of digits of non-negative numbers.

    >>> _digits(np.array([0, 7, 10, 1234], np.int32))
    8
    """
    # Every number has ``shortest`` digits, and one more for each power of ten that it reaches. The numbers are
    # compared, not printed.
    shortest, longest = len(str(numbers.min())), len(str(numbers.max()))
    more = sum(int(np.count_nonzero(numbers >= 10**digits)) for digits in range(shortest, longest))
    return shortest * len(numbers) + more


class _SequenceSink:
    """Appends one column of sequences to scratch files."""

    def __init__(self, name: str, base: Path, kind: str) -> None:
        self.name = name
        self.lengths = ScratchWriter(base.with_suffix(".lengths"), np.int32)
        self.values: _TokenSink | ScratchWriter
        if kind == "token_seq":
            self.values = _TokenSink(name, base, None)
        else:
            self.values = ScratchWriter(base.with_suffix(".values"), np.float32)

    def add(self, batch: Batch) -> None:
        """Append the sequences of a block; blocks are appended one after another."""
        # The values of all rows, end to end; an absent cell gives a null list and no value.
        lists = batch.frame[self.name].str.split(" ")
        texts = lists.explode(empty_as_null=False, keep_nulls=False)
        if (texts == "").any():  # several spaces between two values, or one at an end
            lists = lists.list.filter(pl.element() != "")
            texts = lists.explode(empty_as_null=False, keep_nulls=False)
        # Lengths are taken after empty values were removed, so that they add up to the number of values.
        self.lengths.append(lists.list.len().fill_null(0).cast(pl.Int32).to_numpy())
        if isinstance(self.values, _TokenSink):
            self.values.add(texts, texts.to_frame().select(self.values.expression()).to_series())
        else:
            self.values.append(_sequence_floats(batch, self.name, texts).to_numpy())

    def finish(self) -> RawColumn:
        lengths = self.lengths.close()
        if isinstance(self.values, _TokenSink):
            found = self.values.finish()
            return RawSequences(found.space, found.codes, lengths)
        return RawSequences(None, self.values.close(), lengths)


def _sequence_floats(batch: Batch, name: str, texts: pl.Series) -> pl.Series:
    numbers = parse_floats(texts).cast(pl.Float32)
    if numbers.null_count() or not numbers.is_finite().all():  # infinite: beyond float32
        # The flat values have no row numbers: the row is searched for only here, where there is a fault.
        wrong = numbers.is_null() | ~numbers.is_finite().fill_null(False)
        text = texts.filter(wrong)[0]
        row = next(i for i, cell in enumerate(batch.frame[name]) if cell is not None and text in cell.split(" "))
        raise DataError(
            f"{batch.header.path}, line {batch.line(row)}: column {name!r}: expected finite numbers with a space "
            f"between, found {text!r}"
        )
    return numbers


def read_raw(
    table: AtomicTable,
    columns: Sequence[str],
    shared: Mapping[str, Texts],
    scratch: Path,
    *,
    limit: int | None = None,
    tap: Tap | None = None,
) -> RawTable:
    """Read ``columns`` of a table into scratch files.

    Args:
        table: what to read. columns: their names. shared: name spaces of columns that other tables have too.
        scratch: an empty folder. limit: rows of each file to stop after (given splits: of each part).
        tap: shown the bytes of the files.

    Raises:
        DataError: as :meth:`AtomicTable.batches` does.
    """
    sinks: dict[str, _FloatSink | _TokenSink] = {}
    sequences: dict[str, _SequenceSink] = {}
    for index, name in enumerate(columns):
        kind, base = table.type_of(name), scratch / f"c{index}"
        if kind.endswith("_seq"):
            sequences[name] = _SequenceSink(name, base, kind)
        elif kind == "float":
            sinks[name] = _FloatSink(name, base)
        else:
            sinks[name] = _TokenSink(name, base, shared.get(name))
    parts: list[int] = []
    with ThreadPoolExecutor(workers(len(sequences))) as pool:
        for part in range(len(table.paths)):
            rows = 0
            with closing(table.batches(columns, part=part, tap=tap)) as batches:
                for batch in _limited(batches, limit):
                    # One call for all columns: Polars computes them in parallel.
                    found = batch.frame.select(sink.expression() for sink in sinks.values())
                    for sink in sinks.values():
                        sink.add(batch.frame[sink.name], found[sink.name])
                    # One thread per column: each sink must get its blocks in order, and ``list`` waits for all of them.
                    list(pool.map(partial(_add_sequences, batch), sequences.values()))
                    rows += batch.frame.height
            parts.append(rows)
    every: dict[str, _FloatSink | _TokenSink | _SequenceSink] = {**sinks, **sequences}
    return RawTable(table, {name: every[name].finish() for name in columns}, tuple(parts))


def _add_sequences(batch: Batch, sink: _SequenceSink) -> None:
    sink.add(batch)


def workers(tasks: int) -> int:
    """Number of threads for ``tasks`` tasks: one per core, at most ``MOST_THREADS``, as each holds a block of rows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(tasks, cores, MOST_THREADS))


def _limited(batches: Iterable[Batch], limit: int | None) -> Iterator[Batch]:
    for batch in batches:
        if limit is not None:
            batch = Batch(batch.frame.head(limit), batch.header, batch.block, batch.first_line)
            limit -= batch.frame.height
        yield batch
        if limit == 0:
            return
