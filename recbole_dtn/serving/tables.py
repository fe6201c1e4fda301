"""Rows to be scored, read in blocks from Parquet, CSV, TSV, atomic files or the standard input."""

from __future__ import annotations

import glob
import io
import sys
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import IO, NoReturn, cast

import polars as pl

from recbole_dtn.config.properties import read_typed
from recbole_dtn.config.settings import TaskSettings
from recbole_dtn.data.atomic import TYPES, AtomicTable, missing_mask
from recbole_dtn.data.long_lines import MAX_LINE
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.preprocess.lines import LINE
from recbole_dtn.preprocess.raw_files import COMPRESSED, stream_file
from recbole_dtn.preprocess.rejects import Tally
from recbole_dtn.preprocess.table.plan import parse_numbers
from recbole_dtn.preprocess.table.scan import HEADER_BYTES, ParquetTables, TableBlock, TextTables, open_tables
from recbole_dtn.preprocess.table.spec import ReaderSpec, TableSpec

__all__ = ["Reading", "Rows", "Table", "joined", "named_files", "numbers_of", "open_input", "open_sides", "read_spec"]

ATOMIC = (".inter", ".user", ".item")
STREAM = "-"
ALL = "*"


@dataclass(frozen=True)
class Rows:
    """A block of rows.

    Attributes:
        frame: the columns asked for. name: gives the name of a row by its place in ``frame``, such as
            ``events.csv, line 7``.
    """

    frame: pl.DataFrame
    name: Callable[[int], str]

    def slice(self, start: int, size: int) -> Rows:
        """Rows ``start`` to ``start + size``."""
        return Rows(self.frame.slice(start, size), lambda row: self.name(start + row))


def joined(parts: Sequence[Rows]) -> Rows:
    """Blocks of the same columns as one."""
    if len(parts) == 1:
        return parts[0]
    starts = list(accumulate((part.frame.height for part in parts), initial=0))

    def name(row: int) -> str:
        place = bisect_right(starts, row) - 1
        return parts[place].name(row - starts[place])

    return Rows(pl.concat([part.frame for part in parts], rechunk=False), name)


@dataclass(frozen=True)
class Reading:
    """How columns are read, as the spec of ``preprocess table`` says it.

    Attributes:
        reader: of text tables. separators: of lists in a text, by column; a space where there is none.
        fill: what a missing number is replaced by, by column. tasks: by name, with the conditions of their labels.
    """

    reader: ReaderSpec = field(default_factory=ReaderSpec)
    separators: Mapping[str, str] = field(default_factory=dict)
    fill: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, TaskSettings] = field(default_factory=dict)


def read_spec(path: Path) -> Reading:
    """What a spec of ``preprocess table`` says about reading; its filter and split do not matter here.

    Raises:
        UsageError: for a spec that is wrong.
    """
    spec = read_typed(path, TableSpec)
    separators = {
        name: entry.list_separator for entry in spec.fields for name in (entry.name, entry.weights) if name is not None
    }
    fill = {entry.name: entry.fill for entry in spec.fields if entry.fill is not None}
    return Reading(spec.reader, separators, {**spec.fill, **fill}, {task.name: task for task in spec.tasks})


class Table:
    """Files with the same columns, as one table.

    Attributes:
        names: the columns. escaped: whether tokens are spelled as atomic files have them. label: for messages.
    """

    def __init__(self, label: str, names: Sequence[str], *, escaped: bool) -> None:
        self.label, self.names, self.escaped = label, list(names), escaped

    def blocks(self, wanted: Sequence[str], meter: Meter = silent) -> Iterator[Rows]:
        """The rows in their order, with the columns ``wanted``.

        Raises:
            DataError: at a row that cannot be read, which it names: every row is scored, so that none is left out.
        """
        raise NotImplementedError

    def check(self, wanted: Mapping[str, str]) -> None:
        """Refuse columns that are not there; the values of ``wanted`` say what each is for.

        Raises:
            UsageError: naming each of them, and the nearest column.
        """
        missing = [name for name in wanted if name not in self.names]
        if not missing:
            return
        lines = []
        for name in missing[:10]:
            hint = nearest(name, self.names) if len(missing) == 1 else nearest(name, self.names).partition(" (known")[0]
            lines.append(f"no column {name!r} ({wanted[name]})" + ("" if hint.startswith("known:") else f"; {hint}"))
        more = [f"and {len(missing) - 10} more"] if len(missing) > 10 else []
        there = f"its columns: {', '.join(self.names[:40])}" + (", ..." if len(self.names) > 40 else "")
        raise UsageError("\n  ".join([f"{self.label}: columns are missing; {there}", *lines, *more]))


class _Refusing(Tally):
    """Raises at the first faulty row."""

    def __init__(self, unit: str) -> None:
        super().__init__("input", None, unit=unit)  # type: ignore[arg-type]

    @property
    def max_line(self) -> int:
        """The limit of raw tables where no other is set."""
        return MAX_LINE

    def reject(
        self, file: str, lines: Sequence[int], reason: str, texts: Sequence[str | bytes] = (), *, example: str = ""
    ) -> NoReturn:
        raise DataError(f"{file}, {self.unit} {lines[0]}: {example or reason}; every row is scored: correct the file")


class _Plain(Table):
    """Parquet, CSV and TSV; text with a header of ``name:type`` is read as an atomic file."""

    def __init__(self, tables: TextTables | ParquetTables, label: str) -> None:
        self.tables = tables
        own = tables.columns if isinstance(tables, TextTables) else list(tables.schema)
        types = [name.rpartition(":")[2] for name in own]
        typed = isinstance(tables, TextTables) and all(kind in TYPES for kind in types)
        names = [name.rpartition(":")[0] for name in own] if typed else own
        super().__init__(label, names, escaped=typed)
        self.own = dict(zip(names, own, strict=True))
        self.floats = [name for name, kind in zip(names, types, strict=True) if typed and kind == "float"]

    def blocks(self, wanted: Sequence[str], meter: Meter = silent) -> Iterator[Rows]:
        unit = self.tables.unit
        read = [self.own[name] for name in self.names if name in wanted]
        # A generator: closed with this one, it ends the thread that reads ahead.
        with closing(cast("Generator[TableBlock]", self.tables.blocks(read, _Refusing(unit), meter))) as blocks:
            for block in blocks:
                lines = block.frame[LINE]
                frame = block.frame.select(pl.col(self.own[name]).alias(name) for name in wanted)
                words = [name for name in self.floats if name in wanted]
                frame = frame.with_columns(frame[name].set(missing_mask(frame[name]), None) for name in words)
                yield Rows(frame, partial(_line, block.file, unit, lines))


def _line(file: str, unit: str, lines: pl.Series, row: int) -> str:
    return f"{file}, {unit} {lines[row]}"


class _Atomic(Table):
    """Atomic files, read as training reads them."""

    def __init__(self, files: Sequence[Path], label: str) -> None:
        self.table = AtomicTable(files)
        super().__init__(label, self.table.names, escaped=True)

    def blocks(self, wanted: Sequence[str], meter: Meter = silent) -> Iterator[Rows]:
        read = [name for name in self.names if name in wanted]
        with closing(self.table.batches(read)) as batches:
            for batch in batches:
                path = batch.header.path
                yield Rows(batch.frame.select(wanted), lambda row, b=batch, p=path: f"{p}, line {b.line(row)}")  # type: ignore[misc]


class _Joined(Table):
    """A table with further columns from side tables, each joined by the first column that both have."""

    def __init__(self, table: Table, sides: Sequence[Table]) -> None:
        self.table, self.sides = table, list(sides)
        self.keys = [self._key(side) for side in sides]
        names = list(table.names)
        for side, key in zip(sides, self.keys, strict=True):
            for name in side.names:
                if name in names and name != key:
                    raise UsageError(f"{side.label}: column {name!r} is there twice, beside that of {table.label}")
                names += [name] if name != key else []
            if side.escaped != table.escaped:
                raise UsageError(f"{side.label} and {table.label}: expected two atomic files, or none")
        super().__init__(table.label, names, escaped=table.escaped)
        self.held: dict[str, pl.DataFrame] = {}

    def _key(self, side: Table) -> str:
        shared = [name for name in side.names if name in self.table.names]
        if not shared:
            raise UsageError(
                f"{side.label}: shares no column with {self.table.label}, by which it is joined; its columns: "
                f"{', '.join(side.names)}"
            )
        return shared[0]

    def blocks(self, wanted: Sequence[str], meter: Meter = silent) -> Iterator[Rows]:
        joined = []
        for side, key in zip(self.sides, self.keys, strict=True):
            columns = [name for name in wanted if name in side.names and name != key]
            if columns:
                joined.append((_held(side, key, columns), key))
        own = [name for name in self.table.names if name in wanted or name in [key for _, key in joined]]
        for rows in self.table.blocks(own, meter):
            frame = rows.frame
            for held, key in joined:
                keys = frame.select(pl.col(key).cast(pl.String))
                found = keys.join(held, on=key, how="left", maintain_order="left").drop(key)
                frame = frame.hstack(found)
            yield Rows(frame.select(wanted), rows.name)


def _held(side: Table, key: str, columns: Sequence[str]) -> pl.DataFrame:
    """A whole side table, in memory.

    Raises:
        DataError: for a key that is there twice.
    """
    frame = pl.concat([rows.frame for rows in side.blocks([key, *columns])], how="vertical")
    frame = frame.with_columns(pl.col(key).cast(pl.String)).filter(pl.col(key).is_not_null())
    twice = frame.filter(pl.col(key).is_duplicated())
    if twice.height:
        raise DataError(f"{side.label}: {key} {twice[key][0]!r} is there twice; expected one row each")
    return frame


# ---- opening --------------------------------------------------------------------------------------------------------


