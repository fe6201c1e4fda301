"""A CSV, TSV or Parquet file as a lazy table."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recbole_dtn.data.preprocess.spec import ReaderSpec
from recbole_dtn.errors import DataError, UsageError

__all__ = ["reading_error", "scan_table"]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def scan_table(path: Path, reader: ReaderSpec) -> pl.LazyFrame:
    """The table, lazily; a text table as texts.

    Raises:
        DataError: for a file that is missing or no table. UsageError: for a file or separator of an unknown kind.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".gz":
        _check_gzip(path)
    suffix = (path.suffixes[-2:] or [""])[0] if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        return pl.scan_parquet(path)
    if reader.separator is None and suffix not in SEPARATORS:
        raise UsageError(
            f"{path}: unknown kind of file {suffix!r}: expected .csv, .tsv, .txt (or with .gz) or .parquet; for "
            "another text table set reader: {separator: ...} in the spec"
        )
    separator = SEPARATORS[suffix] if reader.separator is None else reader.separator
    padded, separator = len(separator) > 1, separator.strip(" ") or separator[:1]
    if len(separator) != 1:
        raise UsageError(f"reader: separator must be one character, spaces around it aside; found {reader.separator!r}")
    options: dict[str, Any] = {"separator": separator, "quote_char": reader.quote, "infer_schema": False}
    if reader.columns is not None:
        _check_width(path, reader.columns, options)
        options |= {"has_header": False, "new_columns": reader.columns}
    table = pl.scan_csv(path, **options)
    if reader.strip or padded:
        table = table.with_columns(pl.all().str.strip_chars())
    if reader.null_values:
        table = table.with_columns(pl.all().replace(reader.null_values, None))
    return table


def _check_gzip(path: Path) -> None:
    """Refuse what is no gzip file here, since some versions of Polars read plain text under that name."""
    try:
        with gzip.open(path) as file:
            file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read as a table: it is no gzip file ({error}); a plain text file is named without .gz"
        ) from None


def _check_width(path: Path, columns: Sequence[str], options: dict[str, Any]) -> None:
    first = pl.read_csv(path, has_header=False, n_rows=1, **options)
    if first.width != len(columns):
        raise DataError(
            f"{path}, line 1: expected {len(columns)} columns as in reader.columns, found {first.width} (separator "
            f"{options['separator']!r})"
        )


def reading_error(path: Path, error: Exception) -> str:
    """What Polars could not read, with the line where the text is not UTF-8."""
    if path.suffix != ".parquet" and "utf-8" in str(error).lower():
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as wrong:
                    return (
                        f"{path}, line {number}: not UTF-8 at byte {wrong.start} of the line; convert the file to UTF-8"
                    )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{path}: cannot be read as a table: {first}"
