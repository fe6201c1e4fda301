"""Read raw text tables in blocks of whole rows, and reject malformed rows with their line numbers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.ahead import ahead
from recbole_dtn.data.atomic import BOM, count_bytes
from recbole_dtn.data.long_lines import MAX_LINE, check_blank_lines, check_line_lengths
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.rejects import Tally, shown

__all__ = ["LINE", "QUOTE_HINT", "Lines", "is_utf8", "line_blocks", "read_table", "whole_rows"]

LINE = "\x00line"
"""Column of :func:`read_table`: the line of a row, from 1. No column of a data set can have that name."""
# Bytes of a block, and how many blocks are read ahead of the parser.
BLOCK_BYTES = 1 << 25
QUEUED = 2
PIECE_BYTES = 1 << 20
"""About how many bytes of a block with faulty rows are read row by row at a time."""
HELD_BYTES = 1 << 27
"""Longest quoted value, in bytes: an unclosed quote must not collect the rest of the file in memory."""
LONGER = "; --max_line=MIB allows longer ones"
MISPLACED = "misplaced quote"
QUOTE_HINT = (
    "a quote encloses a whole value, or is doubled inside one; of a table where quotes are ordinary characters, "
    "write reader: {quote: null} in the spec"
)


@dataclass(frozen=True)
class Lines:
    """Whole lines of a file, each ending with a line feed; ``first`` is the number of the first one."""

    data: bytes
    first: int


def line_blocks(
    raw: RawFile,
    *,
    quote: str | None = None,
    block_bytes: int = BLOCK_BYTES,
    meter: Meter = silent,
    max_line: int = MAX_LINE,
) -> Generator[Lines, None, None]:
    """Yield a file in blocks of whole rows, read ahead by a thread; CRLF becomes LF, a byte order mark is skipped.

    Args:
        raw: the file. quote: the quoting character; a line feed inside quotes does not end a row.
        block_bytes: about how many bytes a block has. meter: gets the progress. max_line: bytes of the longest line.

    Raises:
        DataError: for a file that cannot be read, a line of more than ``max_line`` bytes, or too many blank lines in a
            row.
    """
    return ahead(_read_blocks(raw, quote, block_bytes, meter, max_line), QUEUED)


def _read_blocks(raw: RawFile, quote: str | None, block_bytes: int, meter: Meter, max_line: int) -> Iterator[Lines]:
    line, rest, start = 1, b"", True
    stage = f"reading {raw.name}"
    with raw.open() as (stream, position):
        # `rest` is the incomplete row at the end of the last block; `line` is the number of its first line.
        while data := stream.read(block_bytes):
            if start:
                data, start = data.removeprefix(BOM), False
            rest += data
            check_line_lengths(rest, raw.name, line, max_line, hint=LONGER)
            cut = _cut(rest, quote)
            if not cut and len(rest) > HELD_BYTES:
                cut = rest.rfind(b"\n") + 1  # an unclosed quote: only its own line is faulty
            if not cut:
                continue
            block, rest = rest[:cut], rest[cut:]
            check_blank_lines(block, raw.name, line)
            yield Lines(_normalised(block, quote), line)
            line += count_bytes(block, b"\n")
            meter(stage, position(), raw.size)
    if rest:
        # The last row of a file may lack its line feed.
        yield Lines(_normalised(rest if rest.endswith(b"\n") else rest + b"\n", quote), line)
    meter(stage, raw.size, raw.size)


def _normalised(block: bytes, quote: str | None) -> bytes:
    """Replace CRLF by LF, except inside quotes, where it is part of a value."""
    if b"\r" not in block:
        return block
    if quote is None or quote.encode() not in block:
        return block.replace(b"\r\n", b"\n")
    array = np.frombuffer(block, np.uint8)
    # True at a carriage return (13) outside quotes that a line feed (10) follows.
    ends = (array[:-1] == 13) & (array[1:] == 10) & (_inside(array, quote)[:-1] == 0)
    kept: bytes = array[np.append(~ends, True)].tobytes()
    return kept


def _cut(data: bytes, quote: str | None) -> int:
    """The end of the last complete row, 0 where there is none."""
    # Most blocks: no quotes at all, or all of them closed before the last line feed.
    end = data.rfind(b"\n") + 1
    if quote is None or quote.encode() not in data:
        return end
    if data.count(quote.encode(), 0, end) % 2 == 0:
        return end
    # The last line feed is inside quotes. Line feeds outside have an even number of quotes before them.
    array = np.frombuffer(data, np.uint8, count=end)
    outside = (array == 10) & (_inside(array, quote) == 0)
    found = np.flatnonzero(outside)
    return int(found[-1]) + 1 if len(found) else 0


def _inside(array: npt.NDArray[np.uint8], quote: str) -> npt.NDArray[np.uint8]:
    """Per byte, 1 inside quotes and 0 outside (closing quote: outside): the parity of the number of quotes so far."""
    # uint8 overflows at 256 quotes, which leaves the parity as it is and takes an eighth of the memory of int64.
    parity: npt.NDArray[np.uint8] = np.cumsum(array == ord(quote), dtype=np.uint8) & np.uint8(1)
    return parity


def read_table(
    lines: Lines,
    columns: Sequence[str],
    tally: Tally,
    file: str,
    *,
    separator: str = ",",
    quote: str | None = None,
    strip: bool = False,
    wanted: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Parse a block into text columns and :data:`LINE`; an empty cell is null.

    Rejected are blank lines, and rows with another number of columns, text that is not UTF-8 or a misplaced quote.
    Every row counts in ``tally.rows_in``.

    Args:
        lines: the block. columns: names of all columns. tally: of the table. file: as messages call it.
        separator: one character. quote: the quoting character, or None. strip: remove white space around values.
        wanted: the columns to be returned; None: all.
    """
    wanted = columns if wanted is None else wanted
    frame = _read(lines.data, columns, separator, quote, wanted)
    if frame is not None:
        tally.rows_in += frame.height
        frame = frame.with_columns(_line_numbers(lines, frame.height, quote).alias(LINE))
    else:
        pieces = _pieces(lines, quote)
        frame = pl.concat(_read_slowly(piece, columns, tally, file, separator, quote, wanted) for piece in pieces)
    return frame.with_columns(pl.col(list(wanted)).str.strip_chars().replace("", None)) if strip else frame


