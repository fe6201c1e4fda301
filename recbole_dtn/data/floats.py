"""Number fields: mean and deviation or quantile edges of the training rows, and the encoded value of each float."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.schema import ABSENT, FIRST_TOKEN

__all__ = ["FloatStatistics", "Floats", "bin_ids"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Weighted = tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None]


@dataclass(frozen=True)
class FloatStatistics:
    """Mean and standard deviation of the training rows, or quantile ``edges`` (not empty) when binned.

    ``clip`` is the largest magnitude of a standardised value; None: no limit.
    """

    mean: float = 0.0
    std: float = 1.0
    edges: tuple[float, ...] = ()
    clip: float | None = None

    @classmethod
    def from_values(cls, values: npt.NDArray[Any], bins: int | None, *, clip: float | None = None) -> FloatStatistics:
        """From the training rows' values; NaN is absent. Values count as float32, as every reader has them.

        >>> FloatStatistics.from_values(np.array([1.0, 3.0, np.nan]), None)
        FloatStatistics(mean=2.0, std=1.0, edges=(), clip=None)
        >>> FloatStatistics.from_values(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 2).edges
        (3.0,)
        """
        return cls.from_blocks(lambda: iter([(values, None)]), bins, clip=clip)

    @classmethod
    def from_blocks(
        cls, blocks: Callable[[], Iterator[Weighted]], bins: int | None, *, clip: float | None = None
    ) -> FloatStatistics:
        """As :meth:`from_values`, a block of values at a time; ``blocks()`` begins again at the first.

        Each block is values and how often each counts (None: once). Quantiles keep four bytes per present value.
        """
        if bins is not None:
            edges = _quantiles(blocks, np.linspace(0, 1, bins + 1)[1:-1])
            return cls(edges=tuple(np.unique(edges.astype(np.float32)).astype(float).tolist()))
        # Two passes and exact sums of the block sums (fsum): the result does not depend on how rows fall into blocks
        # beyond the rounding within a block, and large means do not cancel as in E[x^2] - E[x]^2.
        total, sums = 0, []
        for values, counts in _present(blocks):
            total += len(values) if counts is None else int(counts.sum())
            sums.append(float(values.sum() if counts is None else (values * counts).sum()))
        if not total:
            return cls(clip=clip)
        mean = math.fsum(sums) / total
        squares = []
        for values, counts in _present(blocks):
            apart = values - mean
            apart *= apart
            squares.append(float(apart.sum() if counts is None else (apart * counts).sum()))
        std = math.sqrt(math.fsum(squares) / total)
        return cls(mean=mean, std=std if std > 0 else 1.0, clip=clip)

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST_TOKEN + len(self.edges) + 1 if self.edges else FIRST_TOKEN

    def standardise(self, values: npt.NDArray[Any]) -> Floats:
        """``(value - mean) / std``, within ``[-clip, clip]``; NaN stays NaN.

        >>> FloatStatistics(mean=2.0, std=0.5, clip=10.0).standardise(np.array([3.0, 1e30, -np.inf, np.nan])).tolist()
        [2.0, 10.0, -10.0, nan]
        """
        with np.errstate(over="ignore"):  # a new row's number may be beyond float32: infinite, then clipped
            found = (values.astype(np.float32).astype(np.float64) - self.mean) / self.std
            if self.clip is not None:
                np.clip(found, -self.clip, self.clip, out=found)
            return found.astype(np.float32)


def _present(blocks: Callable[[], Iterator[Weighted]]) -> Iterator[Weighted]:
    """The values that are there, at the precision of float32."""
    for values, counts in blocks():
        narrow = values.astype(np.float32)
        there = ~np.isnan(narrow)
        yield narrow[there].astype(np.float64), None if counts is None else counts[there]


def _quantiles(blocks: Callable[[], Iterator[Weighted]], shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What ``np.quantile`` gives for all values (0 where there are none), from float32 and the counts alone."""
    found = [(values.astype(np.float32), counts) for values, counts in _present(blocks)]
    values = np.concatenate([values for values, _ in found]) if found else np.empty(0, np.float32)
    if found and found[0][1] is not None:
        counts = np.concatenate([np.asarray(counts) for _, counts in found])
        order = np.argsort(values, kind="stable")
        values, ends = values[order], np.cumsum(counts[order])
    else:
        values.sort()
        ends = None
    total = len(values) if ends is None else int(ends[-1]) if len(ends) else 0
    if not total:
        return np.zeros(1)
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


def bin_ids(values: npt.NDArray[Any], edges: Sequence[float]) -> Ids:
    """Local ids of a binned float: 2 + the number of edges at or below the value; NaN is absent.

    >>> bin_ids(np.array([2.0, 3.0, np.nan]), (3.0,)).tolist()
    [2, 3, 0]
    """
    # The edges are compared as float32, which is what they were computed from: a value that equals an edge lies above
    # it.
    narrow = values.astype(np.float32)
    ids = FIRST_TOKEN + np.searchsorted(np.asarray(edges, np.float32), narrow, side="right").astype(np.int64)
    ids[np.isnan(narrow)] = ABSENT
    return ids
