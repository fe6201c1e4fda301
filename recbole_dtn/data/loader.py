"""Batches of a split, in an order that is a function of (seed, epoch). Measured in docs/loader.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from recbole_dtn.data.ahead import ahead
from recbole_dtn.data.features import Features
from recbole_dtn.data.order import BlockOrder, Order, shuffled
from recbole_dtn.data.store import PACKED_BYTES, Split

__all__ = ["BatchLoader", "machine_memory", "rows_in_memory"]

STRETCH = 1 << 17
"""Maximum number of rows that are ordered and gathered at a time (a stretch). The first stretch of an epoch is one
batch, so that the first step starts at once; each following stretch is twice as long. 23 columns of 2^17 rows take 60
ms."""


class BatchLoader:
    """An iterable of :class:`Features` over one process's share of a split.

    Columns are gathered up to ``STRETCH`` rows at a time and batches are cut from that; no Python runs per row. Memory
    per row: the permutation of small data (:mod:`recbole_dtn.data.order`), and the packed ids (:meth:`Split.pack`) if
    all rows are shuffled as a whole. Packed ids take at most ``PACKED_BYTES`` per process and an eighth of the
    machine's memory over all processes. A shuffled epoch visits a permutation of all rows drawn from (``seed``, epoch),
    of which rank r takes every ``world_size``-th from r on. Unshuffled, rank r takes the r-th of ``world_size``
    stretches in the order of the rows, so that every row is seen exactly once over all ranks and none is repeated.

    Args:
        split: the rows. batch_size: rows per batch and process; the last one may be smaller.
        shuffle: whether to permute. seed: of the permutation.
        rank, world_size: this process among how many.
        drop_uneven: leave out the ``rows % world_size`` last rows of the epoch's order, so that every rank has as many
            rows and batches; with ``shuffle`` this always holds (other rows are left out in each epoch).
        shuffle_rows: maximum number of rows that are shuffled as a whole. A larger split is shuffled in blocks, with
            this many rows in memory at a time (:class:`BlockOrder`). None: all rows are shuffled as a whole.
        prefetch: batches to cut ahead in a thread; 0 cuts them when they are asked for.
        pin: put batches into page-locked memory, so that a copy to a GPU can overlap with work.
        least: fewest rows of a batch; an epoch's last rows are left out where they are fewer. With ``shuffle`` alone.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_uneven: bool = False,
        shuffle_rows: int | None = None,
        prefetch: int = 0,
        pin: bool = False,
        least: int = 1,
    ) -> None:
        if not 0 <= rank < world_size or batch_size < 1:
            raise ValueError(f"rank {rank} of {world_size}, batch size {batch_size}")
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.even = drop_uneven or shuffle
        self.shuffle_rows = shuffle_rows
        self.prefetch = prefetch
        self.pin = pin
        self.least = least if shuffle else 1
        self.epoch = 0
        self.skipped = 0

    def set_epoch(self, epoch: int, skipped: int = 0) -> None:
        """Choose the order of the epoch that the next iterations visit.

        Args:
            epoch: from 0. skipped: batches at its start that iterations leave out, until this is called again.
        """
        self.epoch, self.skipped = epoch, skipped

    @property
    def rows(self) -> int:
        """Rows that this process sees in an epoch."""
        total, ranks = self.split.rows, self.world_size
        rows = total // ranks + (0 if self.even else int(self.rank < total % ranks))
        last = rows % self.batch_size
        return rows - last if last < self.least else rows

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def order(self) -> Order:
        """The row that this process visits at each place of the epoch, from 0 to ``rows`` (exclusive)."""
        total, rank, ranks = self.split.rows, self.rank, self.world_size
        if self.shuffle:
            visited = self._shuffled()
            # All ranks draw the same permutation and take turns in it, so that no row is seen by two of them. Left-over
            # places at the end of the permutation are left out, other rows in each epoch.
            return lambda places: visited(rank + ranks * places)
        if self.even:
            start = rank * self.rows
        else:
            # The first ``left`` ranks have one row more.
            each, left = divmod(total, ranks)
            start = rank * each + min(rank, left)
        return lambda places: start + places

    @property
    def in_blocks(self) -> bool:
        """Whether there are too many rows to shuffle them as a whole."""
        return self.shuffle_rows is not None and self.split.rows > self.shuffle_rows

    def _shuffled(self) -> Order:
        key, total = (self.seed, self.epoch), self.split.rows
        if not self.in_blocks:
            return shuffled(total, *key)
        assert self.shuffle_rows is not None
        return BlockOrder(total, self.shuffle_rows, key, will_need=self.split.will_need)

    def _batches(self) -> Iterator[Features]:
        if self.shuffle and not self.in_blocks:
            # Only whole shuffles read rows at random from all of the columns.
            self.split.pack(min(PACKED_BYTES, machine_memory() // (8 * self.world_size)))
        order, size, batches = self.order(), self.batch_size, 1
        first = self.skipped * size
        while first < self.rows:
            stop = min(first + batches * size, self.rows)
            # The order is worked out for many batches at once; each call doubles the number, from one.
            for batch in self.split.batches(order(np.arange(first, stop)), size):
                yield batch.pin_memory() if self.pin else batch
            first, batches = stop, min(2 * batches, max(1, STRETCH // size))

    def __iter__(self) -> Iterator[Features]:
        return ahead(self._batches(), self.prefetch) if self.prefetch else self._batches()


def rows_in_memory(split: Split) -> int:
    """Rows of a split whose columns fill at most half of the machine's memory: a power of two, at least 1,024.

    Rounded so that machines of about the same memory shuffle alike.
    """
    # Rounded up, so that the rows fit.
    each = max(1, -(-split.bytes // max(1, split.rows)))
    return 1 << max(10, (machine_memory() // (2 * each)).bit_length() - 1)


def machine_memory(
    limits: tuple[str, ...] = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
) -> int:
    """Bytes of memory that this process can have: the machine's, or what its container is limited to."""
    found = [psutil.virtual_memory().total]
    for path in map(Path, limits):
        text = path.read_text().strip() if path.is_file() else ""
        # Without a limit, version 2 of cgroups says "max" and version 1 a number beyond any memory.
        if text.isdigit():
            found.append(int(text))
    return min(found)