def _read(
    data: bytes, columns: Sequence[str], separator: str, quote: str | None, wanted: Sequence[str]
) -> pl.DataFrame | None:
    """The rows, or None when some row is malformed."""
    if not data:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
    array = np.frombuffer(data, np.uint8)
    if quote is not None and quote.encode() in data:
        # Polars and the csv module read misplaced quotes differently: such blocks are read row by row.
        if not _well_quoted(array, separator, quote):
            return None
    else:
        # Without a quote in the block, no per-byte parity is needed.
        quote = None
    shape = _shape(data, array, len(columns), separator, quote)
    if shape is None:
        return None
    rows, separators = shape
    # Polars pads short rows with nulls, so the number of separators is checked here.
    if separators != rows * (len(columns) - 1):
        return None
    # At least one column, so that the frame has a height.
    read = wanted or columns[:1]
    names = sorted(read, key=columns.index)
    # With a subset of columns, Polars checks only those and accepts rows with too many values.
    if len(names) < len(columns) and not (_is_even(array, len(columns), separator, quote) and is_utf8(data)):
        return None
    # Polars drops a leading byte order mark, which here belongs to a value: put a dummy row before it.
    added = ("x" + separator * (len(columns) - 1) + "\n").encode() if data.startswith(BOM) else b""
    try:
        frame = pl.read_csv(
            added + data,
            separator=separator,
            quote_char=quote,
            has_header=False,
            schema=dict.fromkeys(columns, pl.String),
            columns=None if len(names) == len(columns) else [columns.index(name) for name in names],
        )
    except pl.exceptions.PolarsError:
        return None
    frame = frame.slice(1) if added else frame
    return frame.select(read) if frame.height == rows else None


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8; ASCII is found without decoding."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
    return True


def _shape(
    data: bytes, array: npt.NDArray[np.uint8], columns: int, separator: str, quote: str | None
) -> tuple[int, int] | None:
    """The numbers of rows and separators; None where there is a lone carriage return or a blank line.

    Polars would drop a carriage return at the end of a value, and some blank lines. With several columns, a blank line
    is noticed by its missing separators.
    """
    if quote is None:
        if b"\r" in data or (columns == 1 and (data.startswith(b"\n") or b"\n\n" in data)):
            return None
        return count_bytes(data, b"\n"), count_bytes(data, separator.encode())
    outside = _inside(array, quote) == 0
    # A line feed at the start or after another one is a blank line; carriage returns outside quotes are lone, as CRLF
    # was replaced.
    feeds = (array == 10) & outside
    if feeds[0] or (feeds[:-1] & feeds[1:]).any() or ((array == 13) & outside).any():
        return None
    return int(np.count_nonzero(feeds)), int(np.count_nonzero((array == ord(separator)) & outside))


def _is_even(array: npt.NDArray[np.uint8], columns: int, separator: str, quote: str | None) -> bool:
    """Whether every row has ``columns`` values, given that the total number of separators is right."""
    marks = (array == 10) | (array == ord(separator))
    if quote is not None:
        marks &= _inside(array, quote) == 0
    # With the right total, rows are even exactly when every columns-th mark is a line feed.
    ends: npt.NDArray[np.bool_] = array[marks][columns - 1 :: columns] == 10
    return bool(ends.all())


def _well_quoted(array: npt.NDArray[np.uint8], separator: str, quote: str) -> bool:
    """Whether quotes only enclose whole values or are doubled inside them: Polars and ``csv`` then agree."""
    places = np.flatnonzero(array == ord(quote))
    if len(places) % 2:
        return False
    allowed = np.zeros(256, bool)
    allowed[[ord(separator), 10, ord(quote)]] = True
    # An opening quote follows a separator, a line feed or a quote; a closing one precedes such a character. A doubled
    # quote inside a value is a closing and an opening one side by side, so both sides are allowed.
    opening, closing = places[::2], places[1::2]
    # A quote at place 0 has nothing before it: index -1 reads the last byte, and the second condition decides.
    before = allowed[array[opening - 1]] | (opening == 0)
    after = allowed[array[np.minimum(closing + 1, len(array) - 1)]]
    return bool(before.all() and after.all())


