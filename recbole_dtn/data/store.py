"""The columnar cache as it is read: memory-mapped narrow columns, cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.schema import DataSchema

__all__ = ["Column", "Split", "Store", "load_array", "ragged_positions"]

Array = npt.NDArray[Any]


def load_array(path: Path) -> Array:
    """A memory-mapped ``.npy`` file as a plain array (an empty one cannot be mapped)."""
    array = np.load(path, mmap_mode="r", allow_pickle=False) if path.stat().st_size > 128 else np.load(path)
    return np.asarray(array).view(np.ndarray)


def ragged_positions(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions of ragged rows laid end to end.

    >>> ragged_positions(np.array([5, 0, 9]), np.array([2, 0, 1])).tolist()
    [5, 6, 9]
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    positions: npt.NDArray[np.int64] = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return positions


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

    def __len__(self) -> int:
        return self.rows

    def row_numbers(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """Rows of the atomic file (over all its parts) that rows ``start`` to ``stop`` of this split are."""
        stretch = slice(self.start + start, self.start + (self.rows if stop is None else stop))
        if "row" in self.store.extra:
            return self.store.extra["row"][stretch].astype(np.int64)
        return np.arange(stretch.start, stretch.stop)

    def batch(self, indices: npt.NDArray[Any]) -> Features:
        """Rows of this split by their number (from 0), as one batch.

        Args:
            indices: (B,) integers below ``rows``.
        """
        store = self.store
        rows = self.start + indices.astype(np.int64)
        rows_of = {"inter": rows} | {kind: pointer[rows] for kind, pointer in store.pointers.items()}
        schema = store.schema
        ids = np.full((schema.num_fields, len(rows)), -1, np.int64)
        dense = np.empty((len(rows), len(schema.dense_fields)), np.float32)
        multi: dict[int, MultiValued] = {}
        taken = 0
        for position, spec in enumerate(schema.fields):
            column = store.columns[spec.name]
            chosen = rows_of[column.table]
            if column.offsets is not None:
                multi[position] = _ragged(column, chosen, spec.offset)
            elif spec.continuous:
                dense[:, taken] = column.values[chosen]
                taken += 1
            else:
                np.add(column.values[chosen], spec.offset, out=ids[position], dtype=np.int64)
        return Features(
            ids=torch.from_numpy(np.ascontiguousarray(ids.T)),
            multi=multi,
            dense=torch.from_numpy(dense),
            labels=torch.from_numpy(store.labels[rows].astype(np.float32)),
            observed=torch.from_numpy(store.observed[rows].astype(np.bool_)),
            sample_weight=self._extra("weight", rows, np.float32),
            domain=self._extra("domain", rows, np.int64),
            group=self._extra("group", rows, np.int64),
            row=self._extra("row", rows, np.int64) if "row" in store.extra else torch.from_numpy(rows),
        )

    def _extra(self, name: str, rows: npt.NDArray[np.int64], dtype: type) -> Tensor | None:
        if name not in self.store.extra:
            return None
        return torch.from_numpy(self.store.extra[name][rows].astype(dtype))


def _ragged(column: Column, rows: npt.NDArray[Any], offset: int) -> MultiValued:
    assert column.offsets is not None
    starts = column.offsets[rows].astype(np.int64)
    lengths = column.offsets[rows.astype(np.int64) + 1].astype(np.int64) - starts
    positions = ragged_positions(starts, lengths)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    weights = None if column.weights is None else torch.from_numpy(column.weights[positions].astype(np.float32))
    values = np.add(column.values[positions], offset, dtype=np.int64)
    return MultiValued(torch.from_numpy(values), torch.from_numpy(offsets), weights)
