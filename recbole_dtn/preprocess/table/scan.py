"""Read a user's tables in blocks of rows: CSV, TSV or Parquet, one file or several."""

from __future__ import annotations

import csv
import glob
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from recbole_dtn.data.progress import Meter
from recbole_dtn.data.write import ReadyRows
from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.preprocess.lines import LINE, QUOTE_HINT, Lines, line_blocks, read_table, whole_rows
from recbole_dtn.preprocess.raw_files import COMPRESSED, RawFile, plain_file
from recbole_dtn.preprocess.rejects import Tally
from recbole_dtn.preprocess.table.plain_rows import PlainRows
from recbole_dtn.preprocess.table.spec import ReaderSpec

__all__ = ["ParquetTables", "TableBlock", "TextTables", "input_files", "open_tables"]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
PARQUET = ".parquet"
BATCH_ROWS = 1 << 18
BATCH_CELLS = 1 << 21
"""Rows of a block of Parquet, and its rows times columns."""
# Longest line of a header.
HEADER_BYTES = 1 << 20
BLOCK_BYTES = 1 << 21
"""Small enough for the processor's cache, and for the allocator to reuse the memory of the last block."""


@dataclass(frozen=True)
class TableBlock:
    """Rows of one file.

    Attributes:
        frame: the columns asked for, and the row's line (Parquet: its number) under :data:`LINE`.
        file: as messages call it. texts: the rows of given lines as the file has them.
    """

    frame: pl.DataFrame
    file: str
    texts: Callable[[Sequence[int]], list[bytes | str]]


def input_files(text: str) -> list[Path]:
    """The files of ``--input``: one, a pattern (``logs/*.parquet``), or several with commas between, sorted.

    Raises:
        DataError: for a file that is not there, or a pattern that none matches. UsageError: for an address.
    """
    if "://" in text:
        raise UsageError(f"--input={text}: expected files on this machine; download them first")
    found: set[Path] = set()
    for part in [text] if Path(text).is_file() else text.split(","):
        path = Path(part)
        if path.is_file():
            found.add(path)
            continue
        matches = [Path(name) for name in glob.glob(part, recursive=True)] if glob.has_magic(part) else []
        matches = [match for match in matches if match.is_file()]
        if not matches:
            found_instead = "no file matches" if glob.has_magic(part) else "no such file"
            hint = f"; a folder's files are named by a pattern: '{path}/*.csv'" if path.is_dir() else ""
            raise DataError(f"{part}: {found_instead}{hint}")
        found.update(matches)
    return sorted(found)


def open_tables(files: Sequence[Path], reader: ReaderSpec) -> TextTables | ParquetTables:
    """The files as one table.

    Raises:
        UsageError: for files of unknown or different kinds, or a wrong reader. DataError: for headers that differ.
    """
    parquet = [_kind(path) == PARQUET for path in files]
    if all(parquet):
        return ParquetTables(files)
    if any(parquet):
        text, other = files[parquet.index(False)], files[parquet.index(True)]
        raise UsageError(f"--input: {other} is Parquet and {text} is text; expected files of one kind")
    return TextTables(files, reader)


