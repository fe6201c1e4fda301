"""Limits on the text that is held in memory at a time: the length of a line, and the blank lines in a row."""

from __future__ import annotations

from recbole_dtn.errors import DataError

__all__ = ["MAX_BLANK", "MAX_LINE", "check_blank_lines", "check_line_lengths", "too_long"]

MAX_LINE = 64 << 20
"""Longest line in bytes. A table's rows have kilobytes; a file without line feeds would be read into memory whole."""
MAX_BLANK = 1 << 20
"""Most blank lines in a row."""


def check_line_lengths(data: bytes, file: str, first: int, limit: int = MAX_LINE, *, hint: str = "") -> None:
    """Refuse a line that is longer than ``limit`` bytes; the last line may be incomplete.

    Args:
        data: lines. file: as messages call it. first: number of the first line. hint: what to do where such lines are
            right.

    Raises:
        DataError: naming file and line.
    """
    start = 0
    while len(data) - start > limit:
        # The last line feed that a line of allowed length at `start` could end with: lines before it are passed over.
        feed = data.rfind(b"\n", start, start + limit + 1)
        if feed < 0:
            raise too_long(file, first + data.count(b"\n", 0, start), limit, hint)
        start = feed + 1


def too_long(file: str, line: int, limit: int, hint: str = "") -> DataError:
    """The error about a line of more than ``limit`` bytes."""
    size = f"{limit >> 20:,} MiB" if limit >= 1 << 20 else f"{limit:,} bytes"
    return DataError(
        f"{file}, line {line}: longer than {size}; expected rows of a text table, each ending with a line feed "
        f"(is it a binary file, or one with carriage returns alone?){hint}"
    )


def check_blank_lines(data: bytes, file: str, first: int, limit: int | None = None) -> None:
    """Refuse more than ``limit`` (:data:`MAX_BLANK`) blank lines in a row.

    Args:
        data: lines. file: as messages call it. first: number of the first line.

    Raises:
        DataError: naming file and line.
    """
    limit = MAX_BLANK if limit is None else limit
    # Where lines end with a carriage return too, a blank line has two bytes.
    for feed in (b"\n", *([b"\r\n"] if b"\r" in data else [])):
        run = feed * (limit + 1)
        # A run begins the data or follows the end of a row.
        at = 0 if data.startswith(run) else data.find(b"\n" + run) + 1
        if at or data.startswith(run):
            line = first + data.count(b"\n", 0, at)
            raise DataError(
                f"{file}, line {line}: more than {limit:,} blank lines in a row; expected rows: is the file complete? "
                "Remove the blank lines"
            )
