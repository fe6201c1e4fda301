"""Pairs of a positive and a negative, counted from the sorted scores of the two classes.

The placement of a score is the share of the other class that it beats, ties counted half. The mean placement of the
positives is the AUC, and the spread of the placements is its sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Moments", "auc_of_classes", "float_codes", "sorted_placements"]

Scores = NDArray[Any]
Floats = NDArray[np.float64]
SLICE = 1 << 14
"""Scores searched for at a time. They and the part of the other class that they fall into fit in a core's cache."""
LEAST_PER_THREAD = 1 << 18


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squared deviations of some values; ``+`` joins two sets (Chan et al., 1979).

    >>> Moments.of(np.array([1.0, 4.0]), np.array([2, 1])) + Moments.of(np.array([3.0]), np.array([1]))
    Moments(count=4.0, mean=2.25, squares=6.75)
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Floats, counts: NDArray[np.int64]) -> Moments:
        """Of ``values``, each as often as ``counts`` says."""
        total = float(counts.sum())
        if not total:
            return cls()
        mean = float((values * counts).sum()) / total
        return cls(total, mean, float((counts * np.square(values - mean)).sum()))

    def __add__(self, other: Moments) -> Moments:
        total = self.count + other.count
        if not total:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / total)
        return Moments(total, mean, self.squares + other.squares + apart**2 * (self.count * other.count / total))

    @property
    def variance_of_mean(self) -> float:
        """``squares / (count - 1) / count``; NaN for fewer than two values."""
        return self.squares / (self.count - 1) / self.count if self.count > 1 else math.nan


@dataclass(frozen=True)
class _Slice:
    """Distinct scores of the smaller class, ascending, and how they lie among the scores of the other class.

    Attributes:
        first: place of the first score in its class. sizes: (D,), how often each occurs.
        before: scores of the other class up to and including the score before the slice.
        left, right: (D,), scores of the other class below each, and below or equal.
    """

    first: int
    sizes: NDArray[np.int64]
    before: int
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    def of_few(self, many: int) -> Floats:
        """(D,) placements of the scores of the slice."""
        return (self.left + self.right) / (2.0 * many)

    def of_many(self, few: int) -> tuple[Floats, NDArray[np.int64]]:
        """(2 D,) share of the smaller class above scores of the other class, and how many scores have each share.

        In turn: of the scores between two neighbours of the slice, and of those equal to the second.
        """
        above = few - self.first - np.cumsum(self.sizes)
        gaps = self.left - np.concatenate([[self.before], self.right[:-1]])
        shares = np.stack([above + self.sizes, above + 0.5 * self.sizes], 1) / few
        return shares.ravel(), np.stack([gaps, self.right - self.left], 1).ravel()


