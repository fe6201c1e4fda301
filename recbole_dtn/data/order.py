"""The order of an epoch: a permutation of all rows as a function of (seed, epoch), evaluated a stretch at a time.

Rows that fit in memory are permuted as a whole (:func:`shuffled`); more are read a block of contiguous rows at a time
and mixed with many other blocks (:class:`BlockOrder`), since a page of a disk per value is too slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BlockOrder", "Order", "keyed_permutation", "shuffled"]

Rows = npt.NDArray[np.int64]
Order = Callable[[Rows], npt.NDArray[Any]]
"""From places in an epoch to the rows that are visited there."""

# 16 MiB of int32.
DRAWN_ROWS = 1 << 22
# Rounds of the network: three for each half.
ROUNDS = 6
WINDOW_BLOCKS = 256
"""Blocks that are mixed at a time by a block shuffle."""


def shuffled(rows: int, *key: int) -> Order:
    """A permutation of ``rows`` rows, drawn by ``key`` (seed, epoch).

    Up to ``DRAWN_ROWS`` rows it is numpy's, kept as four bytes a row. Above, nothing is kept: it is a keyed bijection,
    worked out for the places asked for.
    """
    if rows > DRAWN_ROWS:
        return keyed_permutation(rows, *key)
    visited = np.arange(rows, dtype=np.int32)
    np.random.default_rng(key).shuffle(visited)
    return visited.__getitem__


def keyed_permutation(rows: int, *key: int) -> Order:
    """A pseudo-random bijection of ``0 .. rows - 1`` that takes no memory per row.

    A Feistel network over the smallest power of two that holds all rows. It is applied again to a result beyond the
    last row until the result is a row (cycle walking: Black and Rogaway, CT-RSA 2002), less than twice on average.

    >>> order = keyed_permutation(10, 0, 0)
    >>> sorted(order(np.arange(10)).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    # At least two bits: each half of the network needs one.
    bits = max(2, int(rows - 1).bit_length())
    keys = np.random.default_rng(key).integers(0, 2**32, (ROUNDS, 2), dtype=np.uint32)

    def order(places: Rows) -> Rows:
        found = _feistel(places.astype(np.uint64), bits, keys)
        outside = np.flatnonzero(found >= rows)
        # Each step stays on the cycle of its place, which is a row, so that it ends. Above two rows, more than half of
        # the numbers are rows.
        while len(outside):
            found[outside] = _feistel(found[outside], bits, keys)
            outside = outside[found[outside] >= rows]
        return found.astype(np.int64)

    return order


class BlockOrder:
    """A permutation that visits rows block by block, so that consecutive rows are in few ranges of the files.

    The rows are shifted cyclically by a random offset and cut into blocks of contiguous rows. The blocks are put into a
    random order. ``WINDOW_BLOCKS`` of them at a time are a window, whose rows are permuted as a whole. While one window
    is visited the next is read, so that ``held`` rows, two windows, are in memory. The last window also has the rows
    that fill no block. The numbers of blocks of two windows differ by at most one.

    Args:
        rows: of the split. held: rows that memory may hold; a block is ``held / 512`` rows.
        key: seed and epoch. will_need: called with the row ranges (start, stop) of the next window.

    >>> order = BlockOrder(2_000, 1_024, (0, 0))
    >>> sorted(order(np.arange(2_000)).tolist()) == list(range(2_000))
    True
    """

    def __init__(
        self, rows: int, held: int, key: tuple[int, ...], will_need: Callable[[int, int], None] | None = None
    ) -> None:
        self.rows, self.key, self.will_need = rows, key, will_need
        self.block = max(1, held // (2 * WINDOW_BLOCKS))
        count = rows // self.block
        windows = max(1, -(-count // WINDOW_BLOCKS))
        # Every epoch cuts the blocks at other rows. The key ends with a number that no window has (they have 1 to
        # ``windows``), and not with 0: numpy pads keys with zeros, so that (*key, 0) draws the same as key.
        self.turn = int(np.random.default_rng([*key, windows + 1]).integers(rows))
        # In the order of their visit; last what is left over, maybe nothing.
        self.blocks = np.append(shuffled(count, *key)(np.arange(count)), count)
        # Windows differ by one block at most; a short last window would be mixed with few blocks.
        self.first_blocks = np.arange(windows) * count // windows
        # The permutation of one window: an epoch visits places in ascending order.
        self._drawn: tuple[int, Order] = (-1, lambda places: places)
        self._told = 0

    def __call__(self, places: Rows) -> Rows:
        """Rows visited at ``places``."""
        if self.will_need is not None and len(places):
            # Of an epoch that begins in its middle, the windows before are not read.
            window = int(np.searchsorted(self.first_blocks, int(places.min()) // self.block, side="right")) - 1
            self._told = max(self._told, int(self.first_blocks[window]))
            # All blocks up to one window ahead, each once, in the order of their visit.
            self._tell(int(places.max()) // self.block + WINDOW_BLOCKS + 1)
        windows = np.searchsorted(self.first_blocks, places // self.block, side="right") - 1
        visited = np.empty(len(places), np.int64)
        for window in np.unique(windows):
            here = windows == window
            visited[here] = self._visited(int(window), places[here])
        return visited

    def _visited(self, window: int, places: Rows) -> Rows:
        """Rows at positions of one window: permuted within it, then mapped to the positions of its blocks."""
        # Places where the windows begin. The last window also has the rows that fill no block.
        ends = [*self.first_blocks * self.block, self.rows]
        if self._drawn[0] != window:
            self._drawn = window, shuffled(int(ends[window + 1] - ends[window]), *self.key, window + 1)
        blocks, within = np.divmod(ends[window] + self._drawn[1](places - ends[window]), self.block)
        found: Rows = (self.blocks[blocks] * self.block + within + self.turn) % self.rows
        return found

    def _tell(self, until: int) -> None:
        """Call ``will_need`` for the blocks before the ``until``-th in visiting order."""
        assert self.will_need is not None
        for block in self.blocks[self._told : until].tolist():
            first, last = block * self.block, min((block + 1) * self.block, self.rows)
            start, stop = first + self.turn, last + self.turn
            # A turned block may wrap around the last row: two stretches of the file.
            for low, high in ((start, min(stop, self.rows)), (max(start - self.rows, 0), stop - self.rows)):
                if low < high:
                    self.will_need(low, high)
        self._told = max(self._told, until)


def _feistel(values: npt.NDArray[np.uint64], bits: int, keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """A bijection of the numbers of ``bits`` bits; the two halves may differ by one bit in length."""
    low = bits // 2
    widths = (bits - low, low)
    # Halves of at most 32 bits each: up to 2^64 rows.
    left = (values >> np.uint64(low)).astype(np.uint32)
    right = (values & np.uint64((1 << low) - 1)).astype(np.uint32)
    # `left` has widths[0] bits and `right` widths[1]; each round changes one of them by the other.
    for number, (first, second) in enumerate(keys):
        if number % 2:
            right ^= _mixed(left, first, second) & np.uint32((1 << widths[1]) - 1)
        else:
            left ^= _mixed(right, first, second) & np.uint32((1 << widths[0]) - 1)
    return (left.astype(np.uint64) << np.uint64(low)) | right


def _mixed(values: npt.NDArray[np.uint32], first: np.uint32, second: np.uint32) -> npt.NDArray[np.uint32]:
    """A 32-bit hash under a key: the finaliser of MurmurHash3, with key material added before and between."""
    mixed = values + first
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed += second
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed
