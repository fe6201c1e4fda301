"""Insert faulty rows between good ones at known lines, so that a parser's rejections can be checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

__all__ = ["KINDS", "LineFile", "spoil"]

KINDS = {
    "fields": "a column is missing",
    "separator": "a wrong separator between columns (or inside the feature list)",
    "label": "a label outside its set",
    "orphan": "the row of the other file that it needs does not exist",
    "overflow": "a number beyond 64 bits",
    "text": "a letter inside a number",
    "utf8": "bytes that are not UTF-8",
    "blank": "an empty line",
    "feature_num": "the number of features is not the one that is said",
}

Spoil = Callable[[str, bytes], bytes]


def spoil(
    kind: str, line: bytes, *, number: int, label: int | None = None, key: int = 0, separator: bytes = b","
) -> bytes:
    """One faulty row, made of a good one.

    Args:
        kind: of ``KINDS``. line: the good row, without its end. number: position of a column that holds an integer.
        label: position of the label. key: position of the key of the other file. separator: of columns.

    >>> spoil("label", b"1,0,0,ab", number=0, label=1)
    b'1,7,0,ab'
    """
    if kind == "blank":
        return b""
    columns = line.split(separator)
    if kind == "fields":
        return separator.join(columns[:-1])
    if kind == "separator":
        return b";".join(columns)
    if kind == "utf8":
        columns[number] = b"\xff\xfe" + columns[number]
    elif kind == "overflow":
        columns[number] = b"99999999999999999999"
    elif kind == "text":
        columns[number] = columns[number][:1] + b"x" + columns[number][1:]
    elif kind == "orphan":
        columns[key] = b"9" * 16
    elif kind == "label" and label is not None:
        columns[label] = b"7"
    else:
        raise ValueError(f"no fault {kind!r} here")
    return separator.join(columns)


@dataclass
class LineFile:
    """A file written in blocks of whole lines; faulty rows go between those of the first block.

    Args:
        name: as planted.json is to call it. stream: binary, open for writing.
        random: uniform numbers that place the faults. kinds: of faults, in ``KINDS``. each: how many of every kind.
        make: makes a faulty row of a kind from a good one.
    """

    name: str
    stream: IO[bytes]
    random: Callable[[int], Any] | None = None
    kinds: Sequence[str] = ()
    each: int = 0
    make: Spoil | None = None
    rows: int = 0
    lines: int = 0
    size: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)

    def header(self, text: str) -> None:
        """Write the header."""
        self._put(text.encode() + b"\n")
        self.lines += 1

    def write(self, data: bytes, rows: int) -> None:
        """Write a block of ``rows`` lines, each with its end."""
        # All faults lie in the first block, which every size of set has.
        if rows and self.each and not self.rows and self.make is not None:
            data = self._planted(data)
        self._put(data)
        self.rows += rows
        self.lines += rows

    def _put(self, data: bytes) -> None:
        self.stream.write(data)
        self.size += len(data)

    def _planted(self, data: bytes) -> bytes:
        assert self.random is not None
        assert self.make is not None
        good = data.split(b"\n")[:-1]
        kinds = [kind for kind in self.kinds for _ in range(self.each)]
        drawn = (self.random(2 * len(kinds)) * len(good)).astype(np.int64)
        # Where faulty rows go, and the good rows that they are made from; kinds come in drawn order.
        places, models = np.sort(drawn[: len(kinds)]), drawn[len(kinds) :]
        turns = np.argsort(self.random(len(kinds)), kind="stable")
        lines: list[bytes] = []
        done = 0
        for place, model, turn in zip(places.tolist(), models.tolist(), turns.tolist(), strict=True):
            # Good rows up to the next fault; their number and order stay.
            lines += good[done:place]
            done = place
            lines.append(self.make(kinds[turn], good[model]))
            self.faults.append({"file": self.name, "line": self.lines + len(lines), "kind": kinds[turn]})
        self.lines += len(kinds)
        return b"\n".join([*lines, *good[done:], b""])
