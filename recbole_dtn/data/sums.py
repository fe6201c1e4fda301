"""Checksums of files, JSON that carries its own, and whether a file is still the one that was checked.

A checksum is BLAKE2b over the BLAKE2b digests of blocks, which are taken in several threads: about 0.9 GB/s for each
core (docs/data-cache.md). Needs neither torch nor polars.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recbole_dtn.report.files import replacing

__all__ = ["file_sum", "file_sums", "identity", "read_signed", "write_signed"]

BLOCK = 1 << 22
"""Bytes of a block, and of what each thread holds."""
MOST_THREADS = 16
MARK = ', "sum": "'


def file_sum(path: Path, size: int | None = None) -> str:
    """The checksum of a file's first ``size`` bytes (None: of all), 40 hexadecimal digits.

    Raises:
        OSError: when it cannot be read.
    """
    return next(file_sums([(path, path.stat().st_size if size is None else size)]))


def file_sums(files: Sequence[tuple[Path, int]]) -> Iterator[str]:
    """The checksums of files and the numbers of bytes that count, as :func:`file_sum`; several blocks at a time.

    Raises:
        OSError: when one cannot be read.
    """
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    try:
        blocks = [[pool.submit(_block, path, start, size) for start in range(0, size, BLOCK)] for path, size in files]
        for running in blocks:
            yield _joined(each.result() for each in running)
    finally:
        pool.shutdown(cancel_futures=True)  # who has seen a fault does not wait for the other files


def _block(path: Path, start: int, size: int) -> bytes:
    # Unbuffered: one read of the block, without a copy.
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return hashlib.blake2b(file.read(min(BLOCK, size - start)), digest_size=20).digest()


def _joined(digests: Iterable[bytes]) -> str:
    return hashlib.blake2b(b"".join(digests), digest_size=20).hexdigest()


def identity(path: Path) -> list[int]:
    """What a file that was written or replaced has otherwise: size, times of change of content and of state, inode.

    The time of change of state (ctime) cannot be set, so that a file written with its old time of change is noticed.
    """
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def write_signed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whose last key, ``sum``, is the checksum of the text before it.

    Raises:
        OSError: when it cannot be written.
    """
    text = json.dumps(content)
    with replacing(path) as temporary:
        temporary.write_text(_signed(text[:-1]), encoding="utf-8")


def read_signed(path: Path) -> dict[str, Any] | None:
    """The object in a file of :func:`write_signed`; None when there is none, or it was changed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    # Parsed only then: the text is one that write_signed wrote.
    if _signed(text.rpartition(MARK)[0]) != text:
        return None
    content: dict[str, Any] = json.loads(text)
    del content["sum"]
    return content


def _signed(text: str) -> str:
    return f'{text}{MARK}{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}"}}'
