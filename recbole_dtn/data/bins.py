"""Edges of the bins of a number, from the training rows' values and how often each occurs.

The edges are quantiles. Where a few values hold most rows, several quantiles are equal and fewer bins than wanted
would remain; then each value that holds more than its share of the rows gets a bin of its own, and the quantiles are
those of the other rows (the compressed histogram of Poosala et al., "Improved Histograms for Selectivity Estimation of
Range Predicates", SIGMOD 1996).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Weighted", "bin_edges"]

Weighted = tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None]
"""Values, and how often each counts (None: once)."""
Values = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]


def bin_edges(blocks: Iterable[Weighted], bins: int) -> tuple[float, ...]:
    """Ascending edges; a value at or above an edge, and below the next, is in the bin between them.

    ``bins`` bins result, none of them empty; of a number with fewer distinct values, one bin for each. The edges are
    the quantiles of :func:`numpy.quantile` where these leave no bin empty.

    Args:
        blocks: the training rows' values, none of them NaN; they count as float32. bins: from 2 up.

    Returns:
        At least one edge: without any value 0, and of a single value that value.

    >>> rows = np.array([0.0] * 90 + [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    >>> bin_edges([(rows, None)], 5)  # 0, 1 and 2, 3 to 5, 6 and 7, 8 to 10; all quantiles are 0
    (1.0, 3.0, 6.0, 8.0)
    """
    values, ends = _sorted(blocks)
    total = len(values) if ends is None else int(ends[-1]) if len(ends) else 0
    if not total:
        return (0.0,)
    edges = np.unique(_quantiles(values, ends, total, np.linspace(0, 1, bins + 1)[1:-1]).astype(np.float32))
    if _filled(values, ends, edges) < bins:
        # Where each run of equal values ends, and how many rows end there.
        last = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
        counts = np.diff(last + 1 if ends is None else ends[last], prepend=0)
        # A side table's row that no interaction of training points to counts 0 times.
        distinct, counts = values[last][counts > 0], counts[counts > 0]
        edges = distinct[_starts(counts, bins)] if len(distinct) > 1 else distinct
    return tuple(edges.astype(float).tolist())


def _sorted(blocks: Iterable[Weighted]) -> tuple[Values, Counts | None]:
    """All values in ascending order, and with counts the number of rows up to each of them."""
    found = [(values.astype(np.float32), counts) for values, counts in blocks]
    values = np.concatenate([values for values, _ in found]) if found else np.empty(0, np.float32)
    if not found or found[0][1] is None:
        values.sort()
        return values, None
    counts = np.concatenate([np.asarray(counts) for _, counts in found])
    order = np.argsort(values, kind="stable")
    return values[order], np.cumsum(counts[order])


def _quantiles(
    values: Values, ends: Counts | None, total: int, shares: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What ``np.quantile`` gives for all rows, from float32 and the counts alone."""
    # numpy's linear interpolation between the two order statistics around each place; with counts, an order
    # statistic is found by the cumulated counts.
    place = (total - 1) * shares
    lower = np.floor(place).astype(np.int64)
    upper = np.minimum(lower + 1, total - 1)
    if ends is not None:
        lower, upper = np.searchsorted(ends, lower, side="right"), np.searchsorted(ends, upper, side="right")
    below, above, part = values[lower].astype(np.float64), values[upper].astype(np.float64), place - np.floor(place)
    step = above - below
    return np.where(part >= 0.5, above - step * (1 - part), below + step * part)


def _filled(values: Values, ends: Counts | None, edges: Values) -> int:
    """Number of bins that hold a row."""
    places = np.searchsorted(values, edges, side="left")
    below = places if ends is None else np.append(0, ends)[places]
    total = len(values) if ends is None else int(ends[-1])
    return int(np.count_nonzero(np.diff(below, prepend=0, append=total)))


def _starts(counts: Counts, bins: int) -> npt.NDArray[np.int64]:
    """Positions at which a new bin begins (the first bin, at 0, is left out), for distinct values in their order.

    Args:
        counts: rows of each distinct value, at least 2 of them.
    """
    if len(counts) <= bins:
        return np.arange(1, len(counts))
    alone = _alone(counts, bins)
    # Stretches of values between those with a bin of their own: [start, stop).
    stretches = _stretches(alone)
    while len(stretches) > bins - np.count_nonzero(alone):
        # More stretches than bins are left for: the lightest value loses its own bin, which joins its neighbours.
        alone[np.flatnonzero(alone)[np.argmin(counts[alone])]] = False
        stretches = _stretches(alone)
    rows = [int(counts[start:stop].sum()) for start, stop in stretches]
    shares = _shares(rows, [stop - start for start, stop in stretches], bins - int(np.count_nonzero(alone)))
    starts = [np.flatnonzero(alone)]
    for (start, stop), share in zip(stretches, shares, strict=True):
        starts.append(start + np.append(0, _equal_parts(counts[start:stop], share)))
    return np.sort(np.concatenate(starts))[1:]


def _alone(counts: Counts, bins: int) -> npt.NDArray[np.bool_]:
    """Which values get a bin of their own: those of more rows than the others leave to a bin."""
    alone = np.zeros(len(counts), bool)
    while True:
        left, rows = bins - np.count_nonzero(alone), counts[~alone].sum()
        # Fewer than `left` values can hold more than rows / left each, so that a bin remains for the others.
        more = ~alone & (counts * left > rows)
        if not more.any():
            return alone
        alone |= more


def _stretches(alone: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(np.concatenate([[True], alone, [True]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in changes.reshape(-1, 2)]


def _shares(rows: list[int], distinct: list[int], bins: int) -> list[int]:
    """How many bins each stretch gets: one, then each further one where the bins are fullest."""
    shares = [1] * len(rows)
    waiting = [(-float(size), at) for at, size in enumerate(rows) if distinct[at] > 1]
    heapq.heapify(waiting)
    for _ in range(bins - len(rows)):
        _, at = heapq.heappop(waiting)
        shares[at] += 1
        if shares[at] < distinct[at]:
            heapq.heappush(waiting, (-rows[at] / shares[at], at))
    return shares


def _equal_parts(counts: Counts, parts: int) -> npt.NDArray[np.int64]:
    """Positions that cut the values into ``parts`` of nearly equal rows, none of them empty."""
    ends = np.cumsum(counts)
    number = np.arange(1, parts)
    wanted = ends[-1] * number / parts
    at = np.searchsorted(ends, wanted, side="left")
    # A cut lies before or behind the value at which the rows reach what is wanted, whichever is nearer.
    cuts = at + (ends[at] - wanted < wanted - (ends[at] - counts[at]))
    # Every part has a value: at least one before each cut, and enough behind it.
    cuts = np.minimum(np.maximum.accumulate(cuts - number), len(counts) - parts) + number
    return np.asarray(cuts, np.int64)
