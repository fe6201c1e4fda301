"""Which row is for training, validation or test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["cut", "random_split", "time_split", "user_time_split"]

Rows = npt.NDArray[np.int64]


def cut(rows: int, ratio: Sequence[float]) -> tuple[int, int]:
    """Where to cut ``rows`` in order: the ends of training and validation. Training takes the remainders.

    >>> cut(10, (0.8, 0.1, 0.1)), cut(9, (8, 1, 1))
    ((8, 9), (9, 9))
    """
    total = sum(ratio)
    valid, test = (int(rows * share / total + 1e-9) for share in ratio[1:])
    return rows - valid - test, rows - test


def _cut_in_file_order(order: Rows, ratio: Sequence[float]) -> list[Rows]:
    first, second = cut(len(order), ratio)
    return [np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:])]


def random_split(rows: int, ratio: Sequence[float], seed: int) -> list[Rows]:
    """Row numbers of training, validation and test, each ascending; ``seed`` alone decides.

    >>> [part.tolist() for part in random_split(5, (0.6, 0.2, 0.2), 0)]
    [[2, 3, 4], [0], [1]]
    """
    return _cut_in_file_order(np.random.default_rng(seed).permutation(rows), ratio)


def time_split(time: npt.NDArray[np.float64], ratio: Sequence[float]) -> list[Rows]:
    """The earliest rows for training, the latest for test; rows of one time keep the order of the file.

    >>> [part.tolist() for part in time_split(np.array([3.0, 1.0, 2.0, 4.0]), (0.5, 0.25, 0.25))]
    [[1, 2], [0], [3]]
    """
    return _cut_in_file_order(np.argsort(time, kind="stable"), ratio)


def user_time_split(user: npt.NDArray[Any], time: npt.NDArray[np.float64], ratio: Sequence[float]) -> list[Rows]:
    """:func:`time_split` within each user.

    >>> user, time = np.array([7, 7, 7, 7, 8]), np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    >>> [part.tolist() for part in user_time_split(user, time, (0.5, 0.25, 0.25))]
    [[2, 3, 4], [1], [0]]
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
    which = (position >= first).astype(np.int8) + (position >= second)
    return [np.sort(order[which == part]) for part in range(3)]
