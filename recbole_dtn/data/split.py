"""The split of each row: training (0), validation (1) or test (2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "carve",
    "cut",
    "draw_order",
    "fold_split",
    "random_split",
    "time_split",
    "user_time_split",
    "valid_share",
]

Parts = npt.NDArray[np.uint8]
Times = Callable[[], Iterator[npt.NDArray[np.float64]]]
_SIGN = np.uint64(1 << 63)


def cut(rows: int, ratio: Sequence[float]) -> tuple[int, int]:
    """The ends of training and validation among ``rows`` rows in order. Training takes the remainder.

    >>> cut(10, (0.8, 0.1, 0.1)), cut(9, (8, 1, 1))
    ((8, 9), (9, 9))
    """
    total = sum(ratio)
    # Rounded down; 1e-9 makes up for rounding errors: 100 * 0.29 is just below 29.
    valid, test = (int(rows * share / total + 1e-9) for share in ratio[1:])
    return rows - valid - test, rows - test


def _cut_order(order: npt.NDArray[Any], ratio: Sequence[float]) -> Parts:
    first, second = cut(len(order), ratio)
    parts = np.zeros(len(order), np.uint8)
    # Training (0) is what is left.
    parts[order[first:second]] = 1
    parts[order[second:]] = 2
    return parts


def draw_order(rows: int, seed: int, classes: Parts | None = None) -> npt.NDArray[Any]:
    """The rows in the order in which they are drawn; ``seed`` alone decides.

    Args:
        rows: how many. seed: of the order.
        classes: of each row 0 (negative), 1 (positive) or 2 (the label is not observed). The positives are then drawn
            at random, and stand at even distances among the observed rows, and these among all. So many consecutive
            rows as one likes (the last row is followed by the first) have the share of positives of all observed rows,
            to less than one row.

    >>> labels = np.array([1, 0, 0, 1, 0, 0, 0, 0], np.uint8)
    >>> labels[draw_order(8, 0, labels)].tolist()
    [0, 1, 0, 0, 0, 1, 0, 0]
    """
    generator = np.random.default_rng(seed)
    dtype = np.int32 if rows < 2**31 else np.int64
    if classes is None:
        order = np.arange(rows, dtype=dtype)
        generator.shuffle(order)  # the same as permutation(rows), in half of its memory
        return order
    strata = [np.flatnonzero(classes == kind).astype(dtype) for kind in (1, 0, 2)]
    for stratum in strata:
        generator.shuffle(stratum)
    positive, negative, unobserved = strata
    return _spread(_spread(positive, negative), unobserved)


def _spread(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Both arrays in one, each in its order: of the first ``e`` places, ``first`` has its share of ``e``, rounded.

    Two such numbers differ by less than one from the share of the places between them, since each is rounded by at most
    a half, and halves always up.
    """
    count, total = len(first), len(first) + len(second)
    merged = np.empty(total, first.dtype)
    # floor(e count / total + 1/2) reaches i + 1 at e = ceil((2 i + 1) total / (2 count)), which is place e - 1.
    ends = -(-(2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * max(count, 1)))
    others = np.ones(total, np.bool_)
    others[ends - 1] = False
    merged[ends - 1] = first
    merged[others] = second
    return merged


def random_split(rows: int, ratio: Sequence[float], seed: int, classes: Parts | None = None) -> Parts:
    """The split of each row; ``seed`` alone decides, within the ``classes`` of :func:`draw_order`.

    >>> random_split(5, (0.6, 0.2, 0.2), 0).tolist()
    [1, 2, 0, 0, 0]
    """
    return _cut_order(draw_order(rows, seed, classes), ratio)


def valid_share(ratio: Sequence[float]) -> float:
    """The share of validation in training and validation together, where the test rows are chosen by other means.

    >>> valid_share((6, 2, 99))
    0.25
    """
    return ratio[1] / (ratio[0] + ratio[1])


def fold_split(
    rows: int, ratio: Sequence[float], seed: int, folds: int, fold: int, classes: Parts | None = None
) -> Parts:
    """The split of each row where test is one of ``folds`` parts of the rows, which differ by at most one row.

    The order of the rows is a circle: validation is what stands before the test rows in it, and training is the rest.

    >>> [fold_split(5, (0.5, 0.5, 1), 0, 5, fold).tolist().index(2) for fold in range(5)]
    [2, 4, 3, 0, 1]
    """
    order = draw_order(rows, seed, classes)
    start, stop = fold * rows // folds, (fold + 1) * rows // folds
    rest = rows - (stop - start)
    circle = np.roll(order, -stop)  # the test rows come last
    first = rest - int(rest * valid_share(ratio) + 1e-9)
    parts = np.zeros(rows, np.uint8)
    parts[circle[first:rest]] = 1
    parts[circle[rest:]] = 2
    return parts


