"""Which row is for training (0), validation (1) or test (2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["cut", "random_split", "time_split", "user_time_split"]

Parts = npt.NDArray[np.uint8]


def cut(rows: int, ratio: Sequence[float]) -> tuple[int, int]:
    """Where to cut ``rows`` in order: the ends of training and validation. Training takes the remainders.

    >>> cut(10, (0.8, 0.1, 0.1)), cut(9, (8, 1, 1))
    ((8, 9), (9, 9))
    """
    total = sum(ratio)
    valid, test = (int(rows * share / total + 1e-9) for share in ratio[1:])
    return rows - valid - test, rows - test


def _cut_order(order: npt.NDArray[Any], ratio: Sequence[float]) -> Parts:
    first, second = cut(len(order), ratio)
    parts = np.zeros(len(order), np.uint8)
    parts[order[first:second]] = 1
    parts[order[second:]] = 2
    return parts


def random_split(rows: int, ratio: Sequence[float], seed: int) -> Parts:
    """The split of each row; ``seed`` alone decides.

    >>> random_split(5, (0.6, 0.2, 0.2), 0).tolist()
    [1, 2, 0, 0, 0]
    """
    order = np.arange(rows, dtype=np.int32 if rows < 2**31 else np.int64)
    np.random.default_rng(seed).shuffle(order)  # what permutation(rows) gives, in half of its memory
    return _cut_order(order, ratio)


def time_split(time: npt.NDArray[np.float64], ratio: Sequence[float]) -> Parts:
    """The earliest rows for training, the latest for test; rows of one time keep the order of the file.

    >>> time_split(np.array([3.0, 1.0, 2.0, 4.0]), (0.5, 0.25, 0.25)).tolist()
    [1, 0, 0, 2]
    """
    parts = np.zeros(len(time), np.uint8)
    for end in cut(len(time), ratio):
        if end == len(time):
            continue
        # The row at place `end` of the sorted order is the first that is too late; ties go by the order of the file.
        limit = np.partition(time, end)[end]
        later = time >= limit
        tied = np.flatnonzero(time == limit)
        later[tied[: end - int(np.count_nonzero(time < limit))]] = False
        parts += later
    return parts


def user_time_split(user: npt.NDArray[Any], time: npt.NDArray[np.float64], ratio: Sequence[float]) -> Parts:
    """:func:`time_split` within each user.

    >>> user, time = np.array([7, 7, 7, 7, 8]), np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    >>> user_time_split(user, time, (0.5, 0.25, 0.25)).tolist()
    [2, 1, 0, 0, 0]
    """
    order = np.lexsort((time, user))
    sorted_user = user[order]
    starts = np.flatnonzero(np.r_[True, sorted_user[1:] != sorted_user[:-1]]) if len(order) else np.empty(0, np.int64)
    counts = np.diff(np.append(starts, len(order)))
    position = np.arange(len(order)) - np.repeat(starts, counts)
    total = sum(ratio)
    valid, test = ((counts * (share / total) + 1e-9).astype(np.int64) for share in ratio[1:])
    first = np.repeat(counts - valid - test, counts)
    second = np.repeat(counts - test, counts)
    parts = np.empty(len(order), np.uint8)
    parts[order] = (position >= first).astype(np.uint8) + (position >= second)
    return parts
