"""The searches of one pair of AliExpress files, and the training rows held out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.scratch import ScratchWriter
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.lines import LINE
from recbole_dtn.preprocess.part_files import TextTable
from recbole_dtn.preprocess.rejects import Tally

__all__ = ["HeldOut", "Searches"]

# Rows whose owners are read at a time.
READ_ROWS = 1 << 18


class Searches:
    """The search ids of a user file, numbered; in memory are the ids and 16 bytes for each.

    Attributes:
        known: whether a search has a row, by its number. refused: first cells of the rows that are rejected.
    """

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self._dtype = pl.Categorical(pl.Categories.random())
        # Polars drops the texts of a Categories when its last column is freed: keep an empty one alive.
        self._alive = pl.Series([], dtype=self._dtype)
        self.known: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._hashes: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)

    def codes(self, ids: pl.Series) -> npt.NDArray[np.int32]:
        """Numbers of search ids (text)."""
        found = ids.cast(self._dtype).to_physical().to_numpy().astype(np.int32)
        size = int(found.max()) + 1 if len(found) else 0
        if size > len(self.known):
            # At least doubled, so that growing copies each element a bounded number of times on average.
            added = max(size, 2 * len(self.known)) - len(self.known)
            self.known = np.concatenate([self.known, np.zeros(added, np.bool_)])
            self._hashes = np.concatenate([self._hashes, np.zeros(added, np.uint64)])
        return found

    def add(self, frame: pl.DataFrame, search: str, tally: Tally, file: str) -> pl.DataFrame:
        """Record rows of the user file; returns those of searches not seen before.

        A repeated row is dropped; a second row of a search with other values is rejected.
        """
        codes = self.codes(frame[search])
        # Rows are compared by 64 bits: the values of all searches are not kept.
        hashes = frame.drop(LINE).hash_rows().to_numpy()
        _, firsts = np.unique(codes, return_index=True)
        new = np.zeros(len(codes), np.bool_)
        # The first row of a search in this block, if no block before had one.
        new[firsts] = ~self.known[codes[firsts]]
        self.known[codes[new]] = True
        self._hashes[codes[new]] = hashes[new]
        if new.all():
            return frame
        same = ~new & (self._hashes[codes] == hashes)
        tally.dropped["the same row again"] += int(same.sum())
        other = frame.filter(pl.Series(~new & ~same))
        shown = other.select(pl.concat_str(pl.exclude(LINE), separator=",")).to_series().to_list()
        tally.reject(file, other[LINE].to_list(), "its search is there already, with other values", shown)
        return frame.filter(pl.Series(new))

    def refuse(self, rows: Sequence[str | bytes]) -> None:
        """Record rejected rows of the user file (texts with commas)."""
        for row in rows:
            text = row if isinstance(row, str) else row.decode("utf-8", errors="replace")
            self.refused.add(text.partition(",")[0])


class HeldOut:
    """Moves the last rows of a training file to the validation file, a search as a whole.

    A search belongs where its first row does, so that none straddles the cut, whether or not its rows are contiguous.

    Args:
        train: the file, to which the rows of one country are about to be added. scratch: an empty folder.
    """

    def __init__(self, train: TextTable, scratch: Path) -> None:
        self.train, self.scratch = train, scratch
        self.start = train.rows
        self._codes = ScratchWriter(scratch / "codes", np.int32)
        # By number of the search, the row that it begins with; -1 where it has none yet.
        self._first: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        # Per block its first row and where that begins in the file: the cut is found without reading from the start.
        self._offsets: list[tuple[int, int]] = []

    def add(self, frame: pl.DataFrame, codes: npt.NDArray[np.int32]) -> None:
        """Write rows to the training file, given the numbers of their searches."""
        if not frame.height:
            return
        row = self.train.rows - self.start
        self._offsets.append((row, self.train.file.tell()))
        distinct, places = np.unique(codes, return_index=True)
        if distinct[-1] >= len(self._first):
            added = max(int(distinct[-1]) + 1, 2 * len(self._first)) - len(self._first)
            self._first = np.concatenate([self._first, np.full(added, -1)])
        # Searches that begin in this block, at their first place in it.
        new = self._first[distinct] < 0
        self._first[distinct[new]] = row + places[new]
        self._codes.append(codes)
        self.train.add(frame)

    def move(self, valid: TextTable, share: float) -> int:
        """Move the last ``share`` of the rows to ``valid``; returns how many.

        Raises:
            DataError: when there is only one search.
        """
        codes = self._codes.close()
        cut = self._cut(codes.size, share)
        start, offset = next((row, at) for row, at in reversed(self._offsets) if row <= cut)
        file = self.train.file
        file.seek(offset)
        # From the start of the block on, line by line.
        for _ in range(cut - start):
            file.readline()
        end = file.tell()
        moved, staying = 0, self.scratch / "staying"
        # Rows behind the cut whose search begins before it stay: they are put aside, and appended when the rest is cut
        # off.
        with staying.open("w+b") as stay:
            for first in range(cut, codes.size, READ_ROWS):
                owners = self._first[codes.read(first, min(first + READ_ROWS, codes.size))]
                leaves = (owners >= cut).tolist()
                moved += sum(leaves)
                for leaf in leaves:
                    (valid.file if leaf else stay).write(file.readline())
            file.seek(end)
            file.truncate()
            stay.seek(0)
            while data := stay.read(1 << 20):
                file.write(data)
        staying.unlink()
        codes.remove()
        valid.rows += moved
        self.train.rows -= moved
        return moved

    def _cut(self, rows: int, share: float) -> int:
        """The first row that is held out: of the rows with which a search begins, the nearest to the wanted share."""
        # Row 0 is no cut: training would be empty.
        starts = np.sort(self._first[self._first > 0])
        if not len(starts):
            raise DataError("the training rows are of one search, of which none can be held out for validation")
        target = rows - max(round(rows * share), 1)
        return int(starts[np.argmin(np.abs(starts - target))])
