"""The tables of a data set in memory-mapped scratch files, and their columns by interaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.escape import PADDING
from recbole_dtn.data.raw import NameSpace, RawFloats, RawSequences, RawTable, RawTokens, read_raw
from recbole_dtn.data.sources import Side, Sources, needed_columns
from recbole_dtn.errors import DataError

__all__ = ["SideRows", "read_tables"]

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SideRows:
    """Columns of any table, asked for by interaction.

    ``pointers[kind][r]`` is the side table's row of interaction r, or its number of rows where it has none.
    """

    sources: Sources
    tables: dict[str, RawTable]
    pointers: dict[str, npt.NDArray[np.int32]]

    def _column(self, name: str, rows: Rows) -> tuple[Any, Rows, npt.NDArray[np.bool_]]:
        kind = self.sources.owner(name, wanted_by="settings")
        table = self.tables[kind]
        column = table.columns[name]
        if isinstance(column, RawSequences):
            raise DataError(f"{table.table.paths[0]}, line 1: column {name!r} holds sequences; one value is needed")
        if kind == "inter":
            return column, rows, np.zeros(len(rows), np.bool_)
        pointed = self.pointers[kind][rows].astype(np.int64)
        none = pointed == table.rows
        return column, np.where(none, 0, pointed), none

    def space(self, name: str) -> NameSpace | None:
        """The name space of a token column; None for a float."""
        column = self.tables[self.sources.owner(name, wanted_by="settings")].columns[name]
        return None if isinstance(column, RawFloats) else column.space

    def codes(self, name: str, rows: Rows) -> npt.NDArray[np.int64]:
        """Codes of a token column (or numbers of the distinct values of a float), -1 where missing."""
        column, found, none = self._column(name, rows)
        if isinstance(column, RawFloats):
            return np.unique(column.numbers(found), return_inverse=True)[1].astype(np.int64)
        return np.where(none, -1, column.codes[found]).astype(np.int64)

    def numbers(self, name: str, rows: Rows) -> npt.NDArray[np.float64]:
        """A column as numbers, NaN where it is missing or no number."""
        column, found, none = self._column(name, rows)
        return np.where(none, np.nan, column.numbers(found))

    def series(self, name: str, rows: Rows) -> pl.Series:
        """A column as text or numbers, null where missing."""
        column, found, none = self._column(name, rows)
        if isinstance(column, RawFloats):
            return pl.Series(name, np.where(none, np.nan, column.numbers(found))).fill_nan(None)
        texts: pl.Series = column.texts(found)
        return texts.set(pl.Series(none), None).alias(name) if none.any() else texts.alias(name)


def read_tables(
    settings: Settings, sources: Sources, scratch: Path, log: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Read every column that the settings need: ``{inter, user, item: RawTable, rows: SideRows}``."""
    wanted: dict[str, list[str]] = {"inter": []}
    for column, why in needed_columns(settings).items():
        wanted.setdefault(sources.owner(column, wanted_by=why), []).append(column)
    used = [side for side in sources.sides if side.kind in wanted]
    for side in used:
        for kind in ("inter", side.kind):
            if side.key not in wanted[kind]:
                wanted[kind].append(side.key)
    spaces: dict[str, NameSpace] = {}
    tables = {}
    for kind, columns in wanted.items():
        folder = scratch / kind
        folder.mkdir()
        limit = settings.limit_rows if kind == "inter" else None
        tables[kind] = read_raw(sources.table(kind), columns, spaces, folder, limit=limit)
    for table in tables.values():
        _warn_misread(table, log)
    pointers = {side.kind: _pointers(side, tables["inter"], tables[side.kind], log) for side in used}
    return {**tables, "rows": SideRows(sources, tables, pointers)}


def _pointers(side: Side, inter: RawTable, table: RawTable, log: Callable[[str], None]) -> npt.NDArray[np.int32]:
    """For each interaction, its row of the side table."""
    there, here = table.columns[side.key], inter.columns[side.key]
    assert isinstance(there, RawTokens)
    assert isinstance(here, RawTokens)
    keys = np.asarray(there.codes)
    row_of = np.full(there.space.size + 1, table.rows, np.int32)
    row_of[keys] = np.arange(table.rows)
    repeated = np.flatnonzero(row_of[keys] != np.arange(table.rows))
    if len(repeated):
        first = int(repeated[0])
        value = there.texts(np.array([first]))[0]
        last = int(row_of[keys[first]])
        raise DataError(f"{table.where(last)}: {side.key} {value!r} is there twice (first on {table.where(first)})")
    row_of[-1] = table.rows
    found = row_of[here.codes]
    absent = np.flatnonzero(found == table.rows)
    if len(absent):
        row = int(absent[0])
        value = here.texts(np.array([row]))[0]
        shown = "(empty)" if value is None else repr(value)
        log(
            f"warning: {inter.where(row)}: {side.key} {shown} is not in {table.table.paths[0].name} "
            f"({len(absent):,} such rows); its fields are absent there"
        )
    return found


def _warn_misread(table: RawTable, log: Callable[[str], None]) -> None:
    """Say which tokens stock RecBole would misread, once per column and reason."""
    for name, column in table.columns.items():
        space = None if isinstance(column, RawFloats) else column.space
        if space is None or isinstance(column, RawFloats):
            continue
        codes = column.codes if isinstance(column, RawTokens) else column.values
        reasons = {
            "is read as missing, as stock RecBole does": space.missing,
            "begins with a quote: stock RecBole reads on to the next quote": space.tokens.str.starts_with(
                '"'
            ).to_numpy(),
            "is stock RecBole's name of its padding": (space.tokens == PADDING).to_numpy(),
        }
        for reason, which in reasons.items():
            if not which.any():
                continue
            hits = np.flatnonzero(np.append(which, False)[codes])
            if not len(hits):
                continue
            at = int(hits[0])
            row = at if isinstance(column, RawTokens) else int(np.searchsorted(column.offsets, at, side="right")) - 1
            value = space.tokens[int(codes[at])]
            log(f"warning: {table.where(row)}: column {name!r}: {value!r} {reason} ({len(hits):,} such values)")
