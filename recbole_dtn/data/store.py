"""The columnar cache as it is read: memory-mapped narrow columns, cut into batches."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.data.mapped import MappedFiles, map_of
from recbole_dtn.schema import DataSchema

__all__ = ["Column", "Split", "Store", "ragged_positions", "will_need"]

Array = npt.NDArray[Any]

PACKED_BYTES = 384 << 20
"""Largest size of packed ids: training is to stay within its table, its optimiser state and 1 GiB."""
PACKED_AT_A_TIME = 1 << 14
"""Rows that are packed at a time, in the processor's cache."""

HELD_VALUES = 1 << 22
"""Ids that are gathered at a time, in at most four bytes each (but for tables of 2^31 rows and more): 16 MiB."""


def ragged_positions(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions of ragged rows laid end to end.

    >>> ragged_positions(np.array([5, 0, 9]), np.array([2, 0, 1])).tolist()
    [5, 6, 9]
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    positions: npt.NDArray[np.int64] = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return positions


READ_AT_A_TIME = 1 << 17
"""Bytes of one request to read ahead: Linux cuts longer ones off."""


def will_need(array: Array, start: int, stop: int) -> None:
    """Ask the system to read ``array[start:stop]`` into memory, where it is a mapped file; nothing waits for it."""
    owner = map_of(array)
    if owner is None or start >= stop or not hasattr(mmap, "MADV_WILLNEED"):
        return
    # Offset of the array in the file: behind the header.
    base = array.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
    begin, end = base + start * array.strides[0], base + stop * array.strides[0]
    # madvise takes addresses at the start of a page.
    for at in range(begin - begin % mmap.PAGESIZE, end, READ_AT_A_TIME):
        owner.madvise(mmap.MADV_WILLNEED, at, min(READ_AT_A_TIME, end - at))


@dataclass(frozen=True)
class Column:
    """One field as it is stored, a value per row of its table (``inter``, ``user`` or ``item``).

    ``values`` are local ids or standardised numbers; with ``offsets`` row r owns ``values[offsets[r]:offsets[r+1]]``.
    """

    table: str
    values: Array
    offsets: Array | None = None
    weights: Array | None = None


@dataclass(frozen=True)
class Store:
    """The arrays of an encoded data set.

    Attributes:
        columns: by field name. pointers: for each side table, the row of it that an interaction belongs to.
        labels, observed: (rows, T). extra: ``weight``, ``domain``, ``group`` where there are any, and ``row``, the row
            of the atomic file, where it is another than that of the store.
    """

    schema: DataSchema
    columns: Mapping[str, Column]
    pointers: Mapping[str, Array]
    labels: Array
    observed: Array
    extra: Mapping[str, Array]


class Split:
    """Rows ``start`` to ``stop`` of a store: one of training, validation and test.

    Args:
        store: shared by all splits.
    """

    def __init__(self, store: Store, start: int, stop: int) -> None:
        self.store = store
        self.start = start
        self.rows = stop - start
        self._packed: Array | None = None
        self._files = MappedFiles(self._arrays(packed=False))

    def _arrays(self, *, packed: bool) -> Iterator[Array]:
        """The arrays that batches are read from; ``packed``: when ids are in memory."""
        store = self.store
        yield from (*store.pointers.values(), store.labels, store.observed, *store.extra.values())
        for spec in store.schema.fields:
            column = store.columns[spec.name]
            if packed and spec.single_id:
                continue
            yield from (array for array in (column.values, column.offsets, column.weights) if array is not None)

    def __len__(self) -> int:
        return self.rows

    def row_numbers(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """Row numbers in the atomic file (counted over all its parts) of rows ``start`` to ``stop`` of this split."""
        stretch = slice(self.start + start, self.start + (self.rows if stop is None else stop))
        if "row" in self.store.extra:
            return self.store.extra["row"][stretch].astype(np.int64)
        return np.arange(stretch.start, stretch.stop)

    @property
    def bytes(self) -> int:
        """Bytes of what belongs to a row of this split: columns, labels, pointers; side tables are left out."""
        return sum((stop - start) * array.strides[0] for array, start, stop in self._parts(0, self.rows))

    def will_need(self, start: int, stop: int) -> None:
        """Have rows ``start`` to ``stop`` read ahead, where they are in files; see :func:`will_need`."""
        for part in self._parts(start, stop):
            will_need(*part)

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Array, int, int]]:
        """The arrays that hold a row's own values, and which part of each belongs to rows ``start`` to ``stop``."""
        store, start, stop = self.store, self.start + start, self.start + stop
        for array in (*store.pointers.values(), store.labels, store.observed, *store.extra.values()):
            yield array, start, stop
        for column in store.columns.values():
            if column.table != "inter":
                continue
            if column.offsets is None:
                yield column.values, start, stop
                continue
            # Row r ends where row r + 1 begins.
            yield column.offsets, start, stop + 1
            first, last = int(column.offsets[start]), int(column.offsets[stop])
            yield column.values, first, last
            if column.weights is not None:
                yield column.weights, first, last

    def pack(self, limit: int = PACKED_BYTES) -> None:
        """Keep a copy of the ids of all rows in memory, row by row, where it fills at most ``limit`` bytes.

        Rows in random order then cost a read or two of memory each, not one of every column: 4,096 of 4 M rows of 23
        fields take a fifth of the time (docs/loader.md). Ids are packed once; :meth:`batch` and :meth:`batches`
        return the same values. Without enough memory, nothing is packed.
        """
        schema = self.store.schema
        shape = self.rows, schema.num_fields
        size = shape[0] * shape[1] * np.dtype(np.int32).itemsize
        # The table's rows must fit in int32.
        if self._packed is not None or not 0 < size <= limit or schema.num_rows >= 2**31:
            return
        try:
            packed = np.empty(shape, np.int32)  # in large pages: numpy asks for them by itself
        except MemoryError:
            return
        for start in range(0, self.rows, PACKED_AT_A_TIME):
            stop = min(start + PACKED_AT_A_TIME, self.rows)
            packed[start:stop] = self._stretch(np.arange(start, stop)).ids
        self._packed = packed
        self._files = MappedFiles(self._arrays(packed=True))

    def batch(self, indices: npt.NDArray[Any]) -> Features:
        """Rows of this split by their number (from 0), as one batch.

        Args:
            indices: (B,) integers below ``rows``.
        """
        found = self._stretch(indices).batch(0, len(indices))
        self._files.check()
        return found

    def batches(self, indices: npt.NDArray[Any], size: int) -> Iterator[Features]:
        """The same in batches of ``size``, the last one maybe smaller.

        Each column is gathered once for many batches, while it is in the processor's cache. At most ``HELD_VALUES``
        gathered values are held at a time (but at least one batch). A batch owns its memory.

        Args:
            indices: (N,) integers below ``rows``.
        """
        # A whole number of batches. Packed rows are taken batch by batch: there is no column to read at once.
        stretch = max(1, HELD_VALUES // (size * max(1, self.store.schema.num_fields))) * size
        if self._packed is not None:
            stretch = size
        for first in range(0, len(indices), stretch):
            gathered = self._stretch(indices[first : first + stretch])
            for start in range(0, len(gathered.rows), size):
                yield gathered.batch(start, min(start + size, len(gathered.rows)))
        self._files.check()  # for what was read last

    def _stretch(self, indices: npt.NDArray[Any]) -> _Stretch:
        self._files.check_often()
        packed = None if self._packed is None else self._packed.take(indices, axis=0)
        return _Stretch(self.store, self.start + indices.astype(np.int64), packed)


class _Stretch:
    """Rows of a store, gathered a column at a time in narrow types: the single ids and numbers, labels and extras.

    Values of multi-valued fields, which have no bound per row, are gathered when a batch is cut.
    """

    def __init__(self, store: Store, rows: npt.NDArray[np.int64], ids: Array | None = None) -> None:
        self.store, self.rows = store, rows
        schema = store.schema
        # Rows of each table that the interactions read; a side table's last row is the absent one.
        self.rows_of = {"inter": rows} | {kind: pointer.take(rows) for kind, pointer in store.pointers.items()}
        self.ids = self._gathered_ids() if ids is None else ids
        # (N fields, rows): a column after another, as the ids.
        self.dense = np.empty((len(schema.dense_fields), len(rows)), np.float32)
        for numbers, position in zip(self.dense, schema.dense_fields, strict=True):
            numbers[:] = self._taken(position)
        self.multi = [
            (position, store.columns[schema.fields[position].name], schema.fields[position].offset)
            for position in schema.multi_fields
        ]
        self.labels, self.observed = _rows_of(store.labels, rows), _rows_of(store.observed, rows)
        # Stored row numbers, unless the store has an array of those of the file, which then replaces them.
        self.extra = {"row": rows} | {name: values.take(rows) for name, values in store.extra.items()}

    def _taken(self, position: int) -> Array:
        column = self.store.columns[self.store.schema.fields[position].name]
        taken: Array = column.values.take(self.rows_of[column.table])
        return taken

    def _gathered_ids(self) -> Array:
        """(N, F) rows of the table, a column after another in memory; -1 in fields without a single id."""
        schema = self.store.schema
        dtype = np.dtype(np.int32 if schema.num_rows < 2**31 else np.int64)
        # (F, N): a field's ids are written to contiguous memory; batches are cut from the transpose.
        columns = np.empty((schema.num_fields, len(self.rows)), dtype)
        for position, (spec, ids) in enumerate(zip(schema.fields, columns, strict=True)):
            # Local ids plus the field's offset: rows of the joint table.
            if position in schema.id_fields:
                np.add(self._taken(position), dtype.type(spec.offset), out=ids, dtype=dtype)
            else:
                ids.fill(-1)
        return columns.T

    def batch(self, start: int, stop: int) -> Features:
        """Rows ``start`` to ``stop`` of the stretch, widened."""
        part = slice(start, stop)
        return Features(
            ids=torch.from_numpy(_copied(self.ids[part], np.int64)),
            multi={
                position: _ragged(column, self.rows_of[column.table][part], offset)
                for position, column, offset in self.multi
            },
            dense=torch.from_numpy(_copied(self.dense.T[part], np.float32)),
            labels=torch.from_numpy(self.labels[part].astype(np.float32)),
            observed=torch.from_numpy(self.observed[part].astype(np.bool_)),
            sample_weight=self._extra("weight", part, np.float32),
            domain=self._extra("domain", part, np.int64),
            group=self._extra("group", part, np.int64),
            row=self._extra("row", part, np.int64),
        )

    def _extra(self, name: str, part: slice, dtype: type) -> Tensor | None:
        return torch.from_numpy(self.extra[name][part].astype(dtype)) if name in self.extra else None


def _copied(values: Array, dtype: type) -> Array:
    """``values`` as contiguous ``dtype``; of a transposed array in a third of the time that ``astype`` takes."""
    found: Array = np.empty(values.shape, dtype)
    found[:] = values
    return found


def _rows_of(array: Array, rows: npt.NDArray[np.int64]) -> Array:
    """``array[rows]``; faster, and without copying a broadcast array (``broadcast_to``)."""
    if len(array) and array.strides[0] == 0:
        return np.broadcast_to(array[0], (len(rows), *array.shape[1:]))
    return array.take(rows, axis=0)


def _ragged(column: Column, rows: npt.NDArray[Any], offset: int) -> MultiValued:
    assert column.offsets is not None
    # Widened before 1 is added: a pointer may be the largest number of its narrow type.
    starts = column.offsets[rows].astype(np.int64)
    lengths = column.offsets[rows.astype(np.int64) + 1].astype(np.int64) - starts
    positions = ragged_positions(starts, lengths)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    weights = None if column.weights is None else torch.from_numpy(column.weights[positions].astype(np.float32))
    values = np.add(column.values[positions], offset, dtype=np.int64)
    return MultiValued(torch.from_numpy(values), torch.from_numpy(offsets), weights)
