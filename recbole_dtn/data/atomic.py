"""RecBole's atomic files, read in blocks with Polars.

An atomic file is UTF-8 text: a header ``name:type`` per column, tabs between columns, one row per line. Types are
``token``, ``token_seq`` (values with a space between), ``float`` and ``float_seq``. A table may lie in several parts
(``<name>.train.inter``, ...). Structure is checked on every read; a fault is reported with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recbole_dtn.data.ahead import ahead
from recbole_dtn.data.escape import MISSING_WORDS
from recbole_dtn.data.long_lines import MAX_LINE, check_blank_lines, check_line_lengths, too_long
from recbole_dtn.errors import DataError, nearest, why

__all__ = [
    "BOM",
    "TYPES",
    "AtomicTable",
    "Batch",
    "FileFault",
    "Header",
    "Tap",
    "blocks",
    "count_bytes",
    "missing_mask",
    "parse_block",
    "parse_floats",
    "raise_first",
    "read_header",
    "structure_faults",
]

TYPES = ("token", "token_seq", "float", "float_seq")
# Several blocks are in memory at a time: one is read, one parsed, and one with the caller.
BLOCK_BYTES = 1 << 24
HEADER_BYTES = 1 << 24  # of its first line
# Bytes compared at a time by count_bytes.
COUNTED_BYTES = 1 << 18
BOM = b"\xef\xbb\xbf"
BLANK_CELL = re.compile(rb"[\t\n] +[\t\r\n]")
BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)

Tap = Callable[[Path, bytes], None]
"""Sees every byte of a file that is read, the header first, in pieces and in order."""


@dataclass(frozen=True, order=True)
class FileFault:
    """Something wrong in a file (line 0: in the file or folder as a whole).

    ``fatal``: the row cannot be read; otherwise only stock RecBole would misread it. ``kind`` is the reason without the
    row's own value: faults of one kind are grouped. Empty: ``kind`` is the reason.
    """

    file: str
    line: int
    reason: str
    fatal: bool = True
    kind: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


def raise_first(faults: Sequence[FileFault]) -> None:
    """Raise the first fatal fault, if any, saying how many there are."""
    fatal = sorted(fault for fault in faults if fault.fatal)
    if fatal:
        more = f" (and {len(fatal) - 1} more; `data validate` lists them)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0]}{more}")


@dataclass(frozen=True)
class Header:
    """Columns of one file, with the length of the header line in bytes."""

    path: Path
    names: tuple[str, ...]
    types: tuple[str, ...]
    length: int

    def type_of(self, name: str) -> str:
        """The type of a column."""
        return self.types[self.names.index(name)]


def read_header(path: Path) -> Header:
    """Read and check the first line.

    Raises:
        DataError: for a missing file, a byte order mark, text that is not UTF-8, a lone carriage return, a column
            without a known type, a colon in a name, or a duplicate column.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(HEADER_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read {why(error)}") from None
    where = f"{path}, line 1"
    if len(line) > HEADER_BYTES:
        raise too_long(str(path), 1, HEADER_BYTES)
    if line.startswith(BOM):
        raise DataError(f"{where}: starts with a byte order mark; save the file as UTF-8 without one")
    try:
        text = line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    if "\r" in text:
        raise DataError(f"{where}: a carriage return without a line feed; convert the line ends to \\n")
    if not text.strip():
        raise DataError(f"{where}: expected a header such as user_id:token<tab>rating:float, found an empty line")
    names, types = [], []
    for column in text.split("\t"):
        name, colon, kind = column.partition(":")
        if not colon or not name:
            raise DataError(f"{where}: column {column!r} has no type; expected name:type with {', '.join(TYPES)}")
        if kind not in TYPES:
            raise DataError(f"{where}: column {column!r}: unknown type {kind!r} ({nearest(kind, TYPES)})")
        if name in names:
            raise DataError(f"{where}: column {name!r} is there twice; remove one")
        names.append(name)
        types.append(kind)
    return Header(path, tuple(names), tuple(types), len(line))


@dataclass(frozen=True)
class Batch:
    """Rows of one block of one file: text columns as ``String``, floats as ``Float64`` (missing: null)."""

    frame: pl.DataFrame
    header: Header
    block: bytes
    first_line: int

    def line(self, row: int) -> int:
        """Line in the file of a row of ``frame``."""
        return _line_of_row(self.block, self.first_line, row)


class AtomicTable:
    """One table in one or more files with the same columns.

    Args:
        paths: the parts in the order of their rows.

    Raises:
        DataError: for a faulty header, or parts with different columns.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.headers = tuple(read_header(path) for path in paths)
        first = self.headers[0]
        for other in self.headers[1:]:
            if (other.names, other.types) != (first.names, first.types):
                raise DataError(
                    f"{other.path}, line 1: its columns differ from those of {first.path.name}: expected "
                    f"{_spelled(first)}, found {_spelled(other)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        return self.headers[0].names

    def type_of(self, name: str) -> str:
        """The type of a column."""
        return self.headers[0].type_of(name)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The parts."""
        return tuple(header.path for header in self.headers)

    def batches(
        self, columns: Sequence[str] | None = None, *, part: int | None = None, tap: Tap | None = None
    ) -> Generator[Batch]:
        """Blocks of rows over all parts (or one), with the columns asked for.

        A block is read and the one before it parsed while the caller works on the one before that.

        Args:
            columns: names; None for all. part: one file only. tap: shown the bytes of the files, in a thread.

        Raises:
            DataError: at the first row of another shape, text that is not UTF-8, or float that is not a number.
        """
        # Two threads: `_parsed` runs in one, and reads from another.
        return ahead(self._parsed(columns, part, tap), 1)

    def _parsed(self, columns: Sequence[str] | None, part: int | None, tap: Tap | None) -> Generator[Batch]:
        headers = self.headers if part is None else self.headers[part : part + 1]
        for header in headers:
            with closing(ahead(blocks(header, tap), 1)) as found:
                for block, first_line in found:
                    # First with numbers parsed by Polars. What it cannot read is parsed again as text: to skip blank
                    # lines, accept more spellings of numbers, or say what is wrong.
                    frame = _read(header, block, list(header.names if columns is None else columns), numbers=True)
                    if frame is None:
                        frame = parse_block(header, block, first_line, columns)
                    yield _with_floats(Batch(frame, header, block, first_line))

    def locate(self, row: int) -> tuple[Path, int]:
        """File and line of a row counted over all parts (reads the file again: for messages only)."""
        for header in self.headers:
            for block, first_line in blocks(header):
                # Blank lines are no rows.
                rows = sum(1 for line in block.split(b"\n") if line.strip(b"\r"))
                if row < rows:
                    return header.path, _line_of_row(block, first_line, row)
                row -= rows
        raise IndexError(row)


def _spelled(header: Header) -> str:
    return " ".join(f"{name}:{kind}" for name, kind in zip(header.names, header.types, strict=True))


def blocks(header: Header, tap: Tap | None = None) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines after the header, about ``BLOCK_BYTES`` at a time, with the line number of the first."""
    line = 2
    with header.path.open("rb") as file:
        first = file.read(header.length)
        if tap is not None:
            tap(header.path, first)
        while block := file.read(BLOCK_BYTES):
            if not block.endswith(b"\n"):
                # Complete the last line (that of the file may lack its line feed).
                block = b"".join((block, file.readline(MAX_LINE + 1)))
                check_line_lengths(block, str(header.path), line, MAX_LINE)
            if tap is not None:
                tap(header.path, block)
            check_blank_lines(block, str(header.path), line)
            yield block, line
            line += count_bytes(block, b"\n")


def count_bytes(data: bytes, byte: bytes) -> int:
    """Count a byte. Twice as fast as ``bytes.count``, and numpy releases the interpreter lock meanwhile."""
    values, wanted = np.frombuffer(data, np.uint8), ord(byte)
    # In pieces that stay in the processor's cache with their comparison.
    return sum(
        int(np.count_nonzero(values[at : at + COUNTED_BYTES] == wanted)) for at in range(0, len(values), COUNTED_BYTES)
    )


def parse_block(header: Header, block: bytes, first_line: int, columns: Sequence[str] | None) -> pl.DataFrame:
    """Parse a block into text columns, skipping blank lines.

    Raises:
        DataError: at the first line of another shape than the header's.
    """
    wanted = list(header.names if columns is None else columns)
    frame = _read(header, block, wanted)
    if frame is None and _has_blank_line(block):
        # Only checked after a failure: most files have no blank line, and one reads as a row without tabs.
        frame = _read(header, BLANK_LINE.sub(b"", block), wanted)
    if frame is None:
        raise_first(structure_faults(header, block, first_line))
        raise DataError(f"{header.path}: lines {first_line} onwards cannot be read as a table")
    return frame


def _read(header: Header, rows: bytes, wanted: list[str], *, numbers: bool = False) -> pl.DataFrame | None:
    """The rows, or None when some line has another number of columns or cannot be read.

    With ``numbers``, float columns are parsed on the way; a text that is not a plain number gives None too.
    """
    schema: dict[str, Any] = dict.fromkeys(header.names, pl.String)
    if numbers:
        schema |= {name: pl.Float64 for name in wanted if header.type_of(name) == "float"}
    if not rows:
        return pl.DataFrame(schema={name: schema[name] for name in wanted})
    # Polars takes CRLF for a line's end and keeps a lone carriage return as part of a value.
    if b"\r" in rows and rows.count(b"\r") != rows.count(b"\r\n"):
        return None
    # With one column a blank line has the right number of tabs: the count below would not notice it.
    if len(header.names) == 1 and _has_blank_line(rows):
        return None
    places = [header.names.index(name) for name in wanted]
    # With a subset of columns, Polars checks only those and accepts rows with too many values.
    if len(wanted) < len(header.names) and not _is_even(rows, len(header.names)):
        return None
    # Polars drops a leading byte order mark, which here belongs to a value: put a dummy row before it.
    added = b"0" + b"\t" * (len(header.names) - 1) + b"\n" if rows.startswith(BOM) else b""
    try:
        frame = pl.read_csv(
            added + rows if added else rows,
            separator="\t",
            quote_char=None,
            has_header=False,
            schema=schema,
            columns=places,
        )
    except pl.exceptions.PolarsError:
        return None
    frame = frame.slice(1) if added else frame
    # Polars takes spaces alone for a missing number.
    if numbers and any(frame[n].null_count() for n in wanted if schema[n] == pl.Float64) and _has_blank_cell(rows):
        return None
    # Polars pads short rows with nulls. It refuses long ones, so a right total means that every row is right.
    return frame.select(wanted) if count_bytes(rows, b"\t") == frame.height * (len(header.names) - 1) else None


def _is_even(rows: bytes, columns: int) -> bool:
    """Whether every line has the same number of tabs as the header."""
    array = np.frombuffer(rows, np.uint8)
    # Every n-th mark must end a line. Some short rows pass: the total of tabs, checked after parsing, finds them. The
    # last line may lack its line feed.
    marks = array[(array == ord("\n")) | (array == ord("\t"))]
    return bool((marks[columns - 1 :: columns] == ord("\n")).all()) and len(marks) % columns in (0, columns - 1)


def _has_blank_cell(rows: bytes) -> bool:
    """Whether a cell holds spaces alone; the tests for plain text, a tenth of the pattern's time, come first."""
    ends = rows.endswith(b" ") or any(end in rows for end in (b" \t", b" \n", b" \r"))
    return ends and BLANK_CELL.search(b"".join((b"\n", rows, b"\n"))) is not None


def _has_blank_line(block: bytes) -> bool:
    return block.startswith((b"\n", b"\r\n")) or b"\n\n" in block or b"\n\r\n" in block


def structure_faults(header: Header, block: bytes, first_line: int) -> list[FileFault]:
    """Lines of another shape than the header's, lone carriage returns, and text that is not UTF-8."""
    found = []
    columns, name = len(header.names), str(header.path)
    # Slow, line by line: for blocks with a fault only.
    lines = block.split(b"\n")
    for number, line in enumerate(lines, first_line):
        # No line feed follows the last one.
        line = line.removesuffix(b"\r") if number - first_line < len(lines) - 1 else line
        if not line:
            continue
        tabs = line.count(b"\t") + 1
        if b"\r" in line:
            found.append(FileFault(name, number, "a carriage return without a line feed; convert the line ends to \\n"))
        elif tabs != columns:
            kind = "an extra tab" if tabs > columns else "a short row"
            expected = f"{kind}: expected {columns} columns as in the header"
            found.append(FileFault(name, number, f"{expected}, found {tabs}", kind=expected))
        else:
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                reason = f"not UTF-8 at byte {error.start} of the line; convert the file to UTF-8"
                found.append(FileFault(name, number, reason, kind="not UTF-8; convert the file to UTF-8"))
    return found


def _line_of_row(block: bytes, first_line: int, row: int) -> int:
    for number, line in enumerate(block.split(b"\n"), first_line):
        if line.strip(b"\r"):
            if row == 0:
                return number
            row -= 1
    raise IndexError(row)


def float_faults(batch: Batch, name: str, numbers: pl.Series) -> list[FileFault]:
    """Texts of a float column that are not a finite number (a missing word counts as missing, not as a fault here)."""
    texts = batch.frame[name]
    wrong = texts.is_not_null() & ~missing_mask(texts) & numbers.is_null()
    return [
        FileFault(
            str(batch.header.path), batch.line(row), f"column {name!r}: expected a finite number, found {texts[row]!r}"
        )
        for row in wrong.arg_true()
    ]


def missing_mask(texts: pl.Series) -> pl.Series:
    """Which texts are a word that stock RecBole reads as missing; false for null."""
    return texts.is_in(sorted(MISSING_WORDS)).fill_null(False)


def parse_floats(texts: pl.Series) -> pl.Series:
    """Texts as ``Float64``; null where they are not a finite number, perhaps between spaces (U+0020)."""
    numbers = texts.cast(pl.Float64, strict=False)
    # Polars reads no number with spaces around it; pandas does.
    if numbers.null_count() > texts.null_count():
        numbers = texts.str.strip_chars(" ").cast(pl.Float64, strict=False)
    return numbers if numbers.is_finite().all() else numbers.set(~numbers.is_finite(), None)


def _with_floats(batch: Batch) -> Batch:
    """The batch with its float columns parsed, where they are not yet."""
    floats: list[pl.Series] = []
    for name in batch.frame.columns:
        if batch.header.type_of(name) != "float":
            continue
        numbers = batch.frame[name]
        if numbers.dtype == pl.Float64 and not numbers.is_finite().all():
            # The spelling is needed for a message, and to tell a missing word from an infinite number.
            return _with_floats(_as_text(batch))
        if numbers.dtype == pl.String:
            numbers = parse_floats(batch.frame[name])
            if numbers.null_count() > batch.frame[name].null_count():
                # What is no fault is a word such as "nan", which means a missing number.
                raise_first(float_faults(batch, name, numbers))
            floats.append(numbers)
    return Batch(batch.frame.with_columns(floats), batch.header, batch.block, batch.first_line)


def _as_text(batch: Batch) -> Batch:
    frame = parse_block(batch.header, batch.block, batch.first_line, batch.frame.columns)
    return Batch(frame, batch.header, batch.block, batch.first_line)
