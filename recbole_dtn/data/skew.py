"""Whether a number is too skewed to be standardised: a few rows hold most of its variance, the others nearly nothing.

Of a normal number, the 1 % of rows that are furthest from the mean hold 8 % of the variance, of an exponential one
22 %, of a log-normal one (sigma 1) some 40 %. docs/encodings.md has the figures of real ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recbole_dtn.data.bins import Weighted

__all__ = ["FURTHEST", "HELD", "Spread", "spread"]

FURTHEST = 0.01
HELD = 0.5
"""A number is skewed when the share ``FURTHEST`` of the rows holds more than this share of its variance, ..."""
FEW = 10
"""... and it has more values than this: of a few, a standardised number tells each from the others."""
MAGNITUDES = np.geomspace(1e-3, 1e5, 2048)
"""Rows are counted by the magnitude of their standardised value, in steps of .9 %: memory does not grow with them."""


@dataclass(frozen=True)
class Spread:
    """How the variance of a number is spread.

    Attributes:
        held: share of it in the furthest rows (``FURTHEST`` of them, at least one); 0 where all values are equal.
        values: its distinct values, counted up to ``FEW + 1``.
    """

    held: float
    values: int

    @property
    def skewed(self) -> bool:
        """Whether the number is too skewed to be standardised."""
        return self.held > HELD and self.values > FEW


def spread(blocks: Iterable[Weighted]) -> Spread:
    """From standardised values (none of them NaN, already clipped), a block at a time.

    >>> values = np.linspace(-1, 1, 1001)
    >>> spread([(values, None)]).skewed, spread([(values**401, None)]).skewed
    (False, True)
    """
    rows, squares = np.zeros(len(MAGNITUDES) + 1), np.zeros(len(MAGNITUDES) + 1)
    distinct = np.empty(0)
    for values, counts in blocks:
        magnitude = np.abs(values.astype(np.float64))
        place = np.searchsorted(MAGNITUDES, magnitude)
        weights = np.ones(len(values)) if counts is None else counts.astype(np.float64)
        rows += np.bincount(place, weights, len(rows))
        squares += np.bincount(place, weights * np.square(magnitude), len(squares))
        if len(distinct) <= FEW:
            distinct = np.union1d(distinct, values[weights > 0])[: FEW + 1]
    total, variance = rows.sum(), squares.sum()
    if not variance > 0:
        return Spread(0.0, len(distinct))
    # From the furthest on; of the last step only as many rows as are wanted, each with the step's mean square.
    rows, squares = rows[::-1], squares[::-1]
    taken = np.clip(max(1.0, np.floor(FURTHEST * total)) - (np.cumsum(rows) - rows), 0, rows)
    return Spread(float((squares * taken / np.maximum(rows, 1)).sum() / variance), len(distinct))
