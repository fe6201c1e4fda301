"""Whether a number is too skewed to be standardised: a few rows hold most of its variance, the others nearly nothing.

Of a normal number, the 1 % of rows that are furthest from the mean hold 8 % of the variance, of an exponential one
22 %, of a log-normal one (sigma 1) some 40 %. docs/encodings.md has the figures of real ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FURTHEST", "HELD", "share_held", "skewed"]

FURTHEST = 0.01
HELD = 0.5
"""A number is skewed when the share ``FURTHEST`` of the rows holds more than this share of its variance, ..."""
FEW = 10
"""... and it has more values than this: of a few, a standardised number tells each from the others."""
Counts = npt.NDArray[np.int64]


def skewed(values: npt.NDArray[Any], counts: Counts | None = None) -> bool:
    """Whether values (none of them NaN, already clipped) are too skewed to be standardised.

    Args:
        values: in any units. counts: how often each counts; None: once.

    >>> skewed(np.linspace(0, 1, 1000)), skewed(np.linspace(0, 1, 1000) ** 400)
    (False, True)
    """
    if share_held(values, counts) <= HELD:
        return False
    return len(np.unique(values if counts is None else values[counts > 0])) > FEW


def share_held(values: npt.NDArray[Any], counts: Counts | None = None) -> float:
    """Share of the variance that the furthest rows hold, at least one row; 0 where all values are equal.

    >>> round(share_held(np.array([1.0] * 99 + [2.0])), 2)  # 0.99 ** 2 of 0.99
    0.99
    """
    total = len(values) if counts is None else int(counts.sum())
    if not total:
        return 0.0
    mean = values.mean(dtype=np.float64) if counts is None else float((values * counts).sum() / total)
    squares = np.square(values - mean)
    rows = max(1, int(FURTHEST * total))
    if counts is None:
        variance = squares.sum(dtype=np.float64)
        held = np.partition(squares, -rows)[-rows:].sum(dtype=np.float64)
    else:
        variance = (squares * counts).sum()
        order = np.argsort(-squares)
        before = np.cumsum(counts[order]) - counts[order]
        held = (squares[order] * np.clip(rows - before, 0, counts[order])).sum()
    return float(held / variance) if variance > 0 else 0.0
