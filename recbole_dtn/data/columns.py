"""The tables of a data set in scratch files, and their columns in the order of the interactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.atomic import Tap
from recbole_dtn.data.escape import PADDING
from recbole_dtn.data.layout import BLOCK_ROWS
from recbole_dtn.data.raw import Integers, RawColumn, RawFloats, RawSequences, RawTable, RawTokens, Texts, read_raw
from recbole_dtn.data.scratch import ScratchArray, ScratchWriter
from recbole_dtn.data.sources import Side, Sources, needed_columns
from recbole_dtn.errors import DataError

__all__ = ["Tables", "read_tables"]

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """Tables as they were read, and columns of any of them by interaction.

    ``pointers[kind]`` holds for each interaction the row of that side table, or its number of rows where it has none.
    """

    sources: Sources
    raw: dict[str, RawTable]
    pointers: dict[str, ScratchArray]
    _whole: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict, repr=False)

    def column(self, name: str) -> RawColumn:
        """The column of that name, from any of the tables."""
        return self.raw[self.sources.owner(name, wanted_by="settings")].columns[name]

    def _single(self, name: str) -> tuple[str, RawTokens | RawFloats]:
        kind, column = self.sources.owner(name, wanted_by="settings"), self.column(name)
        if isinstance(column, RawSequences):
            path = self.raw[kind].table.paths[0]
            raise DataError(f"{path}, line 1: column {name!r} holds sequences; one value is needed")
        return kind, column

    def _stored(self, name: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Codes or numbers of a column for interactions ``start`` to ``stop``; -1 or NaN where missing."""
        kind, column = self._single(name)
        scratch = column.values if isinstance(column, RawFloats) else column.codes
        if kind == "inter":
            return scratch.read(start, stop)
        if name not in self._whole:
            # A column of a side table is read once and kept: pointers reach its rows in any order. The appended value
            # is that of interactions without a row there, whose pointer is the number of rows.
            absent = np.nan if isinstance(column, RawFloats) else -1
            self._whole[name] = np.append(scratch.read(), np.array([absent], scratch.dtype))
        found: npt.NDArray[np.generic] = self._whole[name][self.pointers[kind].read(start, stop)]
        return found

    def codes(self, name: str, start: int, stop: int) -> Codes:
        """Codes of a token column, -1 where missing."""
        return self._stored(name, start, stop).astype(np.int64)

    def keys(self, name: str) -> Codes:
        """One number per interaction, equal where the column's values are equal: codes, or ranks of a float."""
        _, column = self._single(name)
        values = self._stored(name, 0, self.raw["inter"].rows)
        if isinstance(column, RawFloats):
            # Ranks need the values of all rows; the missing ones (NaN) share a rank.
            return np.unique(values, return_inverse=True)[1].astype(np.int64)
        return values.astype(np.int64)

    def numbers(self, name: str, start: int, stop: int) -> Array:
        """A column as numbers, NaN where it is missing or no number."""
        _, column = self._single(name)
        values = self._stored(name, start, stop)
        return values.astype(np.float64) if isinstance(column, RawFloats) else column.numbers(values.astype(np.int64))

    def series(self, name: str, start: int, stop: int) -> pl.Series:
        """A column as text or numbers, null where missing."""
        _, column = self._single(name)
        values = self._stored(name, start, stop)
        if isinstance(column, RawFloats):
            return pl.Series(name, values).fill_nan(None)
        return column.texts(values.astype(np.int64)).alias(name)


def read_tables(
    settings: Settings,
    sources: Sources,
    scratch: Path,
    log: Callable[[str], None] = lambda text: None,
    tap: Tap | None = None,
) -> Tables:
    """Read every column that the settings need into the folder ``scratch``; ``tap`` is shown the files' bytes."""
    wanted: dict[str, list[str]] = {"inter": []}
    for column, why in needed_columns(settings).items():
        wanted.setdefault(sources.owner(column, wanted_by=why), []).append(column)
    used = [side for side in sources.sides if side.kind in wanted]
    for side in used:
        for kind in ("inter", side.kind):
            if side.key not in wanted[kind]:
                wanted[kind].append(side.key)
    shared = {side.key: Texts() for side in used}
    raw = {}
    for kind, columns in wanted.items():
        folder = scratch / kind
        folder.mkdir()
        limit = settings.limit_rows if kind == "inter" else None
        raw[kind] = read_raw(sources.table(kind), columns, shared, folder, limit=limit, tap=tap)
    for table in raw.values():
        _warn_misread(table, log)
    pointers = {side.kind: _pointers(side, raw["inter"], raw[side.kind], scratch, log) for side in used}
    return Tables(sources, raw, pointers)


