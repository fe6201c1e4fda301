"""The order in which rows are stored, and arrays written in that order without holding them in memory.

The interactions are stored in the order training, validation, test, each in the order of the files, so that a split is
a contiguous stretch of every array. A table is read in the order of its file, a block of rows at a time, and the rows
of a block that belong to one split are appended to that split's stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.scratch import ScratchArray, ScratchWriter

__all__ = ["ArrayWriter", "RowBlock", "SplitLayout", "narrowest"]

BLOCK_ROWS = 1 << 19
Array = npt.NDArray[Any]
Chosen = slice | npt.NDArray[np.int32]


def narrowest(largest: int) -> npt.DTypeLike:
    """The narrowest signed integer type that holds 0 to ``largest``.

    >>> narrowest(127), narrowest(128), narrowest(40_000)
    (<class 'numpy.int8'>, <class 'numpy.int16'>, <class 'numpy.int32'>)
    """
    return next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)


@dataclass(frozen=True)
class RowBlock:
    """Rows ``start`` to ``stop`` of a table; ``pieces``: per stretch, the rows it gets, counted from ``start``."""

    start: int
    stop: int
    pieces: tuple[tuple[int, Chosen], ...]

    def __len__(self) -> int:
        return self.stop - self.start

    def cut(self, first: int, last: int) -> RowBlock:
        """Its rows ``first`` to ``last``, counted from ``start``."""
        pieces: list[tuple[int, Chosen]] = []
        for part, chosen in self.pieces:
            if isinstance(chosen, slice):
                begin, end = max(chosen.start, first), min(chosen.stop, last)
                if begin < end:
                    pieces.append((part, slice(begin - first, end - first)))
            else:
                # ``chosen`` ascends, so that the rows of a range are a slice of it.
                begin, end = np.searchsorted(chosen, [first, last]).tolist()
                if begin < end:
                    pieces.append((part, chosen[begin:end] - np.int32(first)))
        return RowBlock(self.start + first, self.start + last, tuple(pieces))


@dataclass(frozen=True)
class SplitLayout:
    """The stretches that a table's rows are stored in.

    Attributes:
        ends: where the stretches begin, and the number of rows.
        order: for each block the rows of each stretch, counted from the block's start; None where rows are stored in
            the order of the file. counts: for each block, how many rows each stretch has.
    """

    ends: tuple[int, ...]
    order: ScratchArray | None = None
    counts: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def from_parts(cls, parts: npt.NDArray[np.uint8], count: int, path: Path) -> SplitLayout:
        """From the stretch of each row; ``path``: of a scratch file."""
        # ends[s] is the first stored row of stretch s, and the last element the number of rows.
        totals = np.bincount(parts, minlength=count)
        ends = (0, *np.cumsum(totals).tolist())
        if bool((parts[1:] >= parts[:-1]).all()):  # the files already have the order of the splits
            return cls(ends)
        # Scratch file: block by block, the rows of split 0, then 1, then 2, each ascending and counted from the
        # start of the block. int32 is enough: a block has at most BLOCK_ROWS rows.
        writer, counts = ScratchWriter(path, np.int32), []
        for start in range(0, len(parts), BLOCK_ROWS):
            block = parts[start : start + BLOCK_ROWS]
            chosen = [np.flatnonzero(block == part) for part in range(count)]
            counts.append(tuple(len(rows) for rows in chosen))
            for rows in chosen:
                writer.append(rows)
        return cls(ends, writer.close(), tuple(counts))

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.ends[-1]

    def stretches(self) -> list[tuple[int, int]]:
        """Start and stop of each."""
        return list(zip(self.ends[:-1], self.ends[1:], strict=True))

    def blocks(self) -> Iterator[RowBlock]:
        """The rows in the order of the file."""
        for index, start in enumerate(range(0, self.rows, BLOCK_ROWS)):
            stop = min(start + BLOCK_ROWS, self.rows)
            if self.order is None:
                # The stretches relative to the block's start may lie before or behind it; `cut` keeps what is inside.
                every = tuple((part, slice(a - start, b - start)) for part, (a, b) in enumerate(self.stretches()))
                yield RowBlock(start, stop, every).cut(0, stop - start)
                continue
            rows, at, pieces = self.order.read(start, stop), 0, []
            for part, count in enumerate(self.counts[index]):
                if count:
                    pieces.append((part, rows[at : at + count]))
                at += count
            yield RowBlock(start, stop, tuple(pieces))


class ArrayWriter:
    """A new ``.npy`` file, filled stretch by stretch with plain writes.

    Args:
        path: of the file. dtype, shape: of the array. starts: the first row of each stretch.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...], starts: Sequence[int]) -> None:
        self.dtype = np.dtype(dtype)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            begin, width = file.tell(), self.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            file.truncate(begin + width * shape[0])  # the full size at once; unwritten pages take no disk
        # One open file per stretch, each at its own position: appending needs no seek and no memory map.
        self._files = [path.open("r+b") for _ in starts]
        for stretch, start in zip(self._files, starts, strict=True):
            stretch.seek(begin + start * width)

    def write(self, part: int, values: Array) -> None:
        """Append rows to a stretch."""
        # A view of the bytes: nothing is copied where the values have the type already.
        self._files[part].write(np.ascontiguousarray(values, self.dtype).data)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
