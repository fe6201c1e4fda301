"""Write atomic files that stock RecBole and this package read alike."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import yaml

from recbole_dtn.data.atomic import TYPES
from recbole_dtn.data.escape import HOSTILE_SEQUENCE, escape_series, escape_words, needs_escaping
from recbole_dtn.errors import DataError, nearest
from recbole_dtn.report.files import replacing

__all__ = ["ReadyRows", "number_texts", "replace_file", "write_atomic", "write_dataset_yaml"]

# Rows turned into text at a time.
BATCH_ROWS = 1 << 18
LONG = 1e16
"""Numbers from here on are spelled with an exponent."""


@dataclass(frozen=True)
class ReadyRows:
    """``height`` rows, already in the bytes that :func:`write_atomic` would write."""

    data: bytes
    height: int


def write_atomic(
    frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame | ReadyRows],
    path: Path,
    types: Mapping[str, str],
    *,
    escaped: bool = False,
    gaps: Collection[str] = (),
) -> int:
    """Write one atomic file, to a temporary name and then renamed.

    Tokens are escaped where stock RecBole would misread them (:mod:`recbole_dtn.data.escape`); a null or empty text
    is an empty cell. What cannot be written faithfully is refused.

    Args:
        frames: the rows, in one frame, lazily or in batches, which may be ready ones. path: the file.
        types: ``{column: token | token_seq | float | float_seq}`` in the order of the columns; a sequence is a list
            column, or a text column with spaces between the values.
        escaped: whether tokens come from an atomic file and are spelled as one has them.
        gaps: float columns whose missing numbers are written as empty cells (stock RecBole puts the mean there).

    Returns:
        The number of rows.

    Raises:
        DataError: for a missing or infinite float, a float column given as tokens, a name with a colon, an unknown
            type; with file, line and column.
    """
    for name, kind in types.items():
        if not name or any(character in name for character in ":\t\r\n"):
            raise DataError(f"{path}: column name {name!r} is empty or holds a colon, tab or line break: rename it")
        if kind not in TYPES:
            raise DataError(f"{path}: column {name!r}: unknown type {kind!r} ({nearest(kind, TYPES)})")
    rows = 0
    with replace_file(path) as file:
        file.write("\t".join(f"{name}:{kind}" for name, kind in types.items()).encode() + b"\n")
        for frame in _batches(frames):
            if isinstance(frame, ReadyRows):
                file.write(frame.data)
            else:
                text = _as_text(frame, types, path, rows, escaped, gaps)
                file.write(_in_bytes(text) if escaped else _escaped(text, types))
            rows += frame.height
    return rows


def number_texts(numbers: pl.Series) -> pl.Series:
    """Floats as texts: the shortest that is read as the same number, without ``.0``; zero has no sign.

    >>> number_texts(pl.Series([1.0, -3.0, 2.5, -0.0, 1e16, None])).to_list()
    ['1', '-3', '2.5', '0', '1e+16', None]
    """
    # Integers are printed faster than floats, have no ".0" to remove and no sign of zero.
    integers = numbers.cast(pl.Int64, strict=False)
    whole = (integers == numbers) & (numbers.abs() < LONG)
    if whole.all():
        return integers.cast(pl.String)
    if not whole.any():
        return numbers.cast(pl.String)
    # -0.0 equals 0 and becomes 0.0.
    return numbers.set(numbers == 0, 0.0).cast(pl.String).str.strip_suffix(".0")


def write_dataset_yaml(path: Path, content: Mapping[str, Any], comment: str) -> None:
    """Write a data set's YAML beside its atomic files, where ``--dataset`` finds it."""
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=110)
    with replace_file(path) as file:
        file.write(f"# {comment}\n{text}".encode())


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """``with replace_file(path) as file``: bytes go to a temporary file that takes the name when all went well."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(replacing(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        with temporary.open("wb") as file:
            yield file


def _batches(
    frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame | ReadyRows],
) -> Iterator[pl.DataFrame | ReadyRows]:
    if isinstance(frames, pl.LazyFrame):
        yield from frames.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)
    elif isinstance(frames, pl.DataFrame):
        yield from frames.iter_slices(BATCH_ROWS)
    else:
        yield from frames


def _in_bytes(text: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    text.write_csv(buffer, include_header=False, separator="\t", quote_style="never")
    return buffer.getvalue()


def _escaped(text: pl.DataFrame, types: Mapping[str, str]) -> bytes:
    """The rows as bytes. Tokens are checked one by one only where the bytes may hold something to escape."""
    # Written first and checked as bytes: one scan for all columns, and most data need no escaping.
    data = _in_bytes(text)
    needed = needs_escaping(data, text.height, text.width)
    if needed == "no":
        return data
    escape = escape_words if needed == "words" else escape_series
    tokens = [text[name] for name, kind in types.items() if kind == "token"]
    written = [escape(column) for column in tokens]
    # Escaping returns the same Series where it changes nothing.
    if all(after is before for after, before in zip(written, tokens, strict=True)):
        return data
    return _in_bytes(text.with_columns(written))


def _as_text(
    frame: pl.DataFrame, types: Mapping[str, str], path: Path, before: int, escaped: bool, gaps: Collection[str]
) -> pl.DataFrame:
    """Every column as the text to be written, tokens unescaped; ``before`` rows precede this batch."""
    written = []
    for name, kind in types.items():
        column = frame[name]
        if escaped and kind != "float":
            text = column
        elif kind == "token":
            text = token_texts(column, path)
        elif kind == "float":
            text = _float(column, path, before, gaps=name in gaps)
        else:
            text = _sequence(column, kind, path, before)
        written.append(text.alias(name))
    if len(written) == 1:
        # Readers skip blank lines, so the row would be lost.
        empty = (written[0].is_null() | (written[0] == "")).arg_true()
        if len(empty):
            where = f"{path}, line {before + int(empty[0]) + 2}"
            raise DataError(f"{where}: the only column is empty, which would be a blank line")
    return pl.DataFrame(written)


def token_texts(column: pl.Series, path: Path) -> pl.Series:
    """A column as texts.

    Raises:
        DataError: for floats, whose spelling as text is not the data's.
    """
    if column.dtype.is_float() or column.dtype.is_nested():
        raise DataError(
            f"{path}: column {column.name!r} is {column.dtype}, a token must be text or an integer: cast it first"
        )
    return column.cast(pl.String)


def _float(column: pl.Series, path: Path, before: int, *, gaps: bool) -> pl.Series:
    values = column.replace("", None) if column.dtype == pl.String else column
    numbers = values.cast(pl.Float64, strict=False)
    wrong = (numbers.is_null() | ~numbers.is_finite()).fill_null(True)
    if gaps:
        absent = values.is_null() | numbers.is_nan().fill_null(False)
        numbers, wrong = numbers.fill_nan(None), wrong & ~absent
    if wrong.any():
        row = int(wrong.arg_true()[0])
        found = "a missing value" if column[row] is None or column[row] == "" else repr(column[row])
        raise DataError(
            f"{path}, line {before + row + 2}: column {column.name!r}: expected a finite number, found {found}; stock "
            "RecBole would put the column's mean there: fill missing numbers or drop the row"
        )
    return number_texts(numbers)


def _sequence(column: pl.Series, kind: str, path: Path, before: int) -> pl.Series:
    if column.dtype == pl.String and kind == "token_seq":
        odd = column.str.contains(HOSTILE_SEQUENCE).fill_null(False)
        if not odd.any():
            return column
        # Only cells with something to escape are split into values.
        places = odd.arg_true()
        return column.clone().scatter(places, _joined(column.gather(places).str.split(" "), kind, path, before))
    lists = column.str.split(" ") if column.dtype == pl.String else column
    if not isinstance(lists.dtype, pl.List):
        raise DataError(f"{path}: column {column.name!r} is {column.dtype}; a {kind} is a list or a text with spaces")
    return _joined(lists, kind, path, before)


def _joined(lists: pl.Series, kind: str, path: Path, before: int) -> pl.Series:
    """Lists as texts with a space between the values; a null or empty value is none."""
    values = lists.explode()
    # Numbers need no escaping: lists are joined as they are, without a row for each value.
    if values.dtype.is_integer() or (values.dtype.is_float() and kind == "float_seq" and values.is_finite().all()):
        if kind == "float_seq":
            number = pl.element().cast(pl.Float64)
            unsigned = pl.when(number == 0).then(0.0).otherwise(number)
            texts = lists.list.eval(unsigned.cast(pl.String).str.strip_suffix(".0"))
        else:
            texts = lists.cast(pl.List(pl.String))
        return texts.list.join(" ", ignore_nulls=True)
    rows = pl.DataFrame({"row": range(lists.len()), "value": lists}).explode("value")
    rows = rows.filter(pl.col("value").is_not_null() & (pl.col("value").cast(pl.String) != ""))
    if kind == "float_seq":
        numbers = rows["value"].cast(pl.Float64, strict=False)
        wrong = (numbers.is_null() | ~numbers.is_finite()).fill_null(True)
        if wrong.any():
            at = int(wrong.arg_true()[0])
            raise DataError(
                f"{path}, line {before + rows['row'][at] + 2}: column {lists.name!r}: expected finite numbers, found "
                f"{rows['value'][at]!r}"
            )
        texts = number_texts(numbers)
    else:
        texts = escape_series(token_texts(rows["value"], path), in_sequence=True)
    joined = rows.with_columns(value=texts).group_by("row", maintain_order=True).agg(pl.col("value").str.join(" "))
    # Rows without values are missing from the groups and come back as nulls.
    every = pl.DataFrame({"row": range(lists.len())})
    return every.join(joined, on="row", how="left", maintain_order="left")["value"]
