"""The order of an epoch: a permutation of all rows as a function of (seed, epoch), asked for a stretch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Order", "keyed_permutation", "shuffled"]

Rows = npt.NDArray[np.int64]
Order = Callable[[Rows], npt.NDArray[Any]]
"""From places in an epoch to the rows that are visited there."""

DRAWN_ROWS = 1 << 22
ROUNDS = 6


def shuffled(rows: int, seed: int, epoch: int) -> Order:
    """A permutation of ``rows`` rows.

    Up to ``DRAWN_ROWS`` rows it is numpy's, kept as four bytes a row. Above, nothing is kept: it is a keyed bijection,
    worked out for the places asked for.
    """
    if rows > DRAWN_ROWS:
        return keyed_permutation(rows, seed, epoch)
    visited = np.arange(rows, dtype=np.int32)
    np.random.default_rng([seed, epoch]).shuffle(visited)
    return visited.__getitem__


def keyed_permutation(rows: int, seed: int, epoch: int) -> Order:
    """A pseudo-random bijection of ``0 .. rows - 1`` that takes no memory per row.

    A Feistel network over the smallest power of two that holds all rows; a place that it sends beyond the last row is
    sent on until it falls among them (cycle walking: Black and Rogaway, CT-RSA 2002), less than twice on average.

    >>> order = keyed_permutation(10, seed=0, epoch=0)
    >>> sorted(order(np.arange(10)).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    bits = max(2, int(rows - 1).bit_length())
    keys = np.random.default_rng([seed, epoch]).integers(0, 2**32, (ROUNDS, 2), dtype=np.uint32)

    def order(places: Rows) -> Rows:
        found = _feistel(places.astype(np.uint64), bits, keys)
        outside = np.flatnonzero(found >= rows)
        while len(outside):
            found[outside] = _feistel(found[outside], bits, keys)
            outside = outside[found[outside] >= rows]
        return found.astype(np.int64)

    return order


def _feistel(values: npt.NDArray[np.uint64], bits: int, keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Numbers of ``bits`` bits sent to such numbers, one to one; the two halves may differ by a bit."""
    low = bits // 2
    widths = (bits - low, low)
    left = (values >> np.uint64(low)).astype(np.uint32)
    right = (values & np.uint64((1 << low) - 1)).astype(np.uint32)
    # `left` has widths[0] bits and `right` widths[1]; each round changes one of them by the other.
    for number, (first, second) in enumerate(keys):
        if number % 2:
            right ^= _mixed(left, first, second) & np.uint32((1 << widths[1]) - 1)
        else:
            left ^= _mixed(right, first, second) & np.uint32((1 << widths[0]) - 1)
    return (left.astype(np.uint64) << np.uint64(low)) | right


def _mixed(values: npt.NDArray[np.uint32], first: np.uint32, second: np.uint32) -> npt.NDArray[np.uint32]:
    """A 32-bit hash under a key: the finaliser of MurmurHash3, with key material added before and between."""
    mixed = values + first
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed += second
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed
