"""The faults of every file, of its values, and between files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.atomic import FileFault, missing_mask, parse_floats, read_header
from recbole_dtn.data.escape import MISSING_WORDS, PADDING
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.sources import PARTS, Sources, find_sources
from recbole_dtn.errors import DataError
from recbole_dtn.inspect.validate.meaning import Meaning, meaning_of
from recbole_dtn.inspect.validate.rows import Rows, as_fault, rows_of

__all__ = ["FaultGroup", "find_faults", "grouped", "validate"]

LINES_KEPT = 3
HIDDEN = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
"""Control characters, and those that end a line or change the direction of the text after them."""
UNSEEN = "holds control or direction characters, shown escaped"


@dataclass
class FaultGroup:
    """Faults of one kind in one file: the first of them, how many there are, and their first three lines."""

    first: FileFault
    count: int
    lines: list[int]


def validate(folder: Path, settings: Settings | None = None) -> list[FileFault]:
    """Every fault of :func:`find_faults`, sorted."""
    return sorted(find_faults(folder, settings))


def find_faults(folder: Path, settings: Settings | None = None, *, meter: Meter = silent) -> Iterator[FileFault]:
    """Check the atomic files of the folder ``<folder>/<name>*``, a block of rows in memory at a time.

    Args:
        folder: its name is that of the files.
        settings: of the data set, when they are known: then the columns that fields and tasks need are checked too,
            with labels, conditions, times, weights, and lists of weights.
        meter: gets the progress.

    Yields:
        Every fault, in the order of the files: what cannot be read is ``fatal``; what only stock RecBole would misread
        is not.
    """
    name = folder.name
    parts = [folder / f"{name}.{part}.inter" for part in PARTS]
    sides = [path for kind in ("user", "item") if (path := folder / f"{name}.{kind}").is_file()]
    files = [path for path in (folder / f"{name}.inter", *parts) if path.is_file()]
    given = any(path.is_file() for path in parts) if settings is None else settings.split == "given"
    headers_right = True
    for path in [*files, *sides]:
        try:
            read_header(path)
        except DataError as error:
            headers_right = False
            yield as_fault(error, path)
    sources = None
    try:
        hints = [settings.user_field] if settings is not None and settings.user_field is not None else []
        sources = find_sources(folder, given=given, key_hints=hints)
    except DataError as error:
        if headers_right:
            yield as_fault(error, folder)
    meaning = None
    if sources is not None and settings is not None:
        meaning, wrong = meaning_of(settings, sources)
        yield from wrong
    for path in [*files, *sides]:
        yield from _file(path, meaning, meter)
    if sources is not None:
        yield from _keys(sources)


def grouped(faults: Iterable[FileFault]) -> list[FaultGroup]:
    """Faults of one file and kind together, in the order of their first lines.

    >>> found = [FileFault("a", line, f"found {line}", kind="no number") for line in (2, 3)]
    >>> grouped(found)[0].lines
    [2, 3]
    """
    groups: dict[tuple[str, str, bool], FaultGroup] = {}
    for fault in faults:
        group = groups.setdefault((fault.file, fault.kind or fault.reason, fault.fatal), FaultGroup(fault, 0, []))
        # Faults come in the order of checks, not of lines.
        group.first = min(group.first, fault)
        group.count += 1
        if len(group.lines) < LINES_KEPT or fault.line < group.lines[-1]:
            group.lines = sorted([*group.lines, fault.line])[:LINES_KEPT]
    return sorted(groups.values(), key=lambda group: group.first)


def _file(path: Path, meaning: Meaning | None, meter: Meter) -> Iterator[FileFault]:
    try:
        header = read_header(path)
    except DataError:
        return  # reported already
    size, told = path.stat().st_size, set[str]()
    for name in header.names:
        if re.search(HIDDEN, name):
            reason = f"column {name!r}: its name holds control or direction characters"
            yield FileFault(str(path), 1, reason, fatal=False)
    # Side tables may be empty.
    filled = path.suffix != ".inter"
    for rows in rows_of(header):
        filled = filled or len(rows.lines) > 0 or any(fault.fatal for fault in rows.faults)
        found = [*rows.faults, *_values(rows, told), *(meaning.faults(rows) if meaning is not None else ())]
        yield from sorted(found)
        meter(f"checking {path.name}", rows.stop, size)
    if not filled:
        yield FileFault(str(path), 1, "no rows: only a header; expected interactions")


def _values(rows: Rows, told: set[str]) -> Iterator[FileFault]:
    """Faults of the cells by the types of their columns; ``told`` holds what was already reported for a column."""
    for column, kind in zip(rows.header.names, rows.header.types, strict=True):
        if kind == "float":
            yield from _numbers(rows, column)
        elif kind == "float_seq":
            yield from _sequence_numbers(rows, column)
        else:
            yield from _tokens(rows, column, kind)
            yield from _spelling(rows, column, kind, told)


def _numbers(rows: Rows, column: str) -> Iterator[FileFault]:
    texts = rows.frame[column]
    numbers = parse_floats(texts)
    absent = texts.is_null() | missing_mask(texts)
    wrong = ~absent & numbers.is_null()
    for row in wrong.arg_true():
        expected = f"column {column!r}: expected a finite number"
        yield rows.fault(row, f"{expected}, found {texts[row]!r}", kind=expected)
    for row in absent.arg_true():
        reason = f"column {column!r}: a missing number; stock RecBole puts the column's mean there"
        yield rows.fault(row, reason, fatal=False)


def _tokens(rows: Rows, column: str, kind: str) -> Iterator[FileFault]:
    texts = rows.frame[column]
    padding = texts == PADDING if kind == "token" else texts.str.split(" ").list.contains(PADDING)
    checks = {
        "stock RecBole reads it as missing": missing_mask(texts),
        "begins with a quote: stock RecBole reads on to the next quote": texts.str.starts_with('"'),
        "is stock RecBole's name of its padding": padding,
    }
    if kind == "token_seq":
        words = texts.str.split(" ").list.eval(pl.element().is_in(sorted(MISSING_WORDS))).list.any()
        checks["has a value that is read as absent here, and as a token by stock RecBole"] = words & ~missing_mask(
            texts
        )
    for reason, mask in checks.items():
        for row in mask.fill_null(False).arg_true():
            kind = f"column {column!r}: {reason}"
            yield rows.fault(row, f"column {column!r}: {texts[row]!r} {reason}", fatal=False, kind=kind)


def _spelling(rows: Rows, column: str, kind: str, told: set[str]) -> Iterator[FileFault]:
    """Values that can be read but are probably not meant, reported once per column."""
    texts = rows.frame[column]
    outer = texts.str.starts_with(" ") | texts.str.ends_with(" ")
    if kind == "token":
        spaces = "begins or ends with a space, which makes it another token, here and in stock RecBole"
    else:
        spaces = "has empty values between its spaces, which are left out, here and in stock RecBole"
        outer = outer | texts.str.contains("  ", literal=True)
    null = texts.str.contains("\0", literal=True)
    hidden = texts.str.contains(HIDDEN) & ~null
    masks = {spaces: outer, "holds a null byte, where other programs may end the text": null, UNSEEN: hidden}
    for reason, mask in masks.items():
        name = f"column {column!r}: {reason} (reported once)"
        if name not in told and mask.any():
            told.add(name)
            row = mask.fill_null(False).arg_true()[0]
            yield rows.fault(row, f"column {column!r}: {texts[row]!r} {reason} (reported once)", fatal=False, kind=name)


def _sequence_numbers(rows: Rows, column: str) -> Iterator[FileFault]:
    texts = rows.frame[column]
    cells = pl.DataFrame({"row": pl.int_range(len(texts), eager=True), "text": texts.str.split(" ")}).explode("text")
    cells = cells.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
    numbers = parse_floats(cells["text"]).cast(pl.Float32)  # as they are stored
    for at in (numbers.is_null() | ~numbers.is_finite().fill_null(False)).arg_true():
        expected = f"column {column!r}: expected finite numbers with a space between"
        yield rows.fault(cells["row"][at], f"{expected}, found {cells['text'][at]!r}", kind=expected)


def _keys(sources: Sources) -> Iterator[FileFault]:
    """Rows of side tables with a repeated or empty key, and interactions without a row there."""
    for side in sources.sides:
        (header,) = side.table.headers
        seen: dict[str | None, int] = {}
        for rows in rows_of(header, [side.key]):
            # In Python: the line of each key is kept, for the message about its second row.
            for row, value in enumerate(rows.frame[side.key]):
                if value in seen:
                    shown = "(empty)" if value is None else repr(value)
                    reason, kind = f"{side.key} {shown} is there twice", f"{side.key} is there twice"
                    yield rows.fault(row, f"{reason} (first on line {seen[value]})", kind=kind)
                    continue
                seen[value] = rows.lines[row]
                if value is None:
                    reason = (
                        f"{side.key} is empty: no interaction reads the row; stock RecBole drops it, or in given parts "
                        f"joins it to those without {side.key}"
                    )
                    yield rows.fault(row, reason, fatal=False)
        known = pl.Series(list(seen), dtype=pl.String).implode()
        # The texts are held once, by ``known``.
        del seen
        for part in sources.inter.headers:
            for rows in rows_of(part, [side.key]):
                column = rows.frame[side.key]
                for row in (~column.is_in(known) & column.is_not_null()).arg_true():
                    kind = f"{side.key} is not in {header.path.name}; its fields are absent there"
                    reason = f"{side.key} {column[row]!r}{kind.removeprefix(side.key)}"
                    yield rows.fault(row, reason, fatal=False, kind=kind)
