"""Ids whose frequency falls with their rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recbole_dtn.data.hashing import Floats, Ints

__all__ = ["Scatter", "Zipf"]


@dataclass(frozen=True)
class Zipf:
    """Ranks 0 .. size-1 with density proportional to ``(rank + 1)^-exponent``, by inversion of the continuous law.

    ``rank = floor((1 + u ((size + 1)^(1 - s) - 1))^(1 / (1 - s))) - 1``; for s = 1, ``floor((size + 1)^u) - 1``.

    >>> Zipf(10, 1.0).ranks(np.array([0.0, 0.5, 0.999])).tolist()
    [0, 2, 9]
    """

    size: int
    exponent: float

    def ranks(self, u: Floats) -> Ints:
        """One rank per uniform number."""
        s, n = self.exponent, self.size + 1
        # The inverse distribution function of the continuous law on [1, size + 1).
        x = np.exp(u * math.log(n)) if s == 1 else (1 + u * (n ** (1 - s) - 1)) ** (1 / (1 - s))
        ranks: Ints = np.clip(x.astype(np.int64) - 1, 0, self.size - 1)
        return ranks


@dataclass(frozen=True)
class Scatter:
    """A bijection of 0 .. size-1 that parts neighbours: ``(rank step + 1) mod size``; a popular id is not a small one.

    >>> sorted(Scatter(6)(np.arange(6)).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    size: int

    def __call__(self, ranks: Ints) -> Ints:
        """The id of each rank, counted from 0."""
        # Near the golden ratio of the size, so that neighbours lie far apart; coprime to the size, so that it is a
        # bijection.
        step = max(1, int(self.size * 0.6180339887))
        while math.gcd(step, self.size) != 1:
            step += 1
        return (ranks * step + 1) % self.size