def _line_numbers(lines: Lines, rows: int, quote: str | None) -> pl.Series:
    numbers = np.arange(lines.first, lines.first + rows)
    if quote is not None and quote.encode() in lines.data:
        array = np.frombuffer(lines.data, np.uint8)
        # Row r begins on the line after the line feed that ends row r - 1; line feeds inside quotes count as lines.
        feeds = np.flatnonzero(array == 10)
        ends = np.flatnonzero(_inside(array, quote)[feeds] == 0)
        numbers = lines.first + np.append(0, ends[:-1] + 1)
    return pl.Series(numbers, dtype=pl.Int64)


def _pieces(lines: Lines, quote: str | None) -> Iterator[Lines]:
    """A block in pieces of whole lines, about ``PIECE_BYTES`` each; with quotes as one."""
    if quote is not None and quote.encode() in lines.data:
        yield lines
        return
    start, first = 0, lines.first
    while start < len(lines.data):
        stop = lines.data.find(b"\n", start + PIECE_BYTES - 1) + 1 or len(lines.data)
        piece = lines.data[start:stop]
        yield Lines(piece, first)
        start, first = stop, first + count_bytes(piece, b"\n")


def _read_slowly(
    lines: Lines,
    columns: Sequence[str],
    tally: Tally,
    file: str,
    separator: str,
    quote: str | None,
    wanted: Sequence[str],
) -> pl.DataFrame:
    """A block with faulty rows, row by row."""
    kept: list[bytes] = []
    numbers: list[int] = []
    wrong: dict[str, list[tuple[int, bytes]]] = {}
    for number, row in whole_rows(lines, quote, separator):
        tally.rows_in += 1
        reason = row_fault(row, len(columns), separator, quote)
        if reason is None:
            kept.append(row)
            numbers.append(number)
        else:
            wrong.setdefault(reason, []).append((number, row))
    for reason, found in wrong.items():
        texts = [row for _, row in found]
        example = f"{reason}: {shown(texts[0])}; {QUOTE_HINT}" if reason == MISPLACED else ""
        tally.reject(file, [number for number, _ in found], reason, texts, example=example)
    # The sound rows together, by the same parser.
    frame = _read(b"".join(row + b"\n" for row in kept), columns, separator, quote, wanted)
    if frame is None or frame.height != len(kept):
        raise DataError(f"{file}: lines {lines.first} onwards cannot be read as a table of {len(columns)} columns")
    return frame.with_columns(pl.Series(LINE, numbers, dtype=pl.Int64))


def whole_rows(lines: Lines, quote: str | None, separator: str = ",") -> Iterator[tuple[int, bytes]]:
    """Rows without their line feeds, with the number of their first line; a quoted value may hold line feeds.

    An open quote joins its line with the following ones. Where the result is not well quoted, its first line is a
    faulty row by itself, and reading goes on with the next line.
    """
    mark = None if quote is None else quote.encode()
    texts = lines.data.split(b"\n")[:-1]
    if mark is None or mark not in lines.data:
        yield from enumerate(texts, lines.first)
        return
    odd = [text.count(mark) % 2 == 1 for text in texts]
    at = 0
    while at < len(texts):
        last = at
        if odd[at]:
            # The next line with an odd number of quotes closes the open one; without such a line, this one is a row.
            last = next((later for later in range(at + 1, len(texts)) if odd[later]), at)
        row = b"\n".join(texts[at : last + 1])
        if last > at and _misquoted(row.decode("utf-8", errors="replace"), separator, quote or ""):
            last, row = at, texts[at]
        yield lines.first + at, row
        at = last + 1


def row_fault(row: bytes, columns: int, separator: str, quote: str | None) -> str | None:
    """What is wrong with a row, in words; None when it is sound."""
    if not row or (columns > 1 and separator.encode() not in row and not row.strip()):
        return "blank line"
    try:
        text = row.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    quoted: list[str] = []
    if quote is not None and quote in text:
        if _misquoted(text, separator, quote):
            return MISPLACED
        # Every second piece is inside quotes: its carriage returns and separators are part of a value.
        quoted = text.split(quote)[1::2]
    if text.count("\r") > sum(part.count("\r") for part in quoted):
        return "a carriage return without a line feed"
    found = text.count(separator) + 1 - sum(part.count(separator) for part in quoted)
    return None if found == columns else f"expected {columns} columns, found {found}"


def _misquoted(text: str, separator: str, quote: str) -> bool:
    """Whether a quote in a row does not enclose a whole value."""
    array = np.frombuffer(f"{text}\n".encode(), np.uint8)
    return not _well_quoted(array, separator, quote) or bool((_inside(array, quote)[array == 10] == 0).sum() != 1)