def _kind(path: Path) -> str:
    """The file name's ending, without that of a compression."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


class TextTables:
    """Text tables with the same columns, read as texts; rows of another shape are rejected."""

    unit = "line"

    def __init__(self, files: Sequence[Path], reader: ReaderSpec, raws: Sequence[RawFile] | None = None) -> None:
        self.files, self.reader = list(files), reader
        # Given where the bytes are in no file: ``files`` then only names them.
        self.raws = [plain_file(path) for path in files] if raws is None else list(raws)
        firsts = [self._first_row(raw, path) for raw, path in zip(self.raws, files, strict=True)]
        self._header_lines = [0 if reader.columns is not None else lines for lines, _ in firsts]
        if reader.columns is not None:
            self._check_width([row for _, row in firsts], reader.columns)
            names = reader.columns
        else:
            # The first file decides; the others must have the same columns in the same order.
            names = firsts[0][1]
            for path, (_, row) in zip(files, firsts, strict=True):
                _check_same(path, row, files[0], names)
        self.columns = _renamed(names)
        self.repeated = {name for name, count in Counter(names).items() if count > 1}
        self.schema = pl.Schema(dict.fromkeys(self.columns, pl.String))

    def blocks(
        self, wanted: Sequence[str], tally: Tally, meter: Meter, plain: PlainRows | None = None
    ) -> Iterator[TableBlock | ReadyRows]:
        """The rows with the columns ``wanted``; those that ``plain`` takes are not parsed."""
        for name in wanted:
            if name in self.repeated:
                raise DataError(f"{self.files[0]}, line 1: column {name!r} is there twice; rename one")
        for path, raw, header in zip(self.files, self.raws, self._header_lines, strict=True):
            separator, padded = self._separator(path)
            limits = {"block_bytes": BLOCK_BYTES, "max_line": tally.max_line}
            for lines in line_blocks(raw, quote=self.reader.quote, meter=meter, **limits):
                # Each file has a header of its own.
                body = _without_header(lines, header) if lines.first == 1 else lines
                if not body.data:
                    continue
                ready = None if plain is None else plain.ready(body.data, separator)
                if ready is not None:
                    tally.rows_in += ready.height
                    yield ready
                    continue
                frame = read_table(
                    body,
                    self.columns,
                    tally,
                    str(path),
                    separator=separator,
                    quote=self.reader.quote,
                    strip=self.reader.strip or padded,
                    wanted=wanted,
                )
                if self.reader.null_values:
                    # Texts that mean a missing value, before anything is parsed as a number.
                    frame = frame.with_columns(pl.col(list(wanted)).replace(self.reader.null_values, None))
                yield TableBlock(frame, str(path), _RowTexts(body, self.reader.quote, separator))

    def _separator(self, path: Path) -> tuple[str, bool]:
        """The separating character, and whether spaces around it are dropped."""
        given, kind = self.reader.separator, _kind(path)
        if given is None and kind not in SEPARATORS:
            raise UsageError(
                f"{path}: unknown kind of file {kind!r}: expected .csv, .tsv, .txt (also .gz, .zst) or .parquet; for "
                "another text table set reader: {separator: ...} in the spec"
            )
        separator = SEPARATORS[kind] if given is None else given
        character = separator.strip(" ") or separator[:1]
        if len(character) != 1 or not character.isascii():
            raise UsageError(
                f"reader: separator must be one character (ASCII), spaces around it aside; found {given!r}"
            )
        return character, len(separator) > 1

    def _first_row(self, raw: RawFile, path: Path) -> tuple[int, list[str]]:
        """How many lines the first row has, and its values."""
        separator, padded = self._separator(path)
        quote = self.reader.quote
        with raw.open() as (stream, _):
            # A quoted name may hold a line feed: lines are joined until the quotes are closed.
            data, lines = stream.readline(HEADER_BYTES), 1
            while quote is not None and data.count(quote.encode()) % 2 and len(data) < HEADER_BYTES:
                more = stream.readline(HEADER_BYTES)
                data, lines = data + more, lines + 1
                if not more:
                    break
        if not data.strip():
            expected = "a header with the names of the columns" if self.reader.columns is None else "rows"
            raise DataError(f"{path}, line 1: cannot be read as a table: expected {expected}, found an empty line")
        try:
            text = data.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line 1: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
        if "\r" in text and (quote is None or quote not in text):
            raise DataError(f"{path}, line 1: a carriage return without a line feed; convert the line ends to \\n")
        if quote is None:
            row = text.split(separator)
        else:
            if quote in text and not _is_quoted_well(text, separator, quote):
                raise DataError(
                    f"{path}, line 1: cannot be read as a table: misplaced quote in the header; {QUOTE_HINT}"
                )
            try:
                row = next(csv.reader([text], delimiter=separator, quotechar=quote))
            except csv.Error as error:
                raise DataError(f"{path}, line 1: cannot be read as a table: {error}") from None
        return lines, [value.strip() for value in row] if padded or self.reader.strip else row

    def _check_width(self, rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
        for path, row in zip(self.files, rows, strict=True):
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, line 1: expected {len(columns)} columns as in reader.columns, found {len(row)} "
                    f"(separator {self._separator(path)[0]!r})"
                )


class ParquetTables:
    """Parquet files with the same columns."""

    unit = "row"

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        schemas = [_parquet_schema(path) for path in files]
        self.schema = schemas[0]
        for path, schema in zip(files, schemas, strict=True):
            _check_same(path, schema.names(), files[0], self.schema.names())
            for name, kind in schema.items():
                if kind != self.schema[name]:
                    raise DataError(
                        f"{path}: column {name!r} is {kind}, in {files[0]} it is {self.schema[name]}; write both alike"
                    )

    def blocks(
        self, wanted: Sequence[str], tally: Tally, meter: Meter, plain: PlainRows | None = None
    ) -> Iterator[TableBlock]:
        """The rows with the columns ``wanted``; none is ``plain``."""
        rows = max(min(BATCH_ROWS, BATCH_CELLS // max(len(wanted), 1)), 1)
        for path in self.files:
            before = 0
            try:
                state = _state(path)
                total = int(pl.scan_parquet(path).select(pl.len()).collect().item())
                scan = pl.scan_parquet(path).select(wanted)
                while before < total:
                    # Each slice opens the file again.
                    if _state(path) != state:
                        raise DataError(f"{path}: changed while it was read; run the command again")
                    # Not collect_batches, which holds several whole row groups.
                    frame = scan.slice(before, rows).collect()
                    tally.rows_in += frame.height
                    first = before + 1
                    before += frame.height
                    numbers = pl.int_range(first, before + 1, dtype=pl.Int64, eager=True)
                    yield TableBlock(frame.with_columns(numbers.alias(LINE)), str(path), _FrameTexts(frame, first))
                    meter(f"reading {path.name}", before, total)
            except (pl.exceptions.PolarsError, OSError) as error:
                raise DataError(_unreadable(path, error)) from None


@dataclass(frozen=True)
class _RowTexts:
    """The text of given lines of a block."""

    lines: Lines
    quote: str | None
    separator: str

    def __call__(self, numbers: Sequence[int]) -> list[bytes | str]:
        asked = set(numbers)
        found = {number: row for number, row in whole_rows(self.lines, self.quote, self.separator) if number in asked}
        return [found[number] for number in numbers]


@dataclass(frozen=True)
class _FrameTexts:
    """Rows of a Parquet block, spelled with commas."""

    frame: pl.DataFrame
    first: int

    def __call__(self, numbers: Sequence[int]) -> list[bytes | str]:
        rows = (self.frame.row(number - self.first) for number in numbers)
        return [",".join("" if value is None else str(value) for value in row) for row in rows]


def _is_quoted_well(header: str, separator: str, quote: str) -> bool:
    """Whether each quote of a header encloses a whole name, or is doubled inside one.

    >>> [_is_quoted_well(text, ",", '"') for text in ('a,"b ""c"', 'a"b,c', '"a"b', '"a,b"')]
    [True, False, False, True]
    """
    mark, end = re.escape(quote), re.escape(separator)
    name = f"(?:{mark}(?:[^{mark}]|{mark}{mark})*{mark}|[^{mark}{end}\\r]*)"
    return re.fullmatch(f"{name}(?:{end}{name})*", header) is not None


def _without_header(lines: Lines, header: int) -> Lines:
    at = 0
    for _ in range(header):
        at = lines.data.index(b"\n", at) + 1
    return replace(lines, data=lines.data[at:], first=lines.first + header)


def _check_same(path: Path, names: Sequence[str], first: Path, expected: Sequence[str]) -> None:
    if list(names) == list(expected):
        return
    for name in expected:
        if name not in names:
            raise DataError(f"{path}: column {name!r} of {first} is missing; {nearest(name, names)}")
    for name in names:
        if name not in expected:
            raise DataError(f"{path}: column {name!r} is not one of {first}; {nearest(name, expected)}")
    at = next((i for i, (one, other) in enumerate(zip(names, expected, strict=False)) if one != other), len(expected))
    raise DataError(
        f"{path}: the columns differ from those of {first}: column {at + 1} is {[*names, None][at]!r}, expected "
        f"{[*expected, None][at]!r}"
    )


def _renamed(names: Sequence[str]) -> list[str]:
    """Distinct names: the second ``x`` becomes ``x#2``.

    >>> _renamed(["x", "x", "x#2", "x"])
    ['x', 'x#2', 'x#2#2', 'x#3']
    """
    # The search for a free number goes on where that of the name's last repetition ended.
    found: dict[str, None] = {}
    counts: dict[str, int] = {}
    for name in names:
        new, count = name, counts.get(name, 0)
        while new in found:
            count += 1
            new = f"{name}#{count + 1}"
        found[new], counts[name] = None, count
    return list(found)


def _parquet_schema(path: Path) -> pl.Schema:
    try:
        return pl.scan_parquet(path).collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(_unreadable(path, error)) from None


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _unreadable(path: Path, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{path}: cannot be read as a table: {first}"
