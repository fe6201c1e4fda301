"""Raw files as they were downloaded: plain, ``.gz``, ``.zst``, or inside ``.zip`` and ``.tar`` archives, as streams."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import zstandard

from recbole_dtn.data.building import WRITING, locked_folder
from recbole_dtn.errors import DataError

__all__ = ["TEXT_PER_BYTE", "RawFile", "RawFolder", "plain_file", "stream_file"]

TEXT_PER_BYTE = 3.5
"""Bytes of text per byte of a compressed log, for estimates alone."""
COMPRESSED = (".gz", ".zst")
# Compressed bytes read at a time.
ZSTD_BYTES = 1 << 17
# Bytes that are read behind a member of a tar, for the checksum of the archive where its end is so near.
BEHIND_BYTES = 1 << 20
TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
# Everything that cut-off or damaged files raise in the libraries used.
READ_ERRORS = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, zstandard.ZstdError)
# And what zipfile raises besides for a damaged directory: an unknown method, a password, an empty name.
OPEN_ERRORS = (*READ_ERRORS, NotImplementedError, RuntimeError, IndexError, KeyError, ValueError, struct.error)

Opener = Callable[[], "tuple[IO[bytes], Callable[[], int]]"]
"""Opens a file: its bytes, and how far it is in units of ``RawFile.size``."""


@dataclass(frozen=True)
class RawFile:
    """One raw file, plain, compressed or inside an archive.

    Attributes:
        name: as messages call it: ``sample_train.tar.gz/sample_skeleton_train.csv``.
        size: bytes to read: of the text where its size is known, otherwise of the compressed file.
        path: of the file on disk, which may be an archive.
    """

    name: str
    size: int
    path: Path
    _open: Opener

    @property
    def on_disk_compressed(self) -> bool:
        """Whether the file must be decompressed or found in an archive."""
        return self.path.name.lower().endswith((".zip", *TARS, *COMPRESSED))

    @property
    def packed(self) -> bool:
        """Whether :attr:`size` counts compressed bytes."""
        return self.name.lower().endswith(COMPRESSED)

    @contextmanager
    def open(self) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
        """``with raw.open() as (stream, position)``: the bytes, and how many of ``size`` are read.

        Raises:
            DataError: when it cannot be read, or is not what its ending says.
        """
        try:
            stream, position = self._open()
        except OPEN_ERRORS as error:
            raise self._unreadable(error) from None
        with stream:
            try:
                yield stream, position
            except READ_ERRORS as error:
                raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DataError:
        if isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped file"):
            return DataError(f"{self.name}: is not gzip data ({error}); a plain text file is named without .gz")
        return DataError(f"{self.name}: cannot be read ({error}); is the download complete?")


class RawFolder:
    """The raw files under a folder, found by name.

    Args:
        folder: where they are; its subfolders are searched too. scratch: gets what must be unpacked to be read.
        nested: whether to look into zips inside zips, which are unpacked for that.

    Attributes:
        unseen: bytes of the zips inside zips that were not looked into.
    """

    def __init__(self, folder: Path, scratch: Path | None = None, *, nested: bool = True) -> None:
        self.folder, self.nested, self.unseen = folder, nested, 0
        self._scratch = scratch
        # Listings of archives that have begun, and the members so far: the next search goes on where one stopped.
        self._scans: dict[Path, Iterator[RawFile]] = {}
        self._seen: dict[Path, list[RawFile]] = {}

    def find(self, name: str) -> RawFile | None:
        """The file ``name``, also as ``name.gz`` or ``name.zst``, plain or in an archive; None when it is not there."""
        # Plain files first: an archive beside its unpacked files is not read.
        for ending in ("", *COMPRESSED):
            for path in sorted(self.folder.rglob(f"{name}{ending}")) if self.folder.is_dir() else []:
                if path.is_file():
                    return plain_file(path, name=str(path.relative_to(self.folder)))
        for archive in self._archives(name):
            for member in self._members(archive):
                if _is_called(member.name, name):
                    return member
        return None

    def find_all(self, names: Sequence[str]) -> tuple[dict[str, RawFile], list[str]]:
        """The files that are there, and the names of those that are not."""
        found = {name: self.find(name) for name in names}
        return {name: raw for name, raw in found.items() if raw is not None}, [
            name for name, raw in found.items() if raw is None
        ]

    def _archives(self, name: str) -> list[Path]:
        """Archives in the folder, those whose names share most words with the wanted file first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.rglob("*") if path.name.lower().endswith((".zip", *TARS))]
        words = set(_words(name))
        return sorted(found, key=lambda path: (-len(words & set(_words(path.name))), path))

    def _members(self, archive: Path) -> Iterator[RawFile]:
        """Members of an archive, listed lazily: listing a .tar.gz decompresses it."""
        seen = self._seen.setdefault(archive, [])
        # Members that earlier searches listed.
        yield from seen
        if archive not in self._scans:
            scan = self._zip_members if archive.name.lower().endswith(".zip") else self._tar_members
            self._scans[archive] = scan(archive, archive.name, archive)
        try:
            for member in self._scans[archive]:
                seen.append(member)
                yield member
        except OPEN_ERRORS as error:
            raise DataError(f"{archive}: cannot be read ({error}); is the download complete?") from None

    def _zip_members(self, path: Path, name: str, outermost: Path) -> Iterator[RawFile]:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        for info in infos:
            member = f"{name}/{info.filename}"
            if not info.filename.lower().endswith(".zip"):
                yield _decompressed(member, info.file_size, outermost, _zip_opener(path, info.filename))
            elif self.nested:
                yield from self._zip_members(self._unpacked(path, info), member, outermost)
            else:
                self.unseen += info.file_size

    def _unpacked(self, path: Path, info: zipfile.ZipInfo) -> Path:
        """Copy a zip out of a zip: its directory is at its end, so it cannot be read as a stream."""
        if self._scratch is None:
            held = ExitStack()
            self._scratch = held.enter_context(locked_folder(Path(tempfile.gettempdir()), f"{WRITING}raw-"))
            weakref.finalize(self, held.close)
        handle, name = tempfile.mkstemp(dir=self._scratch, suffix=".zip")
        with zipfile.ZipFile(path) as archive, archive.open(info) as source, os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return Path(name)

    def _tar_members(self, path: Path, name: str, outermost: Path) -> Iterator[RawFile]:
        with _tar_stream(path) as stream, _tar(stream) as archive:
            for member in archive:
                if member.isfile():
                    opener = _tar_opener(path, member.name)
                    yield _decompressed(f"{name}/{member.name}", member.size, outermost, opener)


