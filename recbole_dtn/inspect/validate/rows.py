"""Rows of an atomic file that may be faulty: what can be read, with the line of each row, and what cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recbole_dtn.data.atomic import FileFault, Header, blocks, parse_block, structure_faults
from recbole_dtn.errors import DataError

__all__ = ["Rows", "as_fault", "rows_of"]

LOCATED = re.compile(r"(?P<file>.+?), line (?P<line>\d+): (?P<reason>.+)", re.DOTALL)
BLANK = "a blank line is not a row, here and in stock RecBole"


@dataclass(frozen=True)
class Rows:
    """The readable rows of one block as text columns, the line of each, and the faults of the other lines."""

    header: Header
    frame: pl.DataFrame
    lines: Sequence[int]
    faults: list[FileFault]
    stop: int

    def fault(self, row: int, reason: str, *, fatal: bool = True, kind: str = "") -> FileFault:
        """A fault of one row; ``kind`` is the reason without the row's own value."""
        return FileFault(str(self.header.path), self.lines[row], reason, fatal, kind)


def as_fault(error: DataError, where: Path) -> FileFault:
    """An error that names file and line, as a fault there; else one of the file or folder as a whole."""
    match = LOCATED.fullmatch(str(error))
    return (
        FileFault(match["file"], int(match["line"]), match["reason"]) if match else FileFault(str(where), 0, str(error))
    )


def rows_of(header: Header, columns: list[str] | None = None) -> Iterator[Rows]:
    """The rows of a file, block by block; ``stop`` is where the block ends, in bytes of the file.

    Args:
        header: of the file. columns: those to read; all by default.
    """
    stop = header.length
    for block, first_line in blocks(header):
        stop += len(block)
        try:
            frame = parse_block(header, block, first_line, columns)
            wrong: list[FileFault] = []
        except DataError as error:
            wrong = structure_faults(header, block, first_line)
            if not wrong:
                yield Rows(header, _empty(header, columns), (), [as_fault(error, header.path)], stop)
                continue
        # Lines of the block; as many rows mean that none is blank and the line of each follows from its place.
        texts = block.removesuffix(b"\n").count(b"\n") + 1
        if not wrong and frame.height == texts:
            yield Rows(header, frame, range(first_line, first_line + texts), [], stop)
            continue
        lines, kept, blank = _readable(block, first_line, {fault.line for fault in wrong})
        if wrong:
            # Once more, without the faulty lines.
            frame = parse_block(header, b"\n".join(kept), first_line, columns)
        wrong += [FileFault(str(header.path), line, BLANK, fatal=False) for line in blank]
        yield Rows(header, frame, lines, wrong, stop)


def _readable(block: bytes, first_line: int, faulty: set[int]) -> tuple[list[int], list[bytes], list[int]]:
    """Numbers and texts of the lines that are rows, and the numbers of the blank ones."""
    lines, kept, blank = [], [], []
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), first_line):
        if number in faulty:
            continue
        if not line.strip(b"\r"):
            blank.append(number)
            continue
        lines.append(number)
        kept.append(line)
    return lines, kept, blank


def _empty(header: Header, columns: list[str] | None) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(columns or header.names, pl.String))