def named_files(option: str, text: str) -> list[Path]:
    """The files of an option: with commas between, in this order; those of a pattern sorted.

    Raises:
        UsageError: for an address, and a file named twice. DataError: for a file that is not there.
    """
    if "://" in text:
        raise UsageError(f"--{option}={text}: expected files on this machine; download them first")
    found: list[Path] = []
    for part in [text] if Path(text).is_file() else [part.strip() for part in text.split(",")]:
        if Path(part).is_file():
            matches = [Path(part)]
        elif not part:
            continue
        else:
            matches = sorted(Path(name) for name in glob.glob(part, recursive=True) if Path(name).is_file())
            if not matches:
                what = "no file matches" if glob.has_magic(part) else "no such file"
                hint = f"; a folder's files are named by a pattern: '{part}/*.parquet'" if Path(part).is_dir() else ""
                raise DataError(f"--{option}: {part}: {what}{hint}")
        for match in matches:
            if match in found:
                raise UsageError(f"--{option}: {match} is named twice")
            found.append(match)
    if not found:
        raise UsageError(f"--{option}: expected files; found {text!r}")
    return found


def open_input(option: str, text: str, reading: Reading, *, stream: IO[bytes] | None = None) -> Table:
    """The table of an option such as ``--input``: files, patterns, or ``-`` for the standard input.

    Side tables that lie beside atomic files (``mine.user`` beside ``mine.inter``) belong to the table.

    Raises:
        UsageError: for files of unknown or of several kinds. DataError: for one that is missing or no table.
    """
    if text == STREAM:
        return _stream_table(sys.stdin.buffer if stream is None else stream, reading)
    files = named_files(option, text)
    label = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    kinds = {path.suffix in ATOMIC for path in files}
    if kinds == {True}:
        sides = [_Atomic([path], str(path)) for path in _sides_beside(files)]
        table: Table = _Atomic(files, label)
        return _Joined(table, sides) if sides else table
    if len(kinds) > 1:
        raise UsageError(f"--{option}: atomic files and others together; expected files of one kind")
    if all(path.suffix in COMPRESSED and path.with_suffix("").suffix in ATOMIC for path in files):
        reading = Reading(ReaderSpec(separator="\t", quote=None))
    return _Plain(open_tables(files, reading.reader), label)


def _sides_beside(files: Sequence[Path]) -> list[Path]:
    """``.user`` and ``.item`` beside ``.inter`` files; of parts such as ``mine.test.inter`` those of ``mine``."""
    if any(path.suffix != ".inter" for path in files) or len({path.parent for path in files}) > 1:
        return []
    stems = {path.name.partition(".")[0] for path in files}
    found = [files[0].parent / f"{stem}{ending}" for stem in stems for ending in (".user", ".item")]
    return [path for path in found if path.is_file()] if len(stems) == 1 else []


def open_sides(table: Table, text: str | None, reading: Reading) -> Table:
    """The table with those of ``--join`` beside it."""
    if text is None:
        return table
    sides = [open_input("join", str(path), reading) for path in named_files("join", text)]
    return _Joined(table, sides)


def _stream_table(stream: IO[bytes], reading: Reading) -> Table:
    raw = stream_file(stream, "standard input")
    with raw.open() as (text, _):
        assert isinstance(text, io.BufferedReader)
        # Peeked: what is read here is read again by the table.
        line = text.peek(HEADER_BYTES).split(b"\n", 1)[0]
    separator = reading.reader.separator or ("\t" if b"\t" in line or b"," not in line else ",")
    typed = all(cell.rpartition(b":")[2].strip().decode(errors="replace") in TYPES for cell in line.split(b"\t"))
    given = {"separator": separator, **({"quote": None} if typed else {})}
    table = TextTables([Path("standard input")], reading.reader.model_copy(update=given), [raw])
    return _Plain(table, "standard input")


# ---- values ---------------------------------------------------------------------------------------------------------


def numbers_of(rows: Rows, name: str, what: str, *, words: bool = False) -> pl.Series:
    """A column as ``Float64``, null where it is missing.

    Args:
        rows: of the column. name: of it. what: it is, for messages. words: whether true is 1 and false 0.

    Raises:
        DataError: at the first text that is no number, or number that is infinite, with file and line.
    """
    column = rows.frame[name]
    if column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
        found = column.cast(pl.Float64).fill_nan(None)
    elif column.dtype == pl.String:
        found = parse_numbers(column, words=words)
    else:
        raise DataError(f"{rows.name(0)}: {what}, column {name!r}: expected numbers; found {column.dtype}")
    if found.null_count() > column.null_count() or found.is_infinite().any():
        wrong = found.is_infinite().fill_null(False)
        if column.dtype == pl.String:
            texts = column.str.strip_chars().str.to_lowercase()
            wrong = wrong | (found.is_null() & column.is_not_null() & ~texts.is_in(["", "nan"]))
        if wrong.any():
            row = int(wrong.arg_true()[0])
            shown = repr(column[row])
            raise DataError(f"{rows.name(row)}: {what}, column {name!r}: expected a finite number; found {shown}")
    return found