def _is_called(member: str, name: str) -> bool:
    """Whether a member of an archive is the file ``name``: by its own name, or by that of the zip that it lies in.

    >>> _is_called("a.zip/b/nl_item.csv.gz", "nl_item.csv"), _is_called("a.zip/nl_item.zip/data.csv", "nl_item.csv")
    (True, True)
    """
    path, wanted = PurePosixPath(member), PurePosixPath(name)
    own_zip = path.parent.name == f"{wanted.stem}.zip" and path.suffix == wanted.suffix
    return own_zip or path.name in (name, *(f"{name}{ending}" for ending in COMPRESSED))


def plain_file(path: Path, *, name: str | None = None) -> RawFile:
    """A file on disk, decompressed where its ending says so.

    >>> plain_file(Path("missing.csv.gz"), name="missing.csv.gz").size
    0
    """

    def opener() -> tuple[IO[bytes], Callable[[], int]]:
        # The position is that in the compressed file: progress in units of ``size``.
        stream = path.open("rb")
        return stream, stream.tell

    size = path.stat().st_size if path.is_file() else 0
    return _decompressed(name or str(path), size, path, opener)


def _decompressed(name: str, size: int, path: Path, opener: Opener) -> RawFile:
    """The text inside a compressed file; its position is that in the compressed one."""
    # A .tar.gz is decompressed by `_tar`, as its members are what is read.
    if not name.lower().endswith(COMPRESSED) or name.lower().endswith(TARS):
        return RawFile(name, size, path, opener)

    def outer() -> tuple[IO[bytes], Callable[[], int]]:
        stream, position = opener()
        return _decompressor(stream, name), position

    return RawFile(name, size, path, outer)


def _decompressor(stream: IO[bytes], name: str) -> IO[bytes]:
    if name.lower().endswith((".gz", ".tgz")):
        return io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"), 1 << 20)
    return io.BufferedReader(_ZstdReader(stream), 1 << 20)


