"""First pass of encoding: the columns of a table as codes and numbers in scratch files, memory-mapped.

Each distinct text of a column gets a code in a name space of its own (a Polars ``Categories``), shared by the tables
that have the column, so that a key has the same code on both sides of a join. What stays in memory is a block of rows
and the distinct texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.atomic import AtomicTable, Batch, missing_mask, parse_floats
from recbole_dtn.errors import DataError

__all__ = ["NameSpace", "RawFloats", "RawSequences", "RawTable", "RawTokens", "read_raw"]

Codes = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]


class NameSpace:
    """Codes of the distinct texts of one column."""

    def __init__(self) -> None:
        self.dtype = pl.Categorical(pl.Categories.random())
        # Polars forgets the texts of a Categories once no column of that type is left.
        self._alive = pl.Series([], dtype=self.dtype)
        self.size = 0

    def codes(self, texts: pl.Series) -> Codes:
        """Code of each text (or of a column already of the name space's type); -1 for null."""
        found = texts.cast(self.dtype).to_physical()
        largest = found.max()
        if largest is not None:
            self.size = max(self.size, int(largest) + 1)  # type: ignore[arg-type]
        return found.cast(pl.Int32).fill_null(-1).to_numpy()

    @cached_property
    def tokens(self) -> pl.Series:
        """The distinct texts in the order of their codes; only when every table has been read."""
        return pl.Series(np.arange(self.size, dtype=np.uint32)).cat.to(self.dtype).cast(pl.String)

    @cached_property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Per code, whether the text means a missing value, as stock RecBole reads it."""
        return missing_mask(self.tokens).to_numpy()


@dataclass(frozen=True)
class RawTokens:
    """``codes (rows,)``, -1 for an empty cell."""

    space: NameSpace
    codes: Codes

    def texts(self, rows: Rows) -> pl.Series:
        """Texts of some rows; missing ones are null."""
        table = self.space.tokens.set(pl.Series(self.space.missing), None).append(pl.Series([None], dtype=pl.String))
        codes = np.asarray(self.codes[rows]).astype(np.int64)
        return table.gather(np.where(codes < 0, len(table) - 1, codes))

    def numbers(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The texts of some rows as numbers; NaN where they are none."""
        table: npt.NDArray[np.float64] = np.append(self._numbers, np.nan)
        found: npt.NDArray[np.float64] = table[self.codes[rows]]
        return found

    @cached_property
    def _numbers(self) -> npt.NDArray[np.float64]:
        numbers: npt.NDArray[np.float64] = parse_floats(self.space.tokens).to_numpy().astype(np.float64)
        return numbers


@dataclass(frozen=True)
class RawFloats:
    """``values (rows,)``, NaN where missing."""

    values: npt.NDArray[np.float64]

    def numbers(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The values of some rows."""
        return np.asarray(self.values[rows])


@dataclass(frozen=True)
class RawSequences:
    """Values of all rows end to end; row r owns ``values[offsets[r]:offsets[r + 1]]``.

    They are codes of a ``token_seq``, or numbers of a ``float_seq``, which has no name space.
    """

    space: NameSpace | None
    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]


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


class _Sink:
    """Appends one column to scratch files."""

    def __init__(self, kind: str, base: Path, space: NameSpace | None) -> None:
        self.kind, self.base, self.space = kind, base, space
        self.values: BinaryIO = base.with_suffix(".values").open("wb")
        self.lengths: BinaryIO | None = base.with_suffix(".lengths").open("wb") if kind.endswith("_seq") else None

    def add(self, batch: Batch, name: str) -> None:
        column = batch.frame[name]
        if self.lengths is not None:
            lists = column.str.split(" ").list.filter(pl.element() != "")
            lists.list.len().fill_null(0).cast(pl.Int32).to_numpy().tofile(self.lengths)
            column = lists.explode().drop_nulls()
            if self.space is None:
                column = _sequence_floats(batch, name, column)
        if self.space is not None:
            self.space.codes(column).tofile(self.values)
        else:
            column.cast(pl.Float64).fill_null(float("nan")).to_numpy().tofile(self.values)

    def finish(self) -> RawColumn:
        self.values.close()
        dtype: Any = np.float64 if self.space is None else np.int32
        values = _mapped(self.base.with_suffix(".values"), dtype)
        if self.lengths is not None:
            self.lengths.close()
            lengths = _mapped(self.base.with_suffix(".lengths"), np.int32)
            offsets = np.zeros(len(lengths) + 1, np.int64)
            np.cumsum(lengths, out=offsets[1:])
            return RawSequences(self.space, values, offsets)
        return RawFloats(values) if self.space is None else RawTokens(self.space, values)


def _sequence_floats(batch: Batch, name: str, texts: pl.Series) -> pl.Series:
    numbers = parse_floats(texts)
    wrong = (numbers.is_null() | ~numbers.is_finite()).fill_null(True)
    if wrong.any():
        text = texts.filter(wrong)[0]
        row = next(i for i, cell in enumerate(batch.frame[name]) if cell is not None and text in cell.split(" "))
        raise DataError(
            f"{batch.header.path}, line {batch.line(row)}: column {name!r}: expected finite numbers with a space "
            f"between, found {text!r}"
        )
    return numbers


def _mapped(path: Path, dtype: Any) -> npt.NDArray[Any]:
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")


def read_raw(
    table: AtomicTable, columns: Sequence[str], spaces: dict[str, NameSpace], scratch: Path, *, limit: int | None = None
) -> RawTable:
    """Read ``columns`` of a table into scratch files.

    Args:
        table: what to read. columns: their names. spaces: name spaces by column, added to.
        scratch: an empty folder. limit: rows of each file to stop after (given splits: of each part).

    Raises:
        DataError: as :meth:`AtomicTable.batches` does.
    """
    sinks = {}
    for index, name in enumerate(columns):
        kind = table.type_of(name)
        space = spaces.setdefault(name, NameSpace()) if kind.startswith("token") else None
        sinks[name] = _Sink(kind, scratch / f"c{index}", space)
    parts: list[int] = []
    for part in range(len(table.paths)):
        rows = 0
        for batch in _limited(table, columns, part, limit):
            batch = _with_codes(batch, sinks)
            for name, sink in sinks.items():
                sink.add(batch, name)
            rows += batch.frame.height
        parts.append(rows)
    return RawTable(table, {name: sink.finish() for name, sink in sinks.items()}, tuple(parts))


def _with_codes(batch: Batch, sinks: dict[str, _Sink]) -> Batch:
    """The batch with its tokens as codes: one call for all columns, so that Polars works on them at the same time."""
    types = {name: sink.space.dtype for name, sink in sinks.items() if sink.space is not None and sink.lengths is None}
    frame = batch.frame.with_columns(pl.col(name).cast(dtype) for name, dtype in types.items())
    return Batch(frame, batch.header, batch.block, batch.first_line)


def _limited(table: AtomicTable, columns: Sequence[str], part: int, limit: int | None) -> Iterable[Batch]:
    for batch in table.batches(columns, part=part):
        if limit is not None:
            batch = Batch(batch.frame.head(limit), batch.header, batch.block, batch.first_line)
            limit -= batch.frame.height
        yield batch
        if limit == 0:
            return
