"""Tables that are written in blocks, whole or not at all: Parquet, CSV and TSV."""

from __future__ import annotations

import gzip
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import polars as pl
import zstandard
from polars.io.plugins import register_io_source

from recbole_dtn.data.building import WRITING, locked_folder
from recbole_dtn.errors import DataError, UsageError, errno_of
from recbole_dtn.report.files import why_not_written

__all__ = ["OutputTable", "check_output", "open_output"]

STREAM = "-"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PACKED = (".gz", ".zst")
PARQUET = ".parquet"
QUEUED = 2
"""Blocks that wait to be written."""
GROUP_ROWS = 1 << 17
"""Rows of a row group of Parquet."""


def check_output(option: str, text: str, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before anything is read.

    Raises:
        UsageError: for an unknown ending, a folder, a file that is there without ``overwrite``, or a folder without
            write access.
    """
    if text == STREAM:
        return
    path = Path(text)
    known = f"{', '.join((PARQUET, *SEPARATORS))} (text also .gz, .zst), or - for CSV on the standard output"
    if _kind(path) not in (PARQUET, *SEPARATORS) or (_kind(path) == PARQUET and path.suffix in PACKED):
        raise UsageError(f"--{option}={text}: unknown kind of file; expected a name that ends in {known}")
    if path.is_dir():
        raise UsageError(f"--{option}={text} is a folder; expected a file")
    if path.exists() and not overwrite:
        raise UsageError(f"--{option}={text} exists: choose another name, or give --overwrite")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"--{option}={text}: {parent} is no folder that can be written to")


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix


class OutputTable:
    """Where blocks of rows go, one after another."""

    def __init__(self, file: IO[bytes], separator: str) -> None:
        self.file, self.separator, self.begun = file, separator, False

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows; a frame without rows writes the header."""
        lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
        texts = frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists)
        texts.write_csv(self.file, include_header=not self.begun, separator=self.separator)
        self.begun = True

    def close(self) -> None:
        """Finish the table."""
        self.file.flush()

    def abandon(self) -> None:
        """Stop without finishing it."""


class _ParquetTable(OutputTable):
    """A thread writes what is in a queue, so that encoding and compression overlap with scoring."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: queue.Queue[pl.DataFrame | None] = queue.Queue(QUEUED)
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.left = threading.Event()

    def write(self, frame: pl.DataFrame) -> None:
        if self.thread is None:
            # Not a daemon: the interpreter must not end while Polars writes.
            self.thread = threading.Thread(target=self._sink, args=(frame.schema,))
            self.thread.start()
        self._put(frame)

    def _put(self, frame: pl.DataFrame | None) -> None:
        # With a timeout, to notice that the thread has ended.
        while self.error is None:
            try:
                self.waiting.put(frame, timeout=0.1)
                return
            except queue.Full:
                continue
        raise self.error

    def _sink(self, schema: pl.Schema) -> None:
        def frames(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
        ) -> Iterator[pl.DataFrame]:
            while not self.left.is_set():
                try:
                    frame = self.waiting.get(timeout=0.1)
                except queue.Empty:
                    continue
                if frame is None:
                    return
                yield frame

        try:
            source = register_io_source(cast("Callable[..., Iterator[pl.DataFrame]]", frames), schema=schema)
            source.sink_parquet(self.path, maintain_order=True, row_group_size=GROUP_ROWS)
        except BaseException as error:
            self.error = error

    def close(self) -> None:
        self._put(None)
        assert self.thread is not None
        self.thread.join()
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        self.left.set()
        if self.thread is not None:
            self.thread.join()


@contextmanager
def open_output(text: str) -> Iterator[OutputTable]:
    """``with open_output(text) as table``: a table that takes its name when all went well.

    Args:
        text: a file, its kind by its ending, or ``-`` for CSV on the standard output.

    Raises:
        DataError: where it cannot be written, such as for a full disk; a file of that name is as before.
    """
    if text == STREAM:
        try:
            yield OutputTable(sys.stdout.buffer, ",")
            sys.stdout.buffer.flush()
        except OSError as error:
            number = errno_of(error)
            if number is None:
                raise
            # Polars' own errors have neither number nor name.
            raise OSError(number, os.strerror(number), "standard output") from None
        return
    path = Path(os.path.realpath(text))  # a link stays one, and what it names is written
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder that this process holds; those that killed processes left beside it are removed.
        with locked_folder(path.parent, WRITING) as folder:
            with _Finished(_opened(folder / path.name, path)) as table:
                yield table
            os.replace(folder / path.name, path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{text}: cannot be written {why_not_written(error, path.parent)}") from error


class _Finished:
    """Closes a table at the end of a ``with``, or abandons it."""

    def __init__(self, table: OutputTable) -> None:
        self.table = table

    def __enter__(self) -> OutputTable:
        return self.table

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.table.close()
        else:
            self.table.abandon()


def _opened(file: Path, path: Path) -> OutputTable:
    if _kind(path) == PARQUET:
        return _ParquetTable(file)
    return _TextTable(file, path)


class _TextTable(OutputTable):
    """Text in a file, compressed by the ending of the name."""

    def __init__(self, file: Path, path: Path) -> None:
        self.raw = file.open("wb")
        stream: Any = self.raw
        if path.suffix == ".gz":
            stream = gzip.GzipFile(filename="", fileobj=self.raw, mode="wb", compresslevel=6)
        elif path.suffix == ".zst":
            stream = zstandard.ZstdCompressor().stream_writer(self.raw, closefd=False)
        super().__init__(stream, SEPARATORS[_kind(path)])

    def close(self) -> None:
        if self.file is not self.raw:
            self.file.close()  # writes the end of the compressed data
        self.raw.close()

    def abandon(self) -> None:
        self.raw.close()