class _ZstdReader(io.RawIOBase):
    """The text of a ``.zst`` of one frame or several; an end in the middle of a frame is an error (zstandard's own
    reader takes it for the end of the file).
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._stream.read(ZSTD_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("Compressed file ended in the middle of a frame")
                return 0
            self._ready = memoryview(self._decompressed(data))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompressed(self, data: bytes) -> bytes:
        parts = []
        while data:
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            parts.append(self._frame.decompress(data))
            # Bytes behind the end of a frame are the next frame (files joined by ``cat``, or made in parallel).
            data = b""
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
        return b"".join(parts)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def stream_file(stream: IO[bytes], name: str) -> RawFile:
    """A file whose bytes come from a stream that cannot go back, such as the standard input.

    It is decompressed where its first bytes are those of gzip or Zstandard. It may be opened twice: what is read at the
    first opening is kept, and read again at the second.

    Args:
        stream: the bytes. name: as messages call it.

    Raises:
        DataError: for Parquet, whose end must be read first.

    >>> raw = stream_file(io.BytesIO(gzip.compress(b"a,b\\n1,2\\n")), "stdin.csv")
    >>> for _ in range(2):
    ...     with raw.open() as (text, _):
    ...         print(text.read(3))
    b'a,b'
    b'a,b'
    """
    source = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
    replayed = _Replayed(source)
    head = replayed.opened().read(4)  # the first opening of what is compressed
    if head == b"PAR1":
        raise DataError(f"{name}: Parquet cannot be read from a stream, as its end is read first; name the file")
    ending = {b"\x1f\x8b": ".gz", b"\x28\xb5": ".zst"}.get(head[:2])
    source = replayed.opened()
    text = _Replayed(source if ending is None else _decompressor(source, ending))
    return RawFile(name, 0, Path(name), lambda: (text.opened(), lambda: 0))


class _Replayed:
    """A stream that can be opened twice; the first opening keeps what it reads."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.kept, self.openings = stream, b"", 0

    def opened(self) -> io.BufferedReader:
        self.openings += 1
        return io.BufferedReader(_Replay(self), 1 << 16)


class _Replay(io.RawIOBase):
    """What was kept, then the rest of the stream."""

    def __init__(self, owner: _Replayed) -> None:
        self._owner, self._first = owner, owner.openings == 1
        self._ready = b"" if self._first else owner.kept

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._ready[: len(buffer)] or self._owner.stream.read(len(buffer))
        if self._ready:
            self._ready = self._ready[len(data) :]
        elif self._first:
            self._owner.kept += data
        buffer[: len(data)] = data
        return len(data)


def _tar_stream(path: Path) -> IO[bytes]:
    stream: IO[bytes] = path.open("rb")
    packed = path.name.lower().endswith((*COMPRESSED, ".tgz"))
    return _decompressor(stream, path.name) if packed else stream


def _tar(stream: IO[bytes]) -> tarfile.TarFile:
    """A tar as a stream from its start."""
    # "r|" never seeks: decompressed streams can only go back by starting again.
    return tarfile.open(fileobj=stream, mode="r|")


def _tar_opener(path: Path, member_name: str) -> Opener:
    def opener() -> tuple[IO[bytes], Callable[[], int]]:
        stream = _tar_stream(path)
        archive = _tar(stream)
        # Every opening reads the archive from its start to the member.
        for member in archive:
            if member.name == member_name:
                content = archive.extractfile(member)
                assert content is not None
                return io.BufferedReader(_Member(content, stream), 1 << 20), content.tell
        raise OSError(f"{member_name} is no longer in the archive")

    return opener


class _Member(io.RawIOBase):
    """A member of a tar. At its end up to ``BEHIND_BYTES`` of the archive are read on: the checksum of a compressed one
    is behind all members, and compared only there.
    """

    def __init__(self, content: IO[bytes], archive: IO[bytes]) -> None:
        self._content, self._archive, self._ended = content, archive, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._content.readinto(buffer)  # type: ignore[attr-defined]
        if not count and len(buffer) and not self._ended:
            self._ended = True
            left = BEHIND_BYTES
            while left > 0 and (data := self._archive.read(min(left, 1 << 16))):
                left -= len(data)
        return count

    def close(self) -> None:
        if not self.closed:
            self._content.close()
            self._archive.close()
        super().close()


def _zip_opener(path: Path, member: str) -> Opener:
    def opener() -> tuple[IO[bytes], Callable[[], int]]:
        with zipfile.ZipFile(path) as archive:
            stream = archive.open(member)  # which keeps the file open until it is closed itself
        return stream, stream.tell

    return opener


def _words(name: str) -> list[str]:
    return name.lower().replace(".", "_").replace("-", "_").split("_")
