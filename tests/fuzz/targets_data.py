"""Targets that read rows: atomic files, text tables, archives of raw files."""

from __future__ import annotations

import gzip
import io
import math
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from recbole_dtn.data import atomic
from recbole_dtn.data.atomic import AtomicTable
from recbole_dtn.data.raw import RawFloats, RawTokens, read_raw
from recbole_dtn.errors import DataError, RecBoleDTNError, UsageError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.raw_files import RawFolder
from recbole_dtn.serving.tables import Reading, numbers_of, open_input
from tests.fuzz import atomic_oracle, csv_oracle
from tests.fuzz.runner import ChangedError, Target

__all__ = ["Archives", "Inter", "PredictCsv"]

MOST_BLOCKS = 200
"""Of an atomic file: each takes milliseconds, however short it is."""


class Inter(Target):
    """Atomic files, as encoding and ``data validate`` read them; every value must be the oracle's."""

    name = "inter"
    seeds = (
        b"user:token\titem:token\ttags:token_seq\tprice:float\tweights:float_seq\tclick:float\n"
        b"1\ti1\ta b c\t1.5\t1 2 3\t1\n2\ti2\t\t-0.25\t\t0\n1\ti3\ta\t\t0.5\t1\n 3\t\tx  y\t 1e3 \t1 2\t0\n",
        "u:token\tx:float\n007\t1\n7\t2.5\n日本\tNULL\n%4EA\tnan\nNA\t-1e-3\n".encode(),
        b"u:token\r\n1\r\n\r\n2\r\n300000000000\r\n-4",
        b"s:token_seq\tn:float_seq\n a  b \t1 2\n\t\nNULL x\t.5",
    )
    words = (b"\t", b"\n", b"token", b":float", b"_seq", b":", b"\t\t", b"\n\n")

    def check(self, data: bytes) -> None:
        folder = self.folder / "fz"
        folder.mkdir(exist_ok=True)
        path = folder / "fz.inter"
        path.write_bytes(data)
        parsed, fault = None, ""
        try:
            parsed = atomic_oracle.parse(data)
        except atomic_oracle.FormatError as error:
            fault = str(error)
        # Few bytes, many, and all: a fault or a missing value must be found wherever a block ends.
        with _block_bytes(max((7, 60, 1 << 20)[len(data) % 3], len(data) // MOST_BLOCKS)):
            fatal = [found for found in validate(folder) if found.fatal and not found.reason.startswith("no rows")]
            try:
                found = _columns(path, self.folder / "scratch")
            except DataError as error:
                if parsed is not None:
                    raise ChangedError(f"a good file is refused: {error}") from error
                if not fatal:
                    raise ChangedError(f"validate finds no fault: {error}") from error
                raise
        if parsed is None:
            raise ChangedError(f"a faulty file is accepted: {fault}")
        if fatal:
            raise ChangedError(f"validate finds a fault in a good file: {fatal[0]}")
        for name, kind in parsed.types.items():
            if not _same(found[name], parsed.columns[name]):
                raise ChangedError(f"a {kind} column differs: {name}: {found[name]} is not {parsed.columns[name]}")


@contextmanager
def _block_bytes(size: int) -> Iterator[None]:
    before = atomic.BLOCK_BYTES
    atomic.BLOCK_BYTES = size
    try:
        yield
    finally:
        atomic.BLOCK_BYTES = before


def _columns(path: Path, scratch: Path) -> dict[str, list[Any]]:
    """Every column as encoding has it."""
    scratch.mkdir(exist_ok=True)
    try:
        table = AtomicTable([path])
        raw = read_raw(table, table.names, {}, scratch)
        return {name: _values(column) for name, column in raw.columns.items()}
    finally:
        shutil.rmtree(scratch)


def _values(column: Any) -> list[Any]:
    if isinstance(column, RawFloats):
        return [None if math.isnan(value) else value for value in _all(column.values)]
    if isinstance(column, RawTokens):
        return column.texts(np.array(_all(column.codes), np.int64)).to_list()
    lengths, values = _all(column.lengths), _all(column.values)
    if column.space is not None:
        tokens = column.space.tokens().to_list()
        values = [tokens[code] for code in values]
    ends = np.cumsum([0, *lengths]).tolist()
    return [values[start:stop] for start, stop in pairwise(ends)]


def _all(array: Any) -> list[Any]:
    found: list[Any] = array.read(0, array.size).tolist()
    return found


def _same(found: list[Any], expected: list[Any]) -> bool:
    """Equal, an absent list being an empty one."""
    return [value or None if isinstance(value, list) else value for value in found] == [
        value or None if isinstance(value, list) else value for value in expected
    ]


class PredictCsv(Target):
    """Text tables that ``predict`` reads; every cell must be the oracle's, and so every number."""

    name = "predict-csv"
    seeds = (
        b'user,item,price,tags\nu1,i1,1.5,a b\nu2,i2,,"x,y"\nu3,i3, 2 ,"say ""hi""\nline 2"\nu4,,nan,NULL\n',
        b"\xef\xbb\xbfa,b\r\n1,2\r\n3,-4e-1\r\n",
        b'x\n1\n"2"\n"3\n4"\n',
        "id,n\né日本,1\n\u2028,0.1\n".encode(),
    )
    words = (b'"', b'""', b",", b'","', b'"\n', b'\n"', b"\r\n", b"a,b", b'""""')

    def check(self, data: bytes) -> None:
        path = self.folder / "rows.csv"
        path.write_bytes(data)
        rows: list[list[str | None]] | None = None
        fault = ""
        try:
            rows = csv_oracle.parse_table(data, ",")
        except csv_oracle.FormatError as error:
            fault = str(error)
        try:
            table = open_input("input", str(path), Reading())
            blocks = list(table.blocks(table.names))
            # An empty text between quotes counts as a missing one.
            found = [[cell or None for cell in row] for block in blocks for row in block.frame.rows()]
        except (DataError, UsageError) as error:
            if rows and len(set(rows[0])) == len(rows[0]) and None not in rows[0]:
                raise ChangedError(f"a good table is refused: {error}") from error
            raise
        if table.escaped:  # a header of name:type makes it an atomic file
            return
        if rows is None:
            raise ChangedError(f"a faulty table is accepted: {fault}")
        if found != rows[1:]:
            raise ChangedError(f"cells differ: {found} is not {rows[1:]}")
        for position, name in enumerate(table.names):
            self._numbers(blocks, name, [row[position] for row in rows[1:]])

    def _numbers(self, blocks: list[Any], name: str, cells: list[str | None]) -> None:
        expected: list[float | None] | None = None
        with suppress(csv_oracle.FormatError):
            expected = [csv_oracle.number(cell) for cell in cells]
        try:
            found = [value for block in blocks for value in numbers_of(block, name, "field")]
        except RecBoleDTNError as error:
            if expected is not None:
                raise ChangedError(f"good numbers are refused: {error}") from error
            return
        if found != expected:
            raise ChangedError(f"numbers differ: {found} is not {expected} of {cells}")


class Archives(Target):
    """Raw files in archives; the first byte of an input chooses the ending of its name."""

    name = "archives"
    endings = (".zip", ".tar", ".tar.gz", ".gz", ".zst", ".tgz", ".tar.zst")
    text = b"".join(b"%d\t%d\t%d\t%d\n" % (i % 7, i % 5, i % 5 + 1, 880000000 + i) for i in range(40))
    words = (b"u.data", b"PK\x03\x04", b"PK\x01\x02", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"ustar")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        made = (_zip(self.text), _tar(self.text), _tar(self.text, "gz"), gzip.compress(self.text, mtime=0),
                zstandard.compress(self.text), _tar(self.text, "gz"), zstandard.compress(_tar(self.text)))  # fmt: skip
        self.seeds = [
            *(bytes([at]) + content for at, content in enumerate(made)),
            bytes([0]) + _zip(_zip(self.text), "inner.zip"),
            bytes([3]) + gzip.compress(self.text[:100], mtime=0) + gzip.compress(self.text[100:], mtime=0),
            bytes([4]) + zstandard.compress(self.text[:100]) + zstandard.compress(self.text[100:]),
        ]

    def check(self, data: bytes) -> None:
        ending = self.endings[data[0] % len(self.endings)] if data else ".zip"
        content, folder = data[1:], self.folder / "raw"
        folder.mkdir(exist_ok=True)
        path = folder / (f"u.data{ending}" if ending in (".gz", ".zst") else f"raw{ending}")
        try:
            path.write_bytes(content)
            raw = RawFolder(folder).find("u.data")
            if raw is None:
                raise DataError("not found")
            with raw.open() as (stream, _):
                found = stream.read(1 << 26)
            inner = raw.name.count(".zip") > 1
        finally:
            shutil.rmtree(folder)
        if inner or found == self.text:  # a zip in a zip has two sums
            return
        try:
            expected = _read(content, ending, raw.name)
        except Exception as error:
            raise ChangedError(f"an archive is accepted that Python cannot read: {error!r}") from error
        if found != expected:
            raise ChangedError(f"a member differs: {found[:99]!r} is not {expected[:99]!r}")


def _zip(text: bytes, name: str = "ml/u.data") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("ml/readme.txt"), "x")
        archive.writestr(zipfile.ZipInfo(name), text)
    return file.getvalue()


def _tar(text: bytes, compression: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (("ml/readme.txt", b"x"), ("ml/u.data", text)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0) if compression else file.getvalue()


def _read(content: bytes, ending: str, name: str) -> bytes:
    """What an archive holds, read by Python's own functions, whole and without a stream."""
    if ending in (".gz", ".tar.gz", ".tgz"):
        content = gzip.decompress(content)
    elif ending.endswith(".zst"):
        content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()
    if ending in (".gz", ".zst"):
        return content
    member = name.partition("/")[2]
    if ending == ".zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = archive.read(member)
    else:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            file = tar.extractfile(next(info for info in tar if info.name == member))
            assert file is not None
            found = file.read()
    if member.endswith(".gz"):
        return gzip.decompress(found)
    return found
