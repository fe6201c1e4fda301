"""Raw text tables in blocks of whole rows; rows of another shape are rejected with their lines."""

from __future__ import annotations

import csv
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.preprocess.raw_files import RawFile
from recbole_dtn.data.preprocess.rejects import Tally
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.errors import DataError

__all__ = ["LINE", "Lines", "line_blocks", "read_table"]

LINE = "\x00line"
"""Column of :func:`read_table`: the line of a row, from 1. No column of a data set can have that name."""
BLOCK_BYTES = 1 << 25
BOM = b"\xef\xbb\xbf"
QUEUED = 2


@dataclass(frozen=True)
class Lines:
    """Whole lines of a file, each ending with a line feed; ``first`` is the number of the first one."""

    data: bytes
    first: int


def line_blocks(
    raw: RawFile, *, quote: str | None = None, block_bytes: int = BLOCK_BYTES, meter: Meter = silent
) -> Iterator[Lines]:
    """A file in blocks of whole rows, read ahead by a thread; CRLF is read as LF, a byte order mark is passed over.

    Args:
        raw: the file. quote: the quoting character, between two of which a line feed ends no row.
        block_bytes: about how many bytes a block has. meter: told how far the reading is.

    Raises:
        DataError: for a file that cannot be read.
    """
    blocks: queue.Queue[Lines | BaseException | None] = queue.Queue(QUEUED)
    stopped = threading.Event()

    def put(item: Lines | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                blocks.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for block in _read_blocks(raw, quote, block_bytes, meter):
                if not put(block):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while (item := blocks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _read_blocks(raw: RawFile, quote: str | None, block_bytes: int, meter: Meter) -> Iterator[Lines]:
    line, rest, start = 1, b"", True
    stage = f"reading {raw.name}"
    with raw.open() as (stream, position):
        while data := stream.read(block_bytes):
            if start:
                data, start = data.removeprefix(BOM), False
            rest += data
            cut = _cut(rest, quote)
            if not cut:
                continue
            block, rest = rest[:cut], rest[cut:]
            yield Lines(_normalised(block), line)
            line += block.count(b"\n")
            meter(stage, position(), raw.size)
    if rest:
        yield Lines(_normalised(rest if rest.endswith(b"\n") else rest + b"\n"), line)
    meter(stage, raw.size, raw.size)


def _normalised(block: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n") if b"\r" in block else block


def _cut(data: bytes, quote: str | None) -> int:
    """Where the last whole row ends."""
    end = data.rfind(b"\n") + 1
    if quote is None or quote.encode() not in data:
        return end
    if data.count(quote.encode(), 0, end) % 2 == 0:
        return end
    # The last line feed is inside quotes: the last one outside has an even number of quotes before it.
    array = np.frombuffer(data, np.uint8, count=end)
    outside = (array == 10) & (_inside(array, quote) == 0)
    found = np.flatnonzero(outside)
    return int(found[-1]) + 1 if len(found) else 0


def _inside(array: npt.NDArray[np.uint8], quote: str) -> npt.NDArray[np.uint8]:
    """1 between quotes (the closing quote itself counts as outside)."""
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
) -> pl.DataFrame:
    """A block as text columns and :data:`LINE`; an empty cell is null.

    Rows of another number of columns, with text that is not UTF-8, with a quote that is misplaced, and blank lines are
    rejected. Every row counts in ``tally.rows_in``.

    Args:
        lines: the block. columns: names of all columns. tally: of the table. file: as messages call it.
        separator: one character. quote: the quoting character, or None. strip: remove white space around values.
    """
    frame = _read(lines.data, columns, separator, quote)
    if frame is not None:
        tally.rows_in += frame.height
        frame = frame.with_columns(_line_numbers(lines, frame, quote).alias(LINE))
    else:
        frame = _read_slowly(lines, columns, tally, file, separator, quote)
    return frame.with_columns(pl.col(list(columns)).str.strip_chars().replace("", None)) if strip else frame


def _read(data: bytes, columns: Sequence[str], separator: str, quote: str | None) -> pl.DataFrame | None:
    """The rows, or None when some row is not as it should be."""
    schema = dict.fromkeys(columns, pl.String)
    if not data:
        return pl.DataFrame(schema=schema)
    if data.startswith(b"\n") or b"\n\n" in data:
        return None
    try:
        frame = pl.read_csv(data, separator=separator, quote_char=quote, has_header=False, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    # Polars fills short rows up with nulls: the separators must be as many as whole rows have.
    return frame if _separators(data, separator, quote) == frame.height * (len(columns) - 1) else None


def _separators(data: bytes, separator: str, quote: str | None) -> int:
    if quote is None or quote.encode() not in data:
        return data.count(separator.encode())
    array = np.frombuffer(data, np.uint8)
    return int(np.count_nonzero((array == ord(separator)) & (_inside(array, quote) == 0)))


def _line_numbers(lines: Lines, frame: pl.DataFrame, quote: str | None) -> pl.Series:
    if quote is None or lines.data.count(b"\n") == frame.height:
        return pl.Series(np.arange(lines.first, lines.first + frame.height))
    breaks = frame.select(pl.sum_horizontal(pl.all().str.count_matches("\n").fill_null(0))).to_series().to_numpy()
    before = np.cumsum(breaks) - breaks
    return pl.Series(np.arange(lines.first, lines.first + frame.height) + before.astype(np.int64))


def _read_slowly(
    lines: Lines, columns: Sequence[str], tally: Tally, file: str, separator: str, quote: str | None
) -> pl.DataFrame:
    """A block with faulty rows, row by row."""
    kept: list[bytes] = []
    numbers: list[int] = []
    wrong: dict[str, list[tuple[int, bytes]]] = {}
    for number, row in _rows(lines, quote):
        tally.rows_in += 1
        reason = _fault(row, len(columns), separator, quote)
        if reason is None:
            kept.append(row)
            numbers.append(number)
        else:
            wrong.setdefault(reason, []).append((number, row))
    for reason, found in wrong.items():
        tally.reject(file, [number for number, _ in found], reason, [row for _, row in found])
    frame = _read(b"".join(row + b"\n" for row in kept), columns, separator, quote)
    if frame is None or frame.height != len(kept):
        raise DataError(f"{file}: lines {lines.first} onwards cannot be read as a table of {len(columns)} columns")
    return frame.with_columns(pl.Series(LINE, numbers, dtype=pl.Int64))


def _rows(lines: Lines, quote: str | None) -> Iterator[tuple[int, bytes]]:
    """Rows without their line feeds, with the number of their first line; a quoted value may hold line feeds."""
    mark = None if quote is None else quote.encode()
    held: list[bytes] = []
    first = lines.first
    for number, row in enumerate(lines.data.split(b"\n")[:-1], lines.first):
        if not held:
            first = number
        held.append(row)
        if mark is None or sum(part.count(mark) for part in held) % 2 == 0:
            yield first, b"\n".join(held)
            held = []
    for number, row in enumerate(held, first):  # a quote that is never closed: its line is at fault, not the others
        yield number, row


def _fault(row: bytes, columns: int, separator: str, quote: str | None) -> str | None:
    """What is wrong with a row, in words; None for nothing."""
    if not row.strip():
        return "blank line"
    try:
        text = row.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    if quote is None or quote not in text:
        found = text.count(separator) + 1
    else:
        try:
            (values,) = csv.reader([text], delimiter=separator, quotechar=quote, strict=True)
        except (csv.Error, ValueError):
            return "misplaced quote"
        found = len(values)
        if quote in text.replace(quote * 2, "") and not _quotes_enclose(text, separator, quote):
            return "misplaced quote"
    return None if found == columns else f"expected {columns} columns, found {found}"


def _quotes_enclose(text: str, separator: str, quote: str) -> bool:
    """Whether every quoted part is a whole value, as Polars wants it."""
    parts = text.split(quote)
    outside = parts[::2]
    middle = [part for part in outside[1:-1] if part]  # an empty one is a doubled quote
    return (
        (not outside[0] or outside[0].endswith(separator))
        and (not outside[-1] or outside[-1].startswith(separator))
        and all(part.startswith(separator) and part.endswith(separator) for part in middle)
    )