def auc_of_classes(positives: Scores, negatives: Scores) -> tuple[float, float]:
    """AUC and its standard error (DeLong et al., Biometrics 1988); both arrays of scores are sorted in place.

    The AUC is exact: pairs are counted in integers, for up to 4e9 rows. The work is spread over torch's threads.

    Returns:
        NaN twice where a class is empty or a score is NaN; a standard error of NaN where a class has one row.

    >>> auc_of_classes(np.array([0.4, 0.8]), np.array([0.1, 0.4]))
    (0.875, 0.1767766952966369)
    """
    pairs = len(positives) * len(negatives)
    if not pairs:
        return math.nan, math.nan
    # P(+ > -) = 1 - P(- > +) - P(=), and ties count half on both sides: counted the other way round, AUC is 1 - count.
    swapped = len(negatives) < len(positives)
    few, many = (negatives, positives) if swapped else (positives, negatives)
    # The larger class is cut into one piece per thread. Counts are sums over the pieces, so they are never merged.
    threads = max(1, min(torch.get_num_threads(), len(many) // LEAST_PER_THREAD))
    pieces = [few, *np.array_split(many, threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(np.ndarray.sort, pieces))
        if any(math.isnan(piece[-1]) for piece in pieces):  # NaN sorts last
            return math.nan, math.nan
        stretches = list(pool.map(lambda ends: _summed(few, pieces[1:], *ends), _stretches(few, threads)))
    below, own, others, last = 0, Moments(), Moments(), 0
    for twice_below, of_few, of_many, right in stretches:
        below, own, others, last = below + twice_below, own + of_few, others + of_many, right
    others += Moments(float(len(many) - last))  # above all of the smaller class
    auc = (2 * pairs - below if swapped else below) / (2 * pairs)
    return auc, math.sqrt(own.variance_of_mean + others.variance_of_mean)


def sorted_placements(few: Scores, many: Scores) -> tuple[float, Floats, Floats]:
    """Of each score of ``few`` the share of ``many`` below it; of each of ``many`` the share of ``few`` above it.

    Args:
        few: (m,) sorted, without NaN. many: (n,) likewise. Neither is empty; quickest if ``few`` is the smaller one.

    Returns:
        The mean of both (counted in integers), (m,) and (n,); ties count half.

    >>> sorted_placements(np.array([2.0, 5.0]), np.array([1.0, 2.0, 3.0]))
    (0.75, array([0.5, 1. ]), array([1.  , 0.75, 0.5 ]))
    """
    own, others, below = np.empty(len(few)), np.zeros(len(many)), 0
    for part in _slices(few, [many], 0, len(few)):
        below += int((part.sizes * (part.left + part.right)).sum())
        own[part.first : part.first + int(part.sizes.sum())] = np.repeat(part.of_few(len(many)), part.sizes)
        others[part.before : part.right[-1]] = np.repeat(*part.of_many(len(few)))
    return below / (2 * len(few) * len(many)), own, others


def _stretches(few: Scores, threads: int) -> list[tuple[int, int]]:
    """Ends of one stretch per thread, none of which splits equal scores."""
    wanted = np.linspace(0, len(few), threads + 1).astype(int)
    cuts = [0, *sorted({int(few.searchsorted(few[end - 1], side="right")) for end in wanted if end})]
    return list(pairwise(cuts))


def _summed(few: Scores, pieces: Sequence[Scores], start: int, stop: int) -> tuple[int, Moments, Moments, int]:
    """Of a stretch: twice its pairs in order plus its ties, the moments of the placements, the last ``right``."""
    many = sum(map(len, pieces))
    below, own, others, last = 0, Moments(), Moments(), 0
    for part in _slices(few, pieces, start, stop):
        below += int((part.sizes * (part.left + part.right)).sum())
        own += Moments.of(part.of_few(many), part.sizes)
        others += Moments.of(*part.of_many(len(few)))
        last = int(part.right[-1])
    return below, own, others, last


def _slices(few: Scores, pieces: Sequence[Scores], start: int, stop: int) -> Iterator[_Slice]:
    """The scores ``few[start:stop]`` among those of the pieces; all are sorted, and equal scores are not split."""
    # Of each piece, the scores up to and including the one before the slice: only what follows is searched.
    reached = [int(piece.searchsorted(few[start - 1], side="right")) if start else 0 for piece in pieces]
    while start < stop:
        end = min(start + SLICE, stop)
        end += int(few[end:stop].searchsorted(few[end - 1], side="right"))
        part = few[start:end]
        firsts = _starts(part)
        distinct, before = part[firsts], sum(reached)
        left, right = np.zeros(len(distinct), np.int64), np.zeros(len(distinct), np.int64)
        for number, piece in enumerate(pieces):
            low, high = _positions(distinct, piece, reached[number])
            left += low
            right += high
            reached[number] = int(high[-1])
        yield _Slice(start, np.diff(firsts, append=len(part)), before, left, right)
        start = end


def _positions(values: Scores, piece: Scores, low: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many scores of the piece are below each value, and below or equal; the first ``low`` are below all."""
    # Only the part that the values span is searched.
    high = low + int(piece[low:].searchsorted(values[-1], side="right"))
    found = piece[low:high]
    left = found.searchsorted(values)
    right = left.copy()
    # Clipped for the values above all of ``found``, which tie with none.
    if len(found):
        tied = found[np.minimum(left, len(found) - 1)] == values
        if tied.any():
            right[tied] = found.searchsorted(values[tied], side="right")
    return left + low, right + low


def _starts(ordered: Scores) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    changes = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:])
    return np.flatnonzero(changes)


def float_codes(scores: Scores) -> NDArray[np.uint32]:
    """Unsigned integers in the order of float32 scores, equal where these are.

    >>> codes = float_codes(np.array([-2.0, -0.0, 0.0, 1e-3], np.float32))
    >>> bool(codes[0] < codes[1] == codes[2] < codes[3])
    True
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # + 0 turns -0.0 into 0.0
    # Positive numbers get the sign bit; all bits of negative ones are flipped, whose patterns ascend downwards.
    codes: NDArray[np.uint32] = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return codes
