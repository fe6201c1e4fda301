"""Mutations of bytes, each described by a few bytes, so that hypothesis can draw and shrink them too."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["OP_BYTES", "Op", "mutated"]

OP_BYTES = 7
"""Bytes of a plan that describe one mutation: its kind, a place, an argument, and a choice."""
NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
LARGEST = 1 << 16
"""Bytes that one mutation adds at most."""

LIMITS = (
    b"0", b"-0", b"-1", b"127", b"128", b"255", b"256", b"32767", b"65536", b"2147483647", b"2147483648", b"4294967296",
    b"9223372036854775807", b"9223372036854775808", b"1e308", b"1e309", b"-1e400", b"1e-400", b"4.9e-324", b"3.5e38",
    b"1.7976931348623157e308", b"0.1", b"007", b"+5", b".5", b"5.", b"1e", b"1_000", b"0x10", b"1,5", b"inf",
    b"-Infinity", b"nan", b"NaN", b"NULL", b"None", b"true", b"False", b"~", b"", b" ", b"9" * 400,
    b"0." + b"0" * 400 + b"1",
)  # fmt: skip
UNICODE = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in ("\u202e", "\u2028", "\u0085", "\u00a0", "\ufeff", "\u200b", "\U0001f600", "é", "e\u0301", "ẞ", "İ",
                 "٣", "１", "\ud800", "\uffff", "\U0010ffff", "日本")
)  # fmt: skip
MARKS = (
    b"\0", b"\t", b"\n", b"\r", b"\r\n", b"\x0b", b"\x0c", b"\x1b[31m", b"\x7f", b" ", b'"', b"'", b"`", b"%", b"%41",
    b"%4EA",
    b"\\", b"/", b"../", b":", b",", b";", b"|", b"#", b"[", b"]", b"{", b"}", b"(", b")", b"<", b"=", b"==", b"--",
    b"&a", b"*a", b"!!python/object:os.system", b"[PAD]", b"NA", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80",
)  # fmt: skip


@dataclass(frozen=True)
class Op:
    """One mutation: ``at`` in [0, 65535] is a place as a share of the data, ``size`` and ``choice`` what is done."""

    kind: int
    at: int
    size: int
    choice: int

    @classmethod
    def read(cls, plan: bytes) -> Op:
        """From :data:`OP_BYTES` bytes."""
        return cls(plan[0], plan[1] << 8 | plan[2], plan[3] << 8 | plan[4], plan[5] << 8 | plan[6])

    def place(self, data: bytes) -> int:
        """Its place in data."""
        return self.at * (len(data) + 1) >> 16


def _flip(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at = op.place(data)
    return data[:at] + bytes([data[at] ^ 1 << op.choice % 8]) + data[at + 1 :] if at < len(data) else data


def _byte(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at = op.place(data)
    return data[:at] + bytes([op.choice % 256]) + data[at + 1 :]


def _truncate(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    return data[: op.place(data)]


def _delete(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at = op.place(data)
    return data[:at] + data[at + 1 + op.size % 64 :]


def _insert(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at, chosen = op.place(data), [*MARKS, *UNICODE, *words]
    return data[:at] + chosen[op.choice % len(chosen)] + data[at:]


def _replace(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at, chosen = op.place(data), [*words, *MARKS, *UNICODE, *LIMITS]
    return data[:at] + chosen[op.choice % len(chosen)] + data[at + op.size % 8 :]


def _number(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    found = [match.span() for match in NUMBER.finditer(data)]
    if not found:
        return _insert(data, op, other, words)
    start, stop = found[op.at * len(found) >> 16]
    return data[:start] + LIMITS[op.choice % len(LIMITS)] + data[stop:]


def _duplicate(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at = op.place(data)
    piece = data[at : at + 1 + op.size % 64]
    return data[:at] + (piece * (1 + op.choice % 4))[:LARGEST] + data[at:]


def _repeat(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at = op.place(data)
    piece = data[at : at + 1 + op.size % 4]
    return data[:at] + (piece * (1 << op.choice % 13))[:LARGEST] + data[at:]


def _splice(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    return data[: op.place(data)] + other[op.size * (len(other) + 1) >> 16 :]


def _move(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    at = op.place(data)
    piece = data[at : at + 1 + op.choice % 32]
    rest = data[:at] + data[at + len(piece) :]
    to = op.size * (len(rest) + 1) >> 16
    return rest[:to] + piece + rest[to:]


def _lines(data: bytes, op: Op, other: bytes, words: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    one, two = op.at * len(lines) >> 16, op.size * len(lines) >> 16
    match op.choice % 4:
        case 0:
            lines[one], lines[two] = lines[two], lines[one]
        case 1:
            lines.insert(two, lines[one])
        case 2:
            del lines[one]
        case _:
            lines[one] += b"\r"
    return b"\n".join(lines)


KINDS: tuple[Callable[[bytes, Op, bytes, Sequence[bytes]], bytes], ...] = (
    _flip, _byte, _insert, _replace, _number, _delete, _lines, _duplicate, _truncate, _splice, _move, _repeat,
)  # fmt: skip


def mutated(plan: bytes, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """The data that a plan describes.

    Args:
        plan: two bytes that choose a seed and one to splice with, then :data:`OP_BYTES` for each mutation; what is left
            over is not read. seeds: what is mutated. words: of the format, inserted like the general ones.

    >>> mutated(bytes([0, 0, 2, 0, 0, 0, 0, 0, 1]), [b"abc"])
    b'\\tabc'
    """
    data, other = seeds[plan[0] % len(seeds)], seeds[plan[1] % len(seeds)]
    for start in range(2, len(plan) - OP_BYTES + 1, OP_BYTES):
        op = Op.read(plan[start : start + OP_BYTES])
        data = KINDS[op.kind % len(KINDS)](data, op, other, words)
    return data
