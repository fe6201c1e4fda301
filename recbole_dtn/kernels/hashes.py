"""MemoNet's hash functions of pairs of field values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recbole_dtn.kernels.choice import exporting

__all__ = ["PairHash", "hash_pairs"]

PairHash = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
"""``(ids (B, F), left (P,), right (P,), hashes, codes) -> (B, P, hashes)`` codewords in [0, codes)."""


def _signed(value: int) -> int:
    """The 64 bits of ``value`` as torch reads them: two's complement."""
    return value - 2**64 if value >= 2**63 else value


HASHED_AT_ONCE = 2**16
"""Hash values computed together: half a MiB."""

# The increment of splitmix64, 2^64 over the golden ratio, and the two factors of its mixing function.
GOLDEN = _signed(0x9E3779B97F4A7C15)
FIRST_FACTOR = _signed(0xBF58476D1CE4E5B9)
SECOND_FACTOR = _signed(0x94D049BB133111EB)


def _shift(bits: Tensor, count: int) -> Tensor:
    """Logical shift to the right (torch's ``>>`` of a negative int64 carries the sign in)."""
    return (bits >> count).bitwise_and_((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    """One step of splitmix64 (Steele et al., OOPSLA 2014) on every element; int64 products wrap around."""
    return _mix_(bits.clone())


def _mix_(bits: Tensor) -> Tensor:
    """:func:`_mix` in place."""
    bits.add_(GOLDEN)
    bits.bitwise_xor_(_shift(bits, 30)).mul_(FIRST_FACTOR)
    bits.bitwise_xor_(_shift(bits, 27)).mul_(SECOND_FACTOR)
    return bits.bitwise_xor_(_shift(bits, 31))


def hash_pairs(ids: Tensor, left: Tensor, right: Tensor, hashes: int, codes: int) -> Tensor:
    """Codewords of every pair of field values, under every hash function.

    With mix = splitmix64 and i = left[p], j = right[p]::

        h_k(i, v_i, j, v_j) = mix( mix(mix(mix(k) ^ i) ^ v_i) ^ mix(mix(j) ^ v_j) )  without its sign bit,  mod codes

    Both halves are computed once a field, not once a pair: only the last step is as large as the result.

    Args:
        ids: (B, F) int64. left, right: (P,) positions of each pair's fields.
        hashes: m, the functions are k = 0 .. m-1. codes: n.

    Returns:
        (B, P, m) int64 in [0, codes).

    >>> hash_pairs(torch.tensor([[3, 8]]), torch.tensor([0]), torch.tensor([1]), 2, 1000).shape
    torch.Size([1, 1, 2])
    """
    fields = torch.arange(ids.shape[1], device=ids.device)
    seeds = _mix(torch.arange(hashes, device=ids.device))
    first = _mix(_mix(seeds ^ fields[:, None]) ^ ids[:, :, None])  # (B, F, m)
    second = _mix(_mix(fields) ^ ids)[:, :, None]  # (B, F, 1)
    if exporting():
        mixed = _mix(first.index_select(1, left) ^ second.index_select(1, right))
        return torch.remainder(mixed & (2**63 - 1), codes)
    found = ids.new_empty(len(ids), len(left), hashes)
    rows = max(1, HASHED_AT_ONCE // (len(left) * hashes))
    for start in range(0, len(ids), rows):  # what a step writes is still in the cache when the next one reads it
        part = slice(start, start + rows)
        # (rows, P, m); the second field's hash has no k and is broadcast over m.
        mixed = first[part].index_select(1, left).bitwise_xor_(second[part].index_select(1, right))
        torch.remainder(_mix_(mixed).bitwise_and_(2**63 - 1), codes, out=found[part])
    return found
