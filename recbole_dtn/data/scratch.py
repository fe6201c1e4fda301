"""Numbers in scratch files, written and read a block at a time, so that they need no memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ScratchArray", "ScratchWriter"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ScratchArray:
    """``size`` numbers of one type in a file; ``offset`` is subtracted when they are read, and -1 stays -1."""

    path: Path
    dtype: np.dtype[Any]
    size: int
    offset: int = 0

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """The numbers from ``start`` to ``stop`` (None: to the end)."""
        count = (self.size if stop is None else stop) - start
        if count == 0:
            return np.empty(0, self.dtype)
        found = np.fromfile(self.path, self.dtype, count, offset=start * self.dtype.itemsize)
        # Stored -1 would become -1 - offset; all other numbers are at least ``offset``.
        return np.maximum(found - self.offset, -1) if self.offset else found

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


class ScratchWriter:
    """Appends numbers to a new file."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self.path, self.dtype, self.size = path, np.dtype(dtype), 0
        self._file = path.open("wb")

    def append(self, values: Array) -> None:
        """Add numbers, converted to the file's type."""
        self._file.write(np.ascontiguousarray(values, self.dtype).data)
        self.size += len(values)

    def close(self) -> ScratchArray:
        """What was written, for reading."""
        self._file.close()
        return ScratchArray(self.path, self.dtype, self.size)
