"""Rows of a text table that differ from an atomic file only by the separator: their bytes are checked and copied.

Parsing every value and printing it again takes most of the time of a table. It changes nothing where the data set has
the table's columns in their order, nothing is quoted or needs escaping, and numbers are integers in their shortest
spelling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.escape import needs_escaping
from recbole_dtn.data.write import ReadyRows
from recbole_dtn.preprocess.lines import is_utf8
from recbole_dtn.preprocess.table.plan import Plan

__all__ = ["PlainRows"]

LINE_FEED = ord("\n")
LONGEST_PAUSE = 31
"""Largest number of blocks that go to the parser unchecked."""
EXACT = 2**53
"""Integers below it are exact in float64."""
PIECE_BYTES = 1 << 17
"""Checked at a time, so that the bytes stay in the processor's cache: half the time of whole blocks."""
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]


class PlainRows:
    """Copies whole blocks of rows, or leaves them to the parser.

    A block that cannot be copied is likely followed by others: after each such block in a row, twice as many blocks go
    to the parser unchecked.

    Args:
        columns: of the table and the atomic file. floats: the positions of float columns. binary: of those, the labels
            that must be 0 or 1. quote: the quoting character, if any.
    """

    def __init__(self, columns: int, floats: Sequence[int], binary: Sequence[int], quote: str | None) -> None:
        self.columns, self.floats, self.binary = columns, list(floats), set(binary)
        self.quote = None if quote is None else quote.encode()
        # Blocks to leave unchecked, and how many of them were.
        self._pause = self._left_out = 0

    @classmethod
    def of(cls, plan: Plan, schema: pl.Schema) -> PlainRows | None:
        """For a plan that changes neither values nor the order of the text columns ``schema``; otherwise None."""
        reader, spec = plan.spec.reader, plan.spec
        changed = spec.filter is not None or plan.derived or plan.fill or plan.gaps or reader.strip
        padded = reader.separator is not None and len(reader.separator) > 1
        if changed or padded or reader.null_values or spec.weight_field is not None:  # a weight may not be negative
            return None
        names = list(plan.types)
        texts = all(kind == pl.String for kind in schema.values())
        if not texts or schema.names() != names or len(names) < 2 or not set(plan.types.values()) <= {"token", "float"}:
            return None
        floats = [at for at, name in enumerate(names) if plan.types[name] == "float"]
        return cls(len(names), floats, [at for at in floats if plan.is_binary(names[at])], reader.quote)

    def ready(self, data: bytes, separator: str) -> ReadyRows | None:
        """The rows of a block for :func:`~recbole_dtn.data.write.write_atomic`; None where a value must be looked at.

        Args:
            data: whole lines, each with its line feed. separator: one ASCII character.

        >>> PlainRows(3, [2], [2], '"').ready(b"a,b,1\\nc,,0\\n", ",")
        ReadyRows(data=b'a\\tb\\t1\\nc\\t\\t0\\n', height=2)
        >>> [PlainRows(3, [2], [2], '"').ready(data, ",") for data in (b"a,b,1.0\\n", b"a,b\\n", b"NA,b,1\\n")]
        [None, None, None]
        """
        if self._left_out < self._pause:
            self._left_out += 1
            return None
        found = self._taken_over(data, separator)
        # Pauses of 1, 3, 7, 15, then 31 blocks; none after a block that could be copied.
        self._left_out, self._pause = 0, min(2 * self._pause + 1, LONGEST_PAUSE) if found is None else 0
        return found

    def _taken_over(self, data: bytes, separator: str) -> ReadyRows | None:
        if self.quote is not None and self.quote in data:
            return None
        # One byte for another: the length stays, and so do the places of all values.
        text = data if separator == "\t" else data.translate(bytes.maketrans(separator.encode(), b"\t"))
        rows, longer = 0, set[int]()
        for piece in _pieces(text):
            array = np.frombuffer(piece, np.uint8)
            ends = self._ends(array)
            if ends is None or needs_escaping(piece, *ends.shape) != "no" or not is_utf8(piece):
                return None
            # One digit is an integer for certain; columns with longer values are parsed below, over the whole block.
            longer |= self._longer(array, ends)
            if not longer.isdisjoint(self.binary):
                return None
            rows += len(ends)
        return None if longer and not _are_integers(text, sorted(longer), self.columns) else ReadyRows(text, rows)

    def _ends(self, array: Bytes) -> Places | None:
        """Where each value ends, ``(rows, columns)``; None where rows are uneven or hold another control character."""
        # Sound rows hold no control characters but ``columns - 1`` tabs and a line feed each, so that these form a
        # grid.
        found = np.flatnonzero(array < ord(" "))
        rows, rest = divmod(len(found), self.columns)
        feeds = int(np.count_nonzero(array == LINE_FEED))
        if rest or feeds != rows or int(np.count_nonzero(array == ord("\t"))) != len(found) - rows:
            return None
        ends = found.reshape(rows, self.columns)
        # As many line feeds as rows, and one at the end of each row of the grid: none is elsewhere.
        return ends if (array[ends[:, -1]] == LINE_FEED).all() else None

    def _longer(self, array: Bytes, ends: Places) -> set[int]:
        """The float columns where some value is not one digit (a binary label: not 0 or 1)."""
        found = set()
        for column in self.floats:
            last = array[ends[:, column] - 1]
            # The end of the value before; -1 stands for the start of the piece.
            before = ends[:, column - 1] if column else np.append(-1, ends[:-1, -1])
            largest = ord("1") if column in self.binary else ord("9")
            # One byte long, and a digit.
            digits = (last >= ord("0")) & (last <= largest) & (before == ends[:, column] - 2)
            if not digits.all():
                found.add(column)
        return found


def _pieces(text: bytes) -> Iterator[bytes]:
    """The same lines, some at a time."""
    at = 0
    while at < len(text):
        # A line longer than PIECE_BYTES is a piece of its own.
        end = text.rfind(b"\n", at, at + PIECE_BYTES) + 1 or text.index(b"\n", at) + 1
        yield text[at:end]
        at = end


def _are_integers(text: bytes, wanted: Sequence[int], columns: int) -> bool:
    """Whether columns of even rows hold integers, spelled as an atomic file spells them.

    To check other numbers takes longer than to parse the rows and write them anew (measured: 1.3 times).
    """
    names = [str(column) for column in range(columns)]
    frame = pl.read_csv(
        text,
        separator="\t",
        quote_char=None,
        has_header=False,
        schema=dict.fromkeys(names, pl.String),
        columns=list(wanted),
    )
    for texts in frame.iter_columns():
        numbers = texts.cast(pl.Int64, strict=False)
        # Integers from 2^53 on change when they are read as float64 and printed again.
        if numbers.null_count() or not (numbers.abs() < EXACT).all() or not (numbers.cast(pl.String) == texts).all():
            return False
    return True
