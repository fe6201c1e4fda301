"""Second pass of encoding: splits, labels and vocabularies, and each column as its narrowest integers.

The interactions are stored in the order training, validation, test, so that a split is a stretch of every array. A
side table is stored once, with a last row that is absent in every field; an interaction holds the number of its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.config.settings import FieldSettings, Settings
from recbole_dtn.data.columns import SideRows, read_tables
from recbole_dtn.data.labels import write_labels
from recbole_dtn.data.raw import NameSpace, RawFloats, RawSequences, RawTable, RawTokens
from recbole_dtn.data.sources import PARTS, Sources
from recbole_dtn.data.split import random_split, time_split, user_time_split
from recbole_dtn.data.store import create_array, ragged_positions
from recbole_dtn.data.vocabulary import FloatStatistics, TokenVocabulary, Vocabularies, Vocabulary, bin_ids
from recbole_dtn.errors import DataError
from recbole_dtn.schema import ABSENT, UNKNOWN

__all__ = ["Encoded", "encode", "narrowest"]

BLOCK_ROWS = 1 << 20
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Encoded:
    """What the arrays in the folder mean: the rest of a cache entry."""

    vocabularies: Vocabularies
    rows: dict[str, int]
    tables: dict[str, str]
    fields: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, list[int]]]


def narrowest(largest: int) -> npt.DTypeLike:
    """The narrowest signed integer type that holds 0 to ``largest``.

    >>> narrowest(127), narrowest(128), narrowest(40_000)
    (<class 'numpy.int8'>, <class 'numpy.int16'>, <class 'numpy.int32'>)
    """
    return next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)


def encode(
    settings: Settings, sources: Sources, target: Path, scratch: Path, log: Callable[[str], None] = lambda text: None
) -> Encoded:
    """Write the arrays of a data set into ``target``.

    Args:
        settings: fields, tasks, split. sources: the atomic files. target, scratch: empty folders.
        log: told what was read though stock RecBole would misread it, with file and line.

    Raises:
        DataError: for faulty files, a label that is missing or not binary, an empty split, a task without positives.
    """
    tables = read_tables(settings, sources, scratch, log)
    parts = _split(settings, tables["inter"], tables)
    return _Encoder(settings, sources, tables, parts, target).run()


def _split(settings: Settings, inter: RawTable, tables: dict[str, Any]) -> list[npt.NDArray[np.int64]]:
    """Row numbers of the three splits."""
    rows, ratio = inter.rows, settings.split_ratio
    if settings.split == "given":
        parts = np.split(np.arange(rows), np.cumsum(inter.parts)[:-1])
    elif settings.split == "random":
        parts = random_split(rows, ratio, settings.split_seed)
    else:
        every = np.arange(rows)
        assert settings.time_field is not None
        time = tables["rows"].numbers(settings.time_field, every)
        if np.isnan(time).any():
            row = int(np.flatnonzero(np.isnan(time))[0])
            raise DataError(
                f"{inter.where(row)}: time_field {settings.time_field!r} has no number, and split: {settings.split} "
                "orders the rows by it"
            )
        if settings.split == "time":
            parts = time_split(time, ratio)
        else:
            assert settings.user_field is not None
            parts = user_time_split(tables["rows"].codes(settings.user_field, every), time, ratio)
    for name, part in zip(PARTS, parts, strict=True):
        if not len(part):
            raise DataError(
                f"{inter.table.paths[0].parent}: the {name} split is empty ({rows} rows in all, split: "
                f"{settings.split}, split_ratio: {list(ratio)}); give more rows or another split"
            )
    return parts


class _Encoder:
    """The work of :func:`encode` once tables and splits are there."""

    def __init__(
        self, settings: Settings, sources: Sources, tables: dict[str, Any], parts: list[Array], target: Path
    ) -> None:
        self.settings, self.sources, self.target = settings, sources, target
        self.rows: SideRows = tables["rows"]
        self.tables: dict[str, RawTable] = {kind: table for kind, table in tables.items() if kind != "rows"}
        self.order = np.concatenate(parts)
        self.ends = np.cumsum([0, *(len(part) for part in parts)])
        self.train = parts[0]
        self.pointers: dict[str, Array] = {}
        self.side_counts: dict[str, list[npt.NDArray[np.int64]]] = {}

    def run(self) -> Encoded:
        inter = self.tables["inter"]
        self._write("row.npy", inter.rows, narrowest(inter.rows), lambda rows: rows)
        for kind, pointer in self.rows.pointers.items():
            side = self.tables[kind].rows
            self.pointers[kind] = self._write(f"pointer.{kind}.npy", inter.rows, narrowest(side), pointer.__getitem__)
            self.side_counts[kind] = [
                np.bincount(self.pointers[kind][start:stop], minlength=side + 1) for start, stop in self._stretches()
            ]
        tasks = write_labels(self.settings, self.rows, inter, self.order, self.ends, self.target)
        domains = self._extras()
        vocabularies: dict[str, Vocabulary] = {}
        fields, owners = {}, {}
        for position, spec in enumerate(self.settings.fields):
            kind = owners[spec.name] = self.sources.owner(spec.name, wanted_by="fields")
            vocabularies[spec.name], fields[spec.name] = self._field(position, spec, kind)
        rows = {name: int(stop - start) for name, (start, stop) in zip(PARTS, self._stretches(), strict=True)}
        known = Vocabularies(vocabularies, domains, self.settings.domain_field)
        return Encoded(known, rows, owners, fields, tasks)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        return zip(self.ends[:-1].tolist(), self.ends[1:].tolist(), strict=True)

    def _write(self, name: str, rows: int, dtype: npt.DTypeLike, values: Callable[[Array], Array]) -> Array:
        """An array over the interactions in the order of the splits: ``values(row numbers)``, a block at a time."""
        out = create_array(self.target / name, dtype, (rows,))
        for start in range(0, rows, BLOCK_ROWS):
            out[start : start + BLOCK_ROWS] = values(self.order[start : start + BLOCK_ROWS])
        return out

    # ---- fields ---------------------------------------------------------------------------------------------------

    def _field(self, position: int, spec: FieldSettings, kind: str) -> tuple[Vocabulary, dict[str, Any]]:
        found = self.sources.table(kind).type_of(spec.name)
        if found != spec.type:
            path = self.sources.table(kind).paths[0]
            raise DataError(
                f"{path}, line 1: column {spec.name!r} is of type {found}, the data set's field says {spec.type}; "
                "make the two equal"
            )
        raw = self.tables[kind].columns[spec.name]
        if isinstance(raw, RawFloats):
            return self._float(position, spec, kind, raw)
        space = raw.space
        assert space is not None
        known = TokenVocabulary.from_counts(
            space.tokens, self._counts(kind, raw, space), spec.min_count or self.settings.min_count
        )
        ids = np.append(known.ids(space.tokens), ABSENT)  # the last is reached by code -1, an empty cell
        ids[:-1][space.missing] = ABSENT
        dtype = narrowest(known.size - 1)
        if isinstance(raw, RawSequences):
            return known, self._sequence(position, spec, kind, raw, ids.astype(dtype))
        out = self._column(f"f{position}.npy", kind, dtype, ABSENT, lambda rows: ids[raw.codes[rows]])
        return known, {"missing": self._shares(kind, out, ABSENT), "unknown": self._shares(kind, out, UNKNOWN)}

    def _column(
        self, name: str, kind: str, dtype: npt.DTypeLike, absent: float, values: Callable[[Array], Array]
    ) -> Array:
        """One value per row of a table; a side table ends with an absent row."""
        if kind == "inter":
            return self._write(name, self.tables[kind].rows, dtype, values)
        rows = self.tables[kind].rows
        out = create_array(self.target / name, dtype, (rows + 1,))
        out[:rows] = values(np.arange(rows))
        out[rows] = absent
        return out

    def _counts(self, kind: str, raw: RawTokens | RawSequences, space: NameSpace) -> npt.NDArray[np.int64]:
        """How often the training rows show each code."""
        counts = np.zeros(space.size + 1, np.int64)
        if kind != "inter":
            weights = self.side_counts[kind][0][:-1].astype(np.float64)
            if isinstance(raw, RawSequences):
                weights = np.repeat(weights, np.diff(raw.offsets))
                counts += np.bincount(raw.values + 1, weights, len(counts)).astype(np.int64)
            else:
                counts += np.bincount(raw.codes + 1, weights, len(counts)).astype(np.int64)
        else:
            for start in range(0, len(self.train), BLOCK_ROWS):
                rows = self.train[start : start + BLOCK_ROWS]
                codes = raw.values[_positions(raw, rows)] if isinstance(raw, RawSequences) else raw.codes[rows]
                counts += np.bincount(codes + 1, minlength=len(counts))
        counts = counts[1:]
        counts[space.missing] = 0
        return counts

    def _shares(self, kind: str, out: Array, value: int) -> dict[str, int]:
        """Interactions per split whose stored value is ``value`` (NaN for the absent number)."""
        found = {}
        for index, (start, stop) in enumerate(self._stretches()):
            if kind == "inter":
                total = sum(
                    int(np.count_nonzero(out[at : min(at + BLOCK_ROWS, stop)] == value))
                    for at in range(start, stop, BLOCK_ROWS)
                )
            else:
                total = int(self.side_counts[kind][index][out == value].sum())
            found[PARTS[index]] = total
        return found

    def _float(
        self, position: int, spec: FieldSettings, kind: str, raw: RawFloats
    ) -> tuple[FloatStatistics, dict[str, Any]]:
        train = self.train if kind == "inter" else self.rows.pointers[kind][self.train].astype(np.int64)
        values = raw.numbers(train[train < len(raw.values)])
        known = FloatStatistics.from_values(values, spec.bins if spec.encoding == "bins" else None)
        name = f"f{position}.npy"
        if known.edges:
            dtype = narrowest(known.size - 1)
            out = self._column(name, kind, dtype, ABSENT, lambda rows: bin_ids(raw.values[rows], known.edges))
            return known, {"missing": self._shares(kind, out, ABSENT)}
        out = self._column(name, kind, np.float32, np.nan, lambda rows: known.standardise(raw.values[rows]))
        missing = self._column_missing(kind, out)
        return known, {"missing": missing}

    def _column_missing(self, kind: str, out: Array) -> dict[str, int]:
        return self._shares(kind, np.isnan(out), True)

    def _sequence(self, position: int, spec: FieldSettings, kind: str, raw: RawSequences, ids: Array) -> dict[str, Any]:
        """Values and offsets in the order of the splits; a side table keeps its own order."""
        order = self.order if kind == "inter" else np.arange(self.tables[kind].rows)
        lengths = np.diff(raw.offsets)[order]
        if kind != "inter":
            lengths = np.append(lengths, 0)
        offsets = create_array(
            self.target / f"f{position}.offsets.npy", narrowest(int(lengths.sum())), (len(lengths) + 1,)
        )
        offsets[0] = 0
        offsets[1:] = np.cumsum(lengths)
        total = int(offsets[-1])
        out = create_array(self.target / f"f{position}.npy", ids.dtype, (total,))
        weights = weights_out = None
        if spec.weights is not None:
            weights = self._weights(spec, kind, raw)
            weights_out = create_array(self.target / f"f{position}.weights.npy", np.float32, (total,))
        for start in range(0, len(order), BLOCK_ROWS):
            positions = _positions(raw, order[start : start + BLOCK_ROWS])
            at = int(offsets[start])
            out[at : at + len(positions)] = ids[raw.values[positions]]
            if weights is not None and weights_out is not None:
                weights_out[at : at + len(positions)] = weights.values[positions]
        return {"missing": self._shares(kind, lengths == 0, True), "values": total}

    def _weights(self, spec: FieldSettings, kind: str, raw: RawSequences) -> RawSequences:
        assert spec.weights is not None
        table = self.sources.table(kind)
        if spec.weights not in table.names or table.type_of(spec.weights) != "float_seq":
            raise DataError(
                f"{table.paths[0]}, line 1: field {spec.name!r} has weights {spec.weights!r}, which must be a "
                "float_seq column of the same file"
            )
        weights = self.tables[kind].columns[spec.weights]
        assert isinstance(weights, RawSequences)
        differing = np.flatnonzero(np.diff(weights.offsets) != np.diff(raw.offsets))
        if len(differing):
            row = int(differing[0])
            lengths = [int(column.offsets[row + 1] - column.offsets[row]) for column in (raw, weights)]
            raise DataError(
                f"{self.tables[kind].where(row)}: {spec.name!r} has {lengths[0]} values, its weights "
                f"{spec.weights!r} have {lengths[1]}"
            )
        return weights

    # ---- columns beside the fields --------------------------------------------------------------------------------

    def _extras(self) -> tuple[str, ...]:
        """Sample weights, groups and domains; returns the domains' tokens."""
        settings, inter = self.settings, self.tables["inter"]
        if settings.weight_field is not None:
            name = settings.weight_field
            self._write("weight.npy", inter.rows, np.float32, lambda rows: self._sample_weights(name, rows))
        if settings.group_field is not None:
            self._numbered("group.npy", settings.group_field)
        if settings.domain_field is None:
            return ()
        tokens = self._numbered("domain.npy", settings.domain_field)
        domain = np.load(self.target / "domain.npy", mmap_mode="r")
        if (domain == len(tokens)).any():
            row = int(self.order[np.flatnonzero(domain == len(tokens))[0]])
            raise DataError(f"{inter.where(row)}: domain_field {settings.domain_field!r} is missing")
        return tuple(tokens)

    def _numbered(self, file: str, column: str) -> list[str]:
        """Number the values of a column in the order of their bytes, over all splits; missing ones come last."""
        space = self.rows.space(column)
        if space is None:
            raise DataError(f"{self.sources.folder}: column {column!r} must be of type token to number its values")
        tokens = space.tokens
        present = np.flatnonzero(~space.missing)
        order = present[tokens.gather(present).arg_sort().to_numpy()]
        numbers = np.full(len(tokens) + 1, len(order), np.int64)
        numbers[order] = np.arange(len(order))
        inter = self.tables["inter"].rows
        self._write(file, inter, narrowest(len(order)), lambda rows: numbers[self.rows.codes(column, rows)])
        found: list[str] = pl.Series(tokens).gather(order).to_list()
        return found

    def _sample_weights(self, column: str, rows: Array) -> Array:
        weights = self.rows.numbers(column, rows)
        wrong = ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any():
            row = int(rows[np.flatnonzero(wrong)[0]])
            raise DataError(
                f"{self.tables['inter'].where(row)}: weight_field {column!r}: expected a number from 0 up, found "
                f"{weights[wrong][0]}"
            )
        return weights


def _positions(raw: RawSequences, rows: Array) -> Array:
    starts = raw.offsets[rows]
    return ragged_positions(starts, raw.offsets[rows + 1] - starts)