def _pointers(side: Side, inter: RawTable, table: RawTable, scratch: Path, log: Callable[[str], None]) -> ScratchArray:
    """For each interaction, its row of the side table."""
    there, here = table.columns[side.key], inter.columns[side.key]
    assert isinstance(there, RawTokens)
    assert isinstance(here, RawTokens)
    # Both tables share the name space of the key, and both are read by now: its size covers the codes of either.
    keys = there.codes.read()
    row_of = np.full(there.space.size + 1, table.rows, np.int32)
    row_of[keys] = np.arange(table.rows)
    # The last row of a key wins, so a key that stands twice does not lead back to its first row.
    repeated = np.flatnonzero(row_of[keys] != np.arange(table.rows))
    if len(repeated):
        first = int(repeated[0])
        value = there.texts(keys[first : first + 1].astype(np.int64))[0]
        last = int(row_of[keys[first]])
        raise DataError(f"{table.where(last)}: {side.key} {value!r} is there twice (first on {table.where(first)})")
    # Code -1 reads the last element. A row with an empty key has just written itself there; no interaction belongs to
    # it.
    row_of[-1] = table.rows
    writer = ScratchWriter(scratch / f"pointer.{side.kind}", np.int32)
    absent, first_absent, value = 0, 0, None
    for start in range(0, inter.rows, BLOCK_ROWS):
        codes = here.codes.read(start, min(start + BLOCK_ROWS, inter.rows))
        found = row_of[codes]
        without = np.flatnonzero(found == table.rows)
        if len(without) and not absent:
            first_absent = start + int(without[0])
            value = here.texts(codes[without[:1]].astype(np.int64))[0]
        absent += len(without)
        writer.append(found)
    if absent:
        shown = "(empty)" if value is None else repr(value)
        log(
            f"warning: {inter.where(first_absent)}: {side.key} {shown} is not in {table.table.paths[0].name} "
            f"({absent:,} such rows); its fields are absent there"
        )
    return writer.close()


def _warn_misread(table: RawTable, log: Callable[[str], None]) -> None:
    """Say which tokens stock RecBole would misread, once per column and reason."""
    for name, column in table.columns.items():
        if isinstance(column, RawFloats) or column.space is None or isinstance(column.space, Integers):
            continue
        # Integers (skipped above) can be none of these.
        tokens = column.space.tokens()
        reasons = {
            "is read as missing, as stock RecBole does": column.space.missing,
            "begins with a quote: stock RecBole reads on to the next quote": tokens.str.starts_with('"').to_numpy(),
            "is stock RecBole's name of its padding": (tokens == PADDING).to_numpy(),
        }
        for reason, which in reasons.items():
            if not which.any():
                continue
            # The appended False is for code -1, an empty cell.
            at, code, hits = _hits(column, np.append(which, False))
            if hits:
                row = at if isinstance(column, RawTokens) else _row_of_value(column, at)
                value = tokens[code]
                log(f"warning: {table.where(row)}: column {name!r}: {value!r} {reason} ({hits:,} such values)")


def _hits(column: RawTokens | RawSequences, which: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """Place and code of the first value whose code is one of ``which``, and how many there are."""
    codes = column.codes if isinstance(column, RawTokens) else column.values
    first, code, count = 0, 0, 0
    for start in range(0, codes.size, BLOCK_ROWS):
        block = codes.read(start, min(start + BLOCK_ROWS, codes.size))
        found = np.flatnonzero(which[block])
        if len(found) and not count:
            first, code = start + int(found[0]), int(block[found[0]])
        count += len(found)
    return first, code, count


def _row_of_value(column: RawSequences, place: int) -> int:
    # The first row that ends behind the place; side="right" passes over empty rows that end at it.
    return int(np.searchsorted(np.cumsum(column.lengths.read()), place, side="right"))
