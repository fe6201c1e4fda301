"""Text tables as docs/own-data.md has them, in plain Python: slow, and written apart from the package."""

from __future__ import annotations

from tests.oracles.atomic import NUMBER, FormatError

__all__ = ["number", "parse_table"]

SPACES = "".join({char for char in map(chr, range(0x3001)) if char.isspace()} - set("\x1c\x1d\x1e\x1f"))
"""White space of Unicode; Python has four control characters besides."""


def parse_table(data: bytes, separator: str) -> list[list[str | None]]:
    """The rows of a table, the header first; an empty cell is None.

    Raises:
        FormatError: for text that is not UTF-8, a misplaced quote, a bare carriage return, a blank line or a row that
            is not as long as the header.
    """
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("not UTF-8") from None
    rows: list[list[str | None]] = []
    row: list[str | None] = []
    at = start = 0
    while at < len(text) or row:
        if text[at : at + 1] == '"':
            cell, at = _quoted(text, at + 1)
        else:
            cell, at = _plain(text, at, separator)
        row.append(cell or None)
        if text[at : at + 1] == separator:
            at += 1
            continue
        if text[start:at].strip("\r") == "":
            raise FormatError("a blank line")
        rows.append(row)
        row, start = [], _after_line(text, at)
        at = start
    if any(len(row) != len(rows[0]) for row in rows):
        raise FormatError("a row of another length")
    return rows


def _quoted(text: str, at: int) -> tuple[str, int]:
    parts = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise FormatError("an unclosed quote")
        parts.append(text[at:end])
        if text[end + 1 : end + 2] != '"':
            return '"'.join(parts), end + 1
        at = end + 2


def _plain(text: str, at: int, separator: str) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] not in (separator, "\n"):
        end += 1
    cell = text[at:end]
    if end == len(text) or text[end] == "\n":
        cell = cell.removesuffix("\r")
        end -= text[at:end] != cell
    if '"' in cell or "\r" in cell:
        raise FormatError("a misplaced quote or carriage return")
    return cell, end


def _after_line(text: str, at: int) -> int:
    """The start of the next line, from the end of a row's last cell."""
    for end in ("\r\n", "\n"):
        if text.startswith(end, at):
            return at + len(end)
    if text[at:] in ("", "\r"):
        return len(text)
    raise FormatError("text after a closing quote")


def number(text: str | None) -> float | None:
    """A cell of a number column; None where it is missing.

    Raises:
        FormatError: for what is no finite number.
    """
    stripped = (text or "").strip(SPACES)
    if stripped.lower() in ("", "nan"):
        return None
    value = float(stripped) if NUMBER.fullmatch(stripped) else float("inf")
    if value in (float("inf"), float("-inf")):
        raise FormatError(f"no finite number: {text!r}")
    return value
