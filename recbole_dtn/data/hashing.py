"""Numbers that follow from names: the same in numpy and in plain Python, whatever the machine."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["GOLDEN", "Floats", "Ints", "Keys", "bits", "effects", "mix", "rng", "text_key", "uniform"]

Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""The increment of splitmix64, 2^64 over the golden ratio."""


def mix(keys: ArrayLike) -> Keys:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014), a bijection of 64 bits.

    >>> hex(int(mix(np.array([1], dtype=np.uint64))[0]))
    '0x5692161d100b05e5'
    """
    # A copy, which the next lines change. Products of arrays wrap at 2^64 without a warning (those of numpy scalars
    # warn).
    z: Any = np.array(keys, dtype=np.uint64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.asarray(z, dtype=np.uint64)


def text_key(text: str) -> int:
    """64 bits of a text: blake2b with a digest of 8 bytes over its UTF-8, read little-endian."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def bits(name: str, keys: ArrayLike) -> Keys:
    """64 pseudo-random bits per key: ``mix(text_key(name) ^ mix(key + 0x9E37...7C15))``."""
    # Negative keys wrap: -1 is 2^64 - 1.
    return mix(np.uint64(text_key(name)) ^ mix(np.asarray(keys).astype(np.uint64) + GOLDEN))


def uniform(name: str, keys: ArrayLike) -> Floats:
    """A number in [0, 1) per key: the upper 53 bits of ``bits``."""
    # 53 bits, as many as float64 holds exactly.
    upper = (bits(name, keys) >> np.uint64(11)).astype(np.float64)
    return np.asarray(upper * 2.0**-53, dtype=np.float64)


def effects(seed: int, task: str, field: str, keys: ArrayLike) -> Floats:
    """The planted effect of each token of a field on a task, close to N(0, 1).

    ``e = (q1 + q2 + q3 + q4 - 131070) sqrt(3) / 65536``, where the q are the four 16-bit parts of
    ``bits("<seed>|<task>|<field>", key)``: a sum of four uniforms with mean 0 and variance 1, within +-3.47. Only
    integers and one product are in it, so that any language finds the same number.

    Args:
        seed: of the set. task, field: names. keys: of the tokens: the integer where tokens are integers, else
            ``text_key``.
    """
    h = bits(f"{seed}|{task}|{field}", keys)
    low = np.uint64(0xFFFF)
    # At most 4 (2^16 - 1), mean 131070, variance 4 (2^32 - 1) / 12, which is about (65536 / sqrt 3)^2.
    total = (h & low) + ((h >> np.uint64(16)) & low) + ((h >> np.uint64(32)) & low) + (h >> np.uint64(48))
    return np.asarray((total.astype(np.float64) - 131070.0) * (3.0**0.5 / 65536.0), dtype=np.float64)


def rng(seed: int, stream: str, block: int) -> np.random.Generator:
    """The generator of one block of one stream; nothing but ``random()`` is drawn from it."""
    # ``random()`` is the upper 53 bits of each PCG64 number; numpy may change how its other methods draw.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, text_key(stream), block])))
