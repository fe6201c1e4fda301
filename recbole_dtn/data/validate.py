"""Every fault of a folder of atomic files, with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from recbole_dtn.data.atomic import (
    Fault,
    Header,
    blocks,
    missing_mask,
    parse_block,
    parse_floats,
    read_header,
    structure_faults,
)
from recbole_dtn.data.escape import PADDING
from recbole_dtn.data.sources import PARTS, Sources, find_sources
from recbole_dtn.errors import DataError

__all__ = ["grouped", "validate"]

LOCATED = re.compile(r"(?P<file>.+?), line (?P<line>\d+): (?P<reason>.+)", re.DOTALL)


def validate(folder: Path) -> list[Fault]:
    """Check the atomic files of the folder ``<folder>/<name>*``.

    Returns:
        Every fault: what cannot be read is ``fatal``; what only stock RecBole would misread is not.
    """
    name = folder.name
    parts = [folder / f"{name}.{part}.inter" for part in PARTS]
    files = [path for path in (folder / f"{name}.inter", *parts) if path.is_file()]
    files += [path for kind in ("user", "item") if (path := folder / f"{name}.{kind}").is_file()]
    found: list[Fault] = []
    for path in files:
        found += _file(path)
    if not any(fault.line == 1 for fault in found):
        found += _between(folder, given=any(path.is_file() for path in parts))
    return sorted(found)


def grouped(faults: Iterable[Fault]) -> list[list[Fault]]:
    """Faults of one file and kind together, in the order of their first lines.

    >>> grouped([Fault("a", 2, "found 'x'", kind="no number"), Fault("a", 3, "found 'y'", kind="no number")])[0][1].line
    3
    """
    groups: dict[tuple[str, str, bool], list[Fault]] = {}
    for fault in sorted(faults):
        groups.setdefault((fault.file, fault.kind or fault.reason, fault.fatal), []).append(fault)
    return list(groups.values())


def _as_fault(error: DataError, folder: Path) -> Fault:
    match = LOCATED.fullmatch(str(error))
    return Fault(match["file"], int(match["line"]), match["reason"]) if match else Fault(str(folder), 0, str(error))


def _file(path: Path) -> Iterator[Fault]:
    try:
        header = read_header(path)
    except DataError as error:
        yield _as_fault(error, path)
        return
    for frame, lines, wrong in _rows(header):
        yield from wrong
        yield from _values(header, frame, lines)


def _rows(header: Header, columns: list[str] | None = None) -> Iterator[tuple[pl.DataFrame, list[int], list[Fault]]]:
    """Per block the rows of the right shape, the line of each, and what is wrong with the others."""
    for block, first_line in blocks(header):
        wrong = structure_faults(header, block, first_line)
        skipped = {fault.line for fault in wrong}
        lines, kept = [], []
        for number, line in enumerate(block.split(b"\n"), first_line):
            if line.strip(b"\r") and number not in skipped:
                lines.append(number)
                kept.append(line)
        yield parse_block(header, b"\n".join(kept), first_line, columns), lines, wrong


def _values(header: Header, frame: pl.DataFrame, lines: list[int]) -> Iterator[Fault]:
    name = str(header.path)
    for column, kind in zip(header.names, header.types, strict=True):
        texts = frame[column]
        if kind == "float":
            numbers = parse_floats(texts)
            absent = texts.is_null() | missing_mask(texts)
            wrong = ~absent & (numbers.is_null() | ~numbers.is_finite().fill_null(False))
            for row in wrong.arg_true():
                expected = f"column {column!r}: expected a finite number"
                yield Fault(name, lines[row], f"{expected}, found {texts[row]!r}", kind=expected)
            for row in absent.arg_true():
                reason = f"column {column!r}: a missing number; stock RecBole puts the column's mean there"
                yield Fault(name, lines[row], reason, fatal=False)
            continue
        if kind == "float_seq":
            yield from _sequence_numbers(header, column, texts, lines)
            continue
        checks = {
            "stock RecBole reads it as missing": missing_mask(texts),
            "begins with a quote: stock RecBole reads on to the next quote": texts.str.starts_with('"'),
            "is stock RecBole's name of its padding": (texts == PADDING)
            if kind == "token"
            else texts.str.split(" ").list.contains(PADDING),
        }
        for reason, mask in checks.items():
            for row in mask.fill_null(False).arg_true():
                kind = f"column {column!r}: {reason}"
                yield Fault(name, lines[row], f"column {column!r}: {texts[row]!r} {reason}", fatal=False, kind=kind)


def _sequence_numbers(header: Header, column: str, texts: pl.Series, lines: list[int]) -> Iterator[Fault]:
    rows = pl.DataFrame({"row": range(len(texts)), "text": texts.str.split(" ")}).explode("text")
    rows = rows.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
    numbers = parse_floats(rows["text"])
    for at in (numbers.is_null() | ~numbers.is_finite().fill_null(False)).arg_true():
        expected = f"column {column!r}: expected finite numbers with a space between"
        reason = f"{expected}, found {rows['text'][at]!r}"
        yield Fault(str(header.path), lines[rows["row"][at]], reason, kind=expected)


def _between(folder: Path, *, given: bool) -> Iterator[Fault]:
    """What is wrong between files: parts, keys, and interactions without a side row."""
    try:
        sources = find_sources(folder, given=given)
        yield from _keys(sources)
    except DataError as error:
        yield _as_fault(error, folder)


def _keys(sources: Sources) -> Iterator[Fault]:
    """Side rows that are there twice, and interactions without one."""
    for side in sources.sides:
        (header,) = side.table.headers
        seen: dict[str | None, None] = {}
        for frame, lines, _ in _rows(header, [side.key]):
            for line, value in zip(lines, frame[side.key], strict=True):
                if value in seen:
                    reason, kind = f"{side.key} {value!r} is there twice", f"{side.key} is there twice"
                    yield Fault(str(header.path), line, reason, kind=kind)
                seen[value] = None
        known = pl.Series(list(seen), dtype=pl.String).implode()
        for part in sources.inter.headers:
            for frame, lines, _ in _rows(part, [side.key]):
                column = frame[side.key]
                for row in (~column.is_in(known) & column.is_not_null()).arg_true():
                    kind = f"{side.key} is not in {header.path.name}; its fields are absent there"
                    reason = f"{side.key} {column[row]!r}{kind.removeprefix(side.key)}"
                    yield Fault(str(part.path), lines[row], reason, fatal=False, kind=kind)
