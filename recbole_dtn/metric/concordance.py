"""Pairs of rows that two columns of numbers order alike, counted within groups in O(N log N)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dtn.metric.runs import run_starts

__all__ = ["ordered_pairs"]

Array = NDArray[Any]


def ordered_pairs(
    scores: Array, labels: Array, groups: Array, weights: Array | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of rows of one group with different labels, and those that the scores put in the same order.

    A pair weighs the product of its rows' weights. Rows are sorted by label (of equal labels the higher score first),
    and then by score as a merge sort does, but from the top: each of the ``log2 N`` passes splits all blocks by one bit
    of the score's rank and counts, for every row whose bit is 1, the earlier rows of its block whose bit is 0. These
    are the rows of a lower label and a lower score. Without weights everything is counted in integers.

    Args:
        scores: (N,) without NaN. labels: (N,). groups: (N,) integers. weights: (N,) or None.

    Returns:
        Of each group, in the order of their numbers: the pairs with different labels (P,), those in the right order,
        equal scores counted half (C,), and the weight of its rows (W,).

    >>> one, two = np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 4.0])
    >>> ordered_pairs(two, one, np.zeros(3, int))  # (1, 2) is a tie, (1, 3) and (2, 3) are in the wrong order
    (array([3.]), array([0.5]), array([3.]))
    """
    mass = np.ones(len(scores), np.int64) if weights is None else weights.astype(np.float64)
    order = np.lexsort((labels, scores, groups))
    scores, labels, groups, mass = scores[order], labels[order], groups[order], mass[order]
    first, of_score = run_starts(groups), run_starts(groups, scores)
    tied = _pairs(mass, of_score, first) - _pairs(mass, run_starts(groups, scores, labels), first)
    size = np.add.reduceat(mass, first)
    ranks = _ranks(of_score, first, len(order))
    # Backwards, so that a stable sort by label leaves the higher score first; the groups then end where they began.
    by_label = np.lexsort((labels[::-1], groups[::-1]))
    labels, ranks, mass = (values[::-1][by_label] for values in (labels, ranks, mass))
    comparable = _pairs(mass, first, first) - _pairs(mass, run_starts(groups, labels), first)
    lower = _earlier_and_lower(ranks, mass, first)
    # ``tied`` and ``comparable`` are twice the number of pairs.
    return comparable / 2, (4 * lower + tied) / 4, size.astype(np.float64)


def _pairs(mass: Array, starts: Array, first: Array) -> Array:
    """Twice the weight of the pairs of rows of one run, the runs beginning at ``starts``, summed by group.

    With weights ``(sum w)^2 - sum w^2``; a row makes no pair with itself.
    """
    sums = np.add.reduceat(mass, starts)
    squares = np.add.reduceat(mass * mass, starts)
    found: Array = np.add.reduceat(sums * sums - squares, np.searchsorted(starts, first))
    return found


def _ranks(starts: NDArray[np.int64], first: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """The rank of each row's score among the distinct ones of its group, from 0, where the rows are sorted by them."""
    number = np.zeros(rows, np.int64)
    number[starts] = 1
    number = np.cumsum(number)
    return number - np.repeat(number[first], np.diff(first, append=rows))


def _earlier_and_lower(ranks: NDArray[np.int64], mass: Array, first: Array) -> Array:
    """Weight of the pairs of a row and an earlier one of its group with a lower rank, by group."""
    found = np.zeros(len(first), mass.dtype)
    starts = first
    for bit in reversed(range(int(ranks.max(initial=0)).bit_length())):
        ones = ((ranks >> bit) & 1).astype(bool)
        sizes = np.diff(starts, append=len(ranks))
        count = _before(~ones, starts, sizes)
        # Without weights the rows before are their weight.
        before = count if mass.dtype == np.int64 else _before(np.where(ones, 0.0, mass), starts, sizes)
        found += np.add.reduceat(np.where(ones, mass * before, 0), first)
        # Each block is parted by the bit, and the order within the parts stays.
        zero_rows = np.add.reduceat((~ones).astype(np.int64), starts)
        begin = np.repeat(starts, sizes)
        within = np.arange(len(ranks)) - begin
        place = begin + np.where(ones, np.repeat(zero_rows, sizes) + within - count, count)
        parted_ranks, parted_mass = np.empty_like(ranks), np.empty_like(mass)
        parted_ranks[place], parted_mass[place] = ranks, mass
        ranks, mass = parted_ranks, parted_mass
        halves = np.concatenate([starts, starts + zero_rows])
        starts = np.unique(halves[halves < len(ranks)])
    return found


def _before(values: Array, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Array:
    """(N,) sums of the values of earlier rows of the same block."""
    sums: Array = np.cumsum(values) - values
    sums -= np.repeat(sums[starts], sizes)
    return sums
