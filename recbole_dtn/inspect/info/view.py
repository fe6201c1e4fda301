"""Read an encoded data set in blocks: a column of a split at a time, rows of side tables weighted by interactions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.store import Column, ragged_positions

if TYPE_CHECKING:
    from recbole_dtn.preprocess.prepare import PreparedData

__all__ = ["BLOCK_ROWS", "BLOCK_VALUES", "StoreView", "Stretch", "ragged", "ragged_of", "value_cuts"]

# Rows and list values of a block.
BLOCK_ROWS = 1 << 18
BLOCK_VALUES = 1 << 21
Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Stretch = tuple[int, int, Counts | None]
"""First row, last row + 1, and how often each row counts (None: once)."""


class StoreView:
    """Splits, labels and columns of prepared data.

    Args:
        prepared: the data set.
    """

    def __init__(self, prepared: PreparedData) -> None:
        self.bounds = {name: (split.start, split.start + split.rows) for name, split in prepared.splits.items()}
        self.store = next(iter(prepared.splits.values())).store
        self.schema = prepared.schema

    @property
    def rows(self) -> dict[str, int]:
        """Rows by split."""
        return {name: stop - start for name, (start, stop) in self.bounds.items()}

    def blocks(self, split: str, size: int | None = None) -> Iterator[tuple[int, int]]:
        """Bounds of the blocks of a split's interactions, of ``BLOCK_ROWS`` where no size is given."""
        size = size or BLOCK_ROWS
        start, stop = self.bounds[split]
        for at in range(start, stop, size):
            yield at, min(at + size, stop)

    def labels(self, start: int, stop: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Labels (n, T), 0 where not observed, and what is observed (n, T)."""
        found = np.asarray(self.store.labels[start:stop]).astype(np.float32)
        seen = np.asarray(self.store.observed[start:stop]).astype(np.bool_)
        return np.where(seen, found, np.float32(0)), seen

    @cached_property
    def side_counts(self) -> dict[tuple[str, str], Counts]:
        """By side table and split, the interactions of each of its rows."""
        found = {}
        for kind, pointer in self.store.pointers.items():
            size = self._side_rows(kind)
            for split in self.bounds:
                counts = np.zeros(size, np.int64)
                # A count as long as the side table is added per block: blocks are no shorter than it.
                for start, stop in self.blocks(split, max(BLOCK_ROWS, size)):
                    counts += np.bincount(pointer[start:stop], minlength=size)
                found[kind, split] = counts
        return found

    def _side_rows(self, kind: str) -> int:
        column = next(column for column in self.store.columns.values() if column.table == kind)
        return len(column.values) if column.offsets is None else len(column.offsets) - 1

    def table_rows(self, kind: str) -> int:
        """Stored rows of a table: the interactions, or a side table's rows with the absent one."""
        return len(self.store.labels) if kind == "inter" else self._side_rows(kind)

    def stretches(self, column: Column, split: str) -> Iterator[Stretch]:
        """Rows of the column's table that a split reads, in blocks of bounded size."""
        start, stop = self.bounds[split] if column.table == "inter" else (0, self._side_rows(column.table))
        counts = None if column.table == "inter" else self.side_counts[column.table, split]
        for first, last in value_cuts(column, start, stop):
            yield first, last, None if counts is None else counts[first:last]

    def pointed(self, kind: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows of a table that interactions read."""
        return rows if kind == "inter" else np.asarray(self.store.pointers[kind][rows]).astype(np.int64)

    def labels_of(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """As :meth:`labels`, of any rows."""
        found, seen = self.store.labels[rows].astype(np.float32), self.store.observed[rows].astype(np.bool_)
        return np.where(seen, found, np.float32(0)), seen

    def sample(self, split: str, limit: int, stretch: int = 1) -> npt.NDArray[np.int64]:
        """Up to ``limit`` rows of a split, evenly spaced; all of them where they are no more.

        Args:
            split: its name. limit: most rows. stretch: neighbouring rows that are taken together, which reads fewer
                pages of a column on disk.
        """
        start, stop = self.bounds[split]
        if stop - start <= limit:
            return np.arange(start, stop, dtype=np.int64)
        count = limit // stretch
        # The k-th stretch starts at floor(k rows / count); rows / count > stretch, so that none reaches the next.
        firsts = start + np.arange(count, dtype=np.int64) * (stop - start) // count
        return (firsts[:, None] + np.arange(stretch)).ravel()


def value_cuts(column: Column, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks of at most ``BLOCK_ROWS`` rows and ``BLOCK_VALUES`` values (one row at least)."""
    while start < stop:
        last = min(start + BLOCK_ROWS, stop)
        if column.offsets is not None and int(column.offsets[last]) - int(column.offsets[start]) > BLOCK_VALUES:
            # The last row that ends within the limit; offsets ascend.
            limit = int(column.offsets[start]) + BLOCK_VALUES
            last = max(start + 1, start + int(np.searchsorted(column.offsets[start : last + 1], limit, "right")) - 1)
        yield start, last
        start = last


def ragged(column: Column, start: int, stop: int) -> tuple[Array, Counts]:
    """Values of the lists of neighbouring rows end to end, and the lengths of the lists."""
    assert column.offsets is not None
    offsets = np.asarray(column.offsets[start : stop + 1]).astype(np.int64)
    return np.asarray(column.values[offsets[0] : offsets[-1]]), np.diff(offsets)


def ragged_of(column: Column, rows: npt.NDArray[np.int64]) -> tuple[Array, Counts]:
    """Values and lengths of the lists of any rows."""
    assert column.offsets is not None
    starts = np.asarray(column.offsets[rows]).astype(np.int64)
    lengths = np.asarray(column.offsets[rows + 1]).astype(np.int64) - starts
    return np.asarray(column.values[ragged_positions(starts, lengths)]), lengths
