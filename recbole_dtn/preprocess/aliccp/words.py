"""Texts of a block as words of eight bytes, so that digits are checked and cells are cut without a Python loop.

The first character of a text is the lowest byte of its word; bytes beyond its end are zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BYTES", "HIGH_SEVEN", "Text", "decimal", "digits", "hexadecimal", "mask", "plain_number", "word"]

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

BYTES = 8
# Zero bytes behind the text: more than the longest value, so that its last word can be read without a check.
PADDING = 80
# MASKS[n] keeps the first n bytes.
MASKS = np.array([(1 << 8 * length) - 1 for length in range(BYTES + 1)], np.uint64)
HIGH_SEVEN = np.uint64(0xFFFFFFFFFFFFFF00)
"""All bytes of a word but its first."""


def every(byte: int) -> np.uint64:
    """A word of eight equal bytes."""
    return np.uint64(byte * 0x0101010101010101)


ZEROS, LOW_BITS, SIGNS = every(0x30), every(0x0F), every(0x80)
POINT = every(ord(".") ^ ord("0"))
ABOVE_NINE, LOW_SEVEN = every(0x76), every(0x7F)
ONE = np.uint64(1)


def word(text: bytes) -> np.uint64:
    """A text of at most eight bytes.

    >>> hex(word(b"01"))
    '0x3130'
    """
    return np.uint64(int.from_bytes(text, "little"))


def mask(lengths: Ints, place: int) -> Words:
    """Which bytes of the ``place``-th words belong to texts of these lengths."""
    found: Words = MASKS[np.minimum(np.maximum(lengths - BYTES * place, 0), BYTES)]
    return found


class Text:
    """The bytes of a block, of which eight can be read at any place."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        words = np.zeros((self.size + PADDING) // BYTES, np.uint64)
        self.bytes = words.view(np.uint8)
        self.bytes[: self.size] = np.frombuffer(data, np.uint8)
        # One word per byte of the text (stride 1): words that overlap, read at any address.
        self._words: Words = np.ndarray((len(self.bytes) - BYTES + 1,), "<u8", words.data, strides=(1,))

    def words(self, at: Ints, lengths: Ints, place: int = 0) -> Words:
        """The ``place``-th words of the texts that begin at ``at``."""
        return self.eight(at, place) & mask(lengths, place)

    def eight(self, at: Ints, place: int = 0) -> Words:
        """The ``place``-th eight bytes from ``at``."""
        return self._words[at + BYTES * place if place else at]

    def cut(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``."""
        return self.bytes[start:end].tobytes()


def digits(words: Words, kept: Words) -> Flags:
    """Whether all bytes under the mask ``kept`` are decimal digits."""
    found = (words ^ ZEROS) & kept
    # A digit is 0 to 9 after the exclusive or. Adding 0x76 sets the sign bit of 10 to 127; larger bytes have it
    # already. A carry out of such a byte can only change words that are invalid anyway.
    valid: Flags = (((found + ABOVE_NINE) | found) & SIGNS) == 0
    return valid


def plain_number(words: Words, kept: Words) -> tuple[Flags, Words]:
    """Whether all bytes under the mask are digits or points, and a word with the sign bit of each point set."""
    found = (words ^ ZEROS) & kept
    # Zero in the bytes of points. The next line sets the sign bit of zero bytes alone, and no byte carries into
    # another.
    other = found ^ POINT
    points = ~(((other & LOW_SEVEN) + LOW_SEVEN) | other | LOW_SEVEN) & SIGNS
    # Points count as the digit 0.
    found &= ~((points >> np.uint64(7)) * np.uint64(0xFF))
    return (((found + ABOVE_NINE) | found) & SIGNS) == 0, points


def decimal(words: Words, lengths: Ints) -> Words:
    """The numbers that texts of at most eight digits spell; 0 for an empty one.

    >>> decimal(np.array([word(b"120"), word(b"")]), np.array([3, 0])).tolist()
    [120, 0]
    """
    # The last digit moves to the highest byte; zero bytes below count as leading zeros. Eight digits are then added up
    # in pairs, fours and eights, each step by one product.
    shift = (BYTES * (BYTES - np.clip(lengths, 1, BYTES))).astype(np.uint64)
    found = (words << shift) & LOW_BITS
    found = ((found * np.uint64(10 * 256 + 1)) >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    found = ((found * np.uint64(100 * 65536 + 1)) >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    return (found * np.uint64(10000 * (1 << 32) + 1)) >> np.uint64(32)


def hexadecimal(words: Words) -> tuple[Words, Flags]:
    """The numbers that texts of eight digits 0-9 a-f spell, and which texts are such.

    >>> number, valid = hexadecimal(np.array([word(b"000091a8"), word(b"000091A8")]))
    >>> hex(number[0]), valid.tolist()
    ('0x91a8', [True, False])
    """
    # Letters have bit 6 set: their low bits are 1 to 6, for 10 to 15.
    nibbles = (words & LOW_BITS) + ((words >> np.uint64(6)) & every(1)) * np.uint64(9)
    above = ((nibbles + every(6)) >> np.uint64(4)) & every(1)
    # Valid where spelling the nibbles again gives the same text ("a" is "0" + 10 + 0x27).
    valid = ((nibbles & LOW_BITS) == nibbles) & (nibbles + ZEROS + above * np.uint64(0x27) == words)
    # The first character, in the lowest byte, is the most significant: the halves of each step change places.
    pairs = ((nibbles << np.uint64(4)) | (nibbles >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    fours = ((pairs << np.uint64(8)) | (pairs >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return ((fours << np.uint64(16)) | (fours >> np.uint64(32))) & np.uint64(0xFFFFFFFF), valid
