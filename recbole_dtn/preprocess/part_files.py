"""Write several atomic files at a time from blocks of texts that need no escaping."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType

import polars as pl

from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.sources import PARTS
from recbole_dtn.errors import DataError, nearest
from recbole_dtn.preprocess.lines import BLOCK_BYTES, LINE, Lines, line_blocks, read_table
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.rejects import Tally

__all__ = ["PartFiles", "TextTable", "keep_sound", "text_blocks", "text_blocks_with_header"]


class TextTable:
    """An atomic file under construction, in a staging folder.

    Columns are texts or integers without tabs, line breaks or leading quotes (digits, numbers, escaped tokens), and
    are written as they are: a number keeps its spelling.

    Args:
        path: the file. types: ``{column: type}`` in the order of the columns.

    Attributes:
        rows: written so far.
    """

    def __init__(self, path: Path, types: Mapping[str, str]) -> None:
        self.path, self.types, self.rows = path, dict(types), 0
        self.file = path.open("w+b")
        self.file.write("\t".join(f"{name}:{kind}" for name, kind in types.items()).encode() + b"\n")

    def add(self, frame: pl.DataFrame) -> None:
        """Append the rows of a frame that has the columns."""
        frame.select(*self.types).write_csv(self.file, include_header=False, separator="\t", quote_style="never")
        self.rows += frame.height

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        self.file.close()


class PartFiles:
    """``with PartFiles(folder, name, types) as parts``: ``<name>.train.inter``, ``.valid`` and ``.test``, all open."""

    def __init__(self, folder: Path, name: str, types: Mapping[str, str]) -> None:
        self.tables = {part: TextTable(folder / f"{name}.{part}.inter", types) for part in PARTS}

    def __enter__(self) -> PartFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for table in self.tables.values():
                stack.callback(table.close)

    def __getitem__(self, part: str) -> TextTable:
        return self.tables[part]

    def written(self) -> dict[str, int]:
        """Rows by file name."""
        return {table.path.name: table.rows for table in self.tables.values()}


def keep_sound(
    frame: pl.DataFrame, checks: Mapping[str, pl.Expr], tally: Tally, file: str, *, separator: str = ","
) -> pl.DataFrame:
    """The rows for which every check is true; the others are rejected, each for the first check that is not.

    Args:
        frame: as :func:`~recbole_dtn.preprocess.lines.read_table` gives it. checks: ``{reason: expression}``;
            null counts as false. tally, file: where they are rejected. separator: between the values that are shown.
    """
    found = frame.select(expression.fill_null(value=False).alias(reason) for reason, expression in checks.items())
    # One mask for the usual case, where all rows are sound.
    sound = found.select(pl.all_horizontal(pl.all())).to_series()
    if sound.all():
        return frame
    wrong, found = frame.filter(~sound), found.filter(~sound)
    shown = wrong.select(pl.concat_str(pl.exclude(LINE).fill_null(""), separator=separator)).to_series()
    # Number of the first check that fails, per faulty row: each is rejected once.
    first = found.select(
        pl.coalesce(pl.when(~pl.col(reason)).then(pl.lit(number)) for number, reason in enumerate(checks))
    ).to_series()
    for number, reason in enumerate(checks):
        mask = first == number
        if mask.any():
            tally.reject(file, wrong[LINE].filter(mask).to_list(), reason, shown.filter(mask).to_list())
    return frame.filter(sound)


@contextmanager
def text_blocks(
    raw: RawFile, columns: Sequence[str], tally: Tally, *, meter: Meter = silent, block_bytes: int = BLOCK_BYTES
) -> Iterator[Iterator[pl.DataFrame]]:
    """``with text_blocks(...) as frames``: a table without header or quotes, a block of rows at a time."""
    with closing(_blocks(raw, None, block_bytes, meter, tally)) as blocks:
        yield (read_table(lines, columns, tally, raw.name) for lines in blocks)


@contextmanager
def text_blocks_with_header(
    raw: RawFile, needed: Sequence[str], tally: Tally, *, meter: Meter = silent, block_bytes: int = BLOCK_BYTES
) -> Iterator[Iterator[pl.DataFrame]]:
    """``with text_blocks_with_header(...) as frames``: a CSV file by the names in its header, in any order.

    Raises:
        DataError: for a file without a header, and a header that lacks a needed column or names one twice.
    """
    with closing(_blocks(raw, '"', block_bytes, meter, tally)) as blocks:
        yield _headed(raw.name, blocks, needed, tally)


def _blocks(
    raw: RawFile, quote: str | None, block_bytes: int, meter: Meter, tally: Tally
) -> Generator[Lines, None, None]:
    yield from line_blocks(raw, quote=quote, block_bytes=block_bytes, meter=meter, max_line=tally.max_line)


def _headed(file: str, blocks: Iterator[Lines], needed: Sequence[str], tally: Tally) -> Iterator[pl.DataFrame]:
    columns: list[str] | None = None
    for lines in blocks:
        if columns is None:
            header, _, rest = lines.data.partition(b"\n")
            columns = header_columns(file, header, needed)
            lines = Lines(rest, lines.first + 1)
        yield read_table(lines, columns, tally, file, quote='"').select(*needed, LINE)
    if columns is None:
        raise DataError(f"{file}: is empty; expected a header with {', '.join(needed)}")


def header_columns(file: str, header: bytes, needed: Sequence[str]) -> list[str]:
    """Names of a header's columns.

    Raises:
        DataError: for a needed column that is not there, and a name that is there twice.
    """
    # The first line of the file, taken as text: quotes around names are removed, a comma inside them is not expected.
    columns = [name.strip().strip('"') for name in header.decode("utf-8", errors="replace").split(",")]
    for name in needed:
        if columns.count(name) != 1:
            what = "has no column" if name not in columns else "has twice the column"
            hint = nearest(name, columns) if name not in columns else f"its columns: {', '.join(columns)}"
            raise DataError(f"{file}, line 1: the header {what} {name!r}; {hint}")
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f"{file}, line 1: the header has twice the column {name!r}")
    return columns
