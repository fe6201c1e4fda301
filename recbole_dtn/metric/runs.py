"""Runs of equal values in sorted arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["run_starts"]


def run_starts(*ordered: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of rows that are equal in all of the (N,) arrays begins.

    >>> run_starts(np.array([1, 1, 2, 2]), np.array([0.5, 0.5, 0.5, 0.7])).tolist()
    [0, 2, 3]
    """
    changes = np.ones(len(ordered[0]), bool)
    if len(changes):
        changes[1:] = np.logical_or.reduce([values[1:] != values[:-1] for values in ordered])
    return np.flatnonzero(changes)
