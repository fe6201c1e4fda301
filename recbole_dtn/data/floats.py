"""Number fields: mean and deviation or edges of the training rows, and the encoded value of each float."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.bins import Weighted, bin_edges
from recbole_dtn.data.skew import Spread, spread
from recbole_dtn.schema import ABSENT, FIRST_TOKEN, FieldSpec

__all__ = ["FloatStatistics", "Floats", "bin_ids", "in_units", "signed_log1p", "unlogged"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
LARGEST_LOG = float(np.log1p(float(np.finfo(np.float32).max)))


@dataclass(frozen=True)
class FloatStatistics:
    """Mean and standard deviation of the training rows, or ``edges`` (not empty) when binned.

    Attributes:
        mean, std: of the values, or of their :func:`signed_log1p`. edges: as
            :func:`recbole_dtn.data.bins.bin_edges` gives them.
        clip: the largest magnitude of a standardised value; None: no limit.
        log1p: whether values go through :func:`signed_log1p` before they are standardised.
    """

    mean: float = 0.0
    std: float = 1.0
    edges: tuple[float, ...] = ()
    clip: float | None = None
    log1p: bool = False

    @classmethod
    def from_values(
        cls,
        values: npt.NDArray[Any],
        bins: int | None,
        *,
        only_skewed: bool = False,
        clip: float | None = None,
        log1p: bool = False,
    ) -> FloatStatistics:
        """From the training rows' values; NaN is absent. Values count as float32, as every reader has them.

        Args:
            bins: how many bins; None: standardised. only_skewed: bins only where the standardised values are
                too skewed (:mod:`recbole_dtn.data.skew`), else standardised.

        >>> FloatStatistics.from_values(np.array([1.0, 3.0, np.nan]), None)
        FloatStatistics(mean=2.0, std=1.0, edges=(), clip=None, log1p=False)
        >>> FloatStatistics.from_values(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 2).edges
        (3.0,)
        """
        return cls.from_blocks(lambda: iter([(values, None)]), bins, only_skewed=only_skewed, clip=clip, log1p=log1p)

    @classmethod
    def from_blocks(
        cls,
        blocks: Callable[[], Iterator[Weighted]],
        bins: int | None,
        *,
        only_skewed: bool = False,
        clip: float | None = None,
        log1p: bool = False,
    ) -> FloatStatistics:
        """As :meth:`from_values`, a block of values at a time; ``blocks()`` begins again at the first.

        Each block is values and how often each counts (None: once). Edges keep four bytes per present value and, where
        quantiles are equal, some twenty more per distinct value.
        """
        if bins is not None:
            found = cls.from_blocks(blocks, None, clip=clip) if only_skewed else None
            if found is None or found._spread(blocks).skewed:
                return cls(edges=bin_edges(_present(blocks), bins))
            return found
        # Two passes and exact sums of the block sums (fsum): the result does not depend on how rows fall into blocks
        # beyond the rounding within a block, and large means do not cancel as in E[x^2] - E[x]^2.
        total, sums = 0, []
        for values, counts in _present(blocks, log=log1p):
            total += len(values) if counts is None else int(counts.sum())
            sums.append(float(values.sum() if counts is None else (values * counts).sum()))
        if not total:
            return cls(clip=clip, log1p=log1p)
        mean = math.fsum(sums) / total
        squares = []
        for values, counts in _present(blocks, log=log1p):
            apart = values - mean
            apart *= apart
            squares.append(float(apart.sum() if counts is None else (apart * counts).sum()))
        std = math.sqrt(math.fsum(squares) / total)
        return cls(mean=mean, std=std if std > 0 else 1.0, clip=clip, log1p=log1p)

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST_TOKEN + len(self.edges) + 1 if self.edges else FIRST_TOKEN

    def standardise(self, values: npt.NDArray[Any]) -> Floats:
        """``(value - mean) / std`` of the value or its :func:`signed_log1p`, within ``[-clip, clip]``; NaN stays NaN.

        >>> FloatStatistics(mean=2.0, std=0.5, clip=10.0).standardise(np.array([3.0, 1e30, -np.inf, np.nan])).tolist()
        [2.0, 10.0, -10.0, nan]
        """
        with np.errstate(over="ignore"):  # a new row's number may be beyond float32: infinite, then clipped
            wide = values.astype(np.float32).astype(np.float64)
            found = ((signed_log1p(wide) if self.log1p else wide) - self.mean) / self.std
            if self.clip is not None:
                np.clip(found, -self.clip, self.clip, out=found)
            return found.astype(np.float32)

    def _spread(self, blocks: Callable[[], Iterator[Weighted]]) -> Spread:
        return spread((self.standardise(values), counts) for values, counts in _present(blocks))


def _present(blocks: Callable[[], Iterator[Weighted]], *, log: bool = False) -> Iterator[Weighted]:
    """The values that are there, at the precision of float32; with ``log``, their logarithms."""
    for values, counts in blocks():
        narrow = values.astype(np.float32)
        there = ~np.isnan(narrow)
        wide = narrow[there].astype(np.float64)
        yield signed_log1p(wide) if log else wide, None if counts is None else counts[there]


def signed_log1p(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``sign(x) log(1 + |x|)``: amounts and counts by their magnitude, 0 as 0.

    >>> signed_log1p(np.array([0.0, np.e - 1, 1 - np.e, np.nan])).round(6).tolist()
    [0.0, 1.0, -1.0, nan]
    """
    return np.copysign(np.log1p(np.abs(values)), values)


def in_units(value: float, spec: FieldSpec) -> float:
    """A standardised value in the units of the file, without the digits that float32 has lost.

    >>> in_units(float(np.float32((0 - 21382.7) / 34064.3)), FieldSpec("x", "float", 2, 0, mean=21382.7, std=34064.3))
    0.0
    """
    found = value * spec.std + spec.mean
    # A float32 has 24 significant bits.
    lost = abs(value) * spec.std * 2.0**-23
    if spec.log1p:
        lost *= np.exp(abs(found))
        found = float(unlogged(np.float64(found)))
    return found if lost == 0 else round(found, -int(np.ceil(np.log10(lost)))) + 0.0


def unlogged(values: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.float64]:
    """The inverse of :func:`signed_log1p`; numbers of the file are within float32."""
    return np.copysign(np.expm1(np.minimum(np.abs(values), LARGEST_LOG)), values)


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
