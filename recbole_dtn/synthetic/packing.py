"""Build the text of feature lists from arrays without a loop over rows: fill slots of 8 bytes, then remove zero bytes.

A feature takes three slots: separator, field and 0x02; id; 0x03 and value. Bytes that a slot does not need are 0, and
no byte of the format is 0, so that removing every 0 joins the text.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbole_dtn.data.hashing import Floats, Ints, Keys

__all__ = ["Group", "feature_lists", "hex_slots", "number_slots", "slots", "small_slots"]

assert sys.byteorder == "little", "slots are read as little-endian words"


def slots(texts: Sequence[bytes]) -> Keys:
    """One word per text of at most 8 bytes.

    >>> slots([b"a", b"bc"]).tobytes()
    b'a\\x00\\x00\\x00\\x00\\x00\\x00\\x00bc\\x00\\x00\\x00\\x00\\x00\\x00'
    """
    assert all(len(text) <= 8 for text in texts)
    return np.frombuffer(b"".join(text.ljust(8, b"\0") for text in texts), dtype=np.uint64).copy()


# 0 to 9999 as text without and with leading zeros, and bytes as two hexadecimal digits.
SHORT = np.frombuffer(b"".join(str(k).encode().ljust(4, b"\0") for k in range(10_000)), dtype=np.uint32)
PADDED = np.frombuffer(b"".join(b"%04d" % k for k in range(10_000)), dtype=np.uint32)
HEX = np.frombuffer(b"".join(b"%02x" % k for k in range(256)), dtype=np.uint16)


def number_slots(numbers: Ints) -> Keys:
    """Whole numbers from 0 to 99,999,999 as text.

    >>> number_slots(np.array([7, 12_345_678])).tobytes().replace(b"\\0", b"")
    b'712345678'
    """
    high = numbers // 10_000
    low = numbers - high * 10_000
    # Little-endian: the first digits are in the lower half of the word.
    both = SHORT[high].astype(np.uint64) | (PADDED[low].astype(np.uint64) << np.uint64(32))
    return np.where(high > 0, both, SHORT[low].astype(np.uint64))


def small_slots(before: bytes, numbers: Ints, after: bytes, most: int) -> Keys:
    """Small numbers, from 0 to ``most``, between two texts."""
    return slots([b"%s%d%s" % (before, k, after) for k in range(most + 1)])[numbers]


def hex_slots(keys: Keys) -> Keys:
    """(n, 2) words: each key as 16 hex digits.

    >>> hex_slots(np.array([255], dtype=np.uint64)).tobytes()
    b'00000000000000ff'
    """
    # Big-endian bytes, so that the most significant digits come first.
    digits = HEX[keys.astype(">u8").view(np.uint8).reshape(len(keys), 8)]
    return np.ascontiguousarray(digits).view(np.uint64)


@dataclass(frozen=True)
class Group:
    """Features that stand side by side in a row.

    Args:
        prefix: separator, field and 0x02, one word. row: (n,) row of each, ascending. ids: (n,) their ids.
        values: (n,) words with 0x03 and the value.
    """

    prefix: np.uint64
    row: Ints
    ids: Ints
    values: Keys


def feature_lists(heads: Keys, groups: Sequence[Group], counts: Ints, u: Floats, orders: Ints) -> bytes:
    """Lines of ``head`` and features.

    Args:
        heads: (n, H) words of text before the list, the line's end of the row before included. groups: G of them.
        counts: (n, G) features per row and group. u: (n,) uniform: which order a row takes.
        orders: (K, G) permutations of the groups.
    """
    n, width = heads.shape
    # order[r, k]: the group in place k of row r.
    order = orders[(u * len(orders)).astype(np.int64)]  # (n, G)
    placed = np.take_along_axis(counts, order, 1)
    # starts[r, g]: features of row r before those of group g, in the row's order.
    starts = np.empty_like(counts)
    np.put_along_axis(starts, order, np.cumsum(placed, 1) - placed, 1)
    # Words of each row, and where they begin.
    sizes = width + 3 * counts.sum(1)
    ends = np.cumsum(sizes)
    first = ends - sizes
    words = np.zeros(int(ends[-1]) if n else 0, dtype=np.uint64)
    for column in range(width):
        words[first + column] = heads[:, column]
    for position, group in enumerate(groups):
        per_row = counts[:, position]
        # Place of a feature among those of its group in its row.
        rank = np.arange(len(group.row)) - (np.cumsum(per_row) - per_row)[group.row]
        at = first[group.row] + width + 3 * (starts[group.row, position] + rank)
        words[at] = group.prefix
        words[at + 1] = number_slots(group.ids)
        words[at + 2] = group.values
    words[first + width] &= ~np.uint64(0xFF)  # no separator before the first feature of a row
    return words.tobytes().translate(None, b"\0")
