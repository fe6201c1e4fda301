"""The records of a leaderboard in one file beside its tables, ``<board>.records.jsonl.gz``.

The first line names the rows, each other line is a record as ``record.json`` has it. With it the
tables are made again where neither the runs nor the data are, and the leaderboard goes on from it. Records that are not
in the tables, such as those of rows that were left out this time, stay behind the others.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recbole_dtn.config.strict import Strict
from recbole_dtn.errors import DataError, why
from recbole_dtn.leaderboard.cells import CellKey
from recbole_dtn.leaderboard.design import NO_DESIGN, Design
from recbole_dtn.record.record import RunRecord, checked_record, sealed_content
from recbole_dtn.report.files import DAMAGED, json_value, put_aside, write_bytes

__all__ = ["SUFFIX", "Archive", "archive_file", "read_archive", "write_archive"]

SUFFIX = ".records.jsonl.gz"
FORMAT = 1
MOST_BYTES = 1 << 30
"""Most bytes of an archive when it is unpacked."""


class Head(Strict):
    """The first line: names of rows by the digest of their settings, how many records are theirs, what is compared."""

    format: int = FORMAT
    rows: dict[str, str]
    shown: int
    design: Design = NO_DESIGN


@dataclass(frozen=True)
class Archive:
    """A leaderboard's records, in the order of its rows, and others; ``name`` is that of the file."""

    name: str
    head: Head
    records: list[RunRecord]
    others: list[RunRecord]


def archive_file(folder: Path, board: str) -> Path:
    """Where the records of a leaderboard are, beside its tables."""
    return folder / f"{board}{SUFFIX}"


def write_archive(
    records: Sequence[RunRecord], names: Mapping[str, str], folder: Path, board: str, design: Design = NO_DESIGN
) -> Path:
    """Write the file, whole or not at all. What it had of cells that are not among ``records`` stays in it.

    The same records, and the same others, give the same bytes.

    Returns:
        Its path.
    """
    rows = {record.settings_digest: names[record.settings_digest] for record in records}
    head = Head(rows=rows, shown=len(records), design=design)
    lines: list[Any] = [head.model_dump(mode="json"), *map(sealed_content, records)]
    lines += map(sealed_content, _others(archive_file(folder, board), records))
    text = "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines)
    path = archive_file(folder, board)
    write_bytes(path, gzip.compress(text.encode(), mtime=0))
    return path


def read_archive(path: Path) -> Archive:
    """Read the file.

    Raises:
        DataError: for a file that cannot be read, is cut or damaged, or has a line that is no record of this version;
            it names the line.
    """
    lines = _lines(path)
    first = next(lines, None)
    version = first.get("format", FORMAT) if isinstance(first, dict) else FORMAT
    if version != FORMAT:
        raise DataError(f"{path}, line 1: expected format {FORMAT}, found {version}; take a newer recbole_dtn")
    try:
        head = Head.model_validate(first)
    except ValidationError:
        raise DataError(f"{path}, line 1: not the records of a leaderboard; `leaderboard run` writes them") from None
    for title, pair in head.design.contrasts.items():
        if len(pair) != 2:
            found = f"contrasts.{title}: expected the names of two rows, found [{', '.join(pair)}]"
            raise DataError(f"{path}, line 1: {found}; {DAMAGED}")
    records = [checked_record(content, f"{path}, line {number}") for number, content in enumerate(lines, 2)]
    records, others = records[: head.shown], records[head.shown :]
    unnamed = next((record for record in records if record.settings_digest not in head.rows), None)
    if unnamed is not None:
        raise DataError(f"{path}, line 1: no row of the settings {unnamed.settings_digest}; {DAMAGED}")
    return Archive(path.name.removesuffix(SUFFIX), head, records, others)


def _others(path: Path, records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records of a file that is there whose cells are not among others; one that cannot be read is put aside."""
    try:
        found = read_archive(path) if path.is_file() else None
    except DataError:
        put_aside(path)
        return []
    cells = set(map(_cell, records))
    return [] if found is None else [each for each in (*found.records, *found.others) if _cell(each) not in cells]


def _cell(record: RunRecord) -> CellKey:
    """The cell that a record fills, whatever version of this package made it."""
    return replace(CellKey.of(record), code_version="")


def _lines(path: Path) -> Iterator[Any]:
    try:
        with gzip.open(path) as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole gzip file of text ({error}); {DAMAGED}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read {why(error)}") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: expected at most {MOST_BYTES:,} bytes of records; {DAMAGED}")
    for number, line in enumerate(text.splitlines(), 1):
        yield json_value(line, path, number)