def carve(parts: Parts, ratio: Sequence[float], seed: int, classes: Parts | None = None) -> Parts:
    """The same split with validation rows drawn from those of training, to their share of both.

    >>> carve(np.array([0, 2, 0, 0, 2, 0], np.uint8), (3, 1, 1), 0).tolist()
    [0, 2, 0, 0, 2, 1]
    """
    training = np.flatnonzero(parts == 0)
    order = draw_order(len(training), seed, None if classes is None else classes[training])
    first = len(order) - int(len(order) * valid_share(ratio) + 1e-9)
    found = parts.copy()
    found[training[order[first:]]] = 1
    return found


def time_split(times: Times, rows: int, ratio: Sequence[float]) -> Parts:
    """The earliest rows for training, the latest for test; rows of one time keep the order of the file.

    Args:
        times: each call iterates over the times of all rows from the start, a block at a time; none is missing.
        rows: how many. ratio: of the splits.

    >>> time_split(lambda: iter([np.array([3.0, 1.0]), np.array([2.0, 4.0])]), 4, (0.5, 0.25, 0.25)).tolist()
    [1, 0, 0, 2]
    """
    parts = np.zeros(rows, np.uint8)
    for end in cut(rows, ratio):
        # No row is later than the last one.
        if end == rows:
            continue
        limit, earlier = _at_rank(times, end)
        # Of the rows with the time at the cut, the first ones of the file stay on the earlier side.
        early_ties, start = end - earlier, 0
        for block in times():
            later = block >= limit
            tied = np.flatnonzero(block == limit)
            later[tied[:early_ties]] = False
            early_ties -= min(early_ties, len(tied))
            # One cut after the other: a row behind both gets 1 twice, which is test.
            parts[start : start + len(block)] += later
            start += len(block)
    return parts


def _at_rank(times: Times, rank: int) -> tuple[float, int]:
    """The time at place ``rank`` (from 0) in their order, and how many are smaller: 16 bits found with each reading."""
    # Radix selection, most significant 16 bits first: each pass counts the next 16 bits of the keys that begin with
    # the bits found so far. Four passes over the times, and 512 KiB of memory for any number of rows.
    found, earlier = np.uint64(0), 0
    for shift in (48, 32, 16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for block in times():
            keys = _ordered_bits(block) >> np.uint64(shift)
            keys = keys[keys >> np.uint64(16) == found] if shift < 48 else keys
            counts += np.bincount((keys & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
        ends = earlier + np.cumsum(counts)
        # The first value of these 16 bits up to which there are more than ``rank`` keys.
        digit = int(np.searchsorted(ends, rank, side="right"))
        earlier = int(ends[digit] - counts[digit])
        found = (found << np.uint64(16)) | np.uint64(digit)
    # The inverse of `_ordered_bits`.
    bits = found ^ (_SIGN if found & _SIGN else ~np.uint64(0))
    return float(np.array(bits).view(np.float64)), earlier


def _ordered_bits(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Unsigned integers in the order of the numbers (0 and -0 are the same)."""
    # Flip all bits of negative numbers and the sign bit of the others: unsigned order is then numeric order.
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def user_time_split(user: npt.NDArray[Any], time: npt.NDArray[np.float64], ratio: Sequence[float]) -> Parts:
    """:func:`time_split` within each user.

    >>> user, time = np.array([7, 7, 7, 7, 8]), np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    >>> user_time_split(user, time, (0.5, 0.25, 0.25)).tolist()
    [2, 1, 0, 0, 0]
    """
    # By user, then time (lexsort takes the last key first); it is stable, so that ties keep the order of the file.
    order = np.lexsort((time, user))
    sorted_user = user[order]
    starts = np.flatnonzero(np.r_[True, sorted_user[1:] != sorted_user[:-1]]) if len(order) else np.empty(0, np.int64)
    counts = np.diff(np.append(starts, len(order)))
    position = np.arange(len(order)) - np.repeat(starts, counts)  # of each row within its user, by time
    total = sum(ratio)
    valid, test = ((counts * (share / total) + 1e-9).astype(np.int64) for share in ratio[1:])
    # Of each row, how many rows of its user are in training, and in training or validation.
    first = np.repeat(counts - valid - test, counts)
    second = np.repeat(counts - test, counts)
    parts = np.empty(len(order), np.uint8)
    parts[order] = (position >= first).astype(np.uint8) + (position >= second)
    return parts
