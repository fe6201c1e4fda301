"""Stamps of the raw files that a data set was made from: a cheap way to notice that they have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbole_dtn.preprocess.raw_files import RawFile

__all__ = ["changed", "stamps"]

END_BYTES = 1 << 20


def stamps(raws: Iterable[RawFile], folder: Path) -> list[dict[str, Any]]:
    """Name under ``folder``, size, and SHA-256 of the first and last MiB of each file on disk; sorted by name.

    The time of change is left out: copies of a file are the same file.
    """
    return [_stamp(path, folder) for path in sorted({raw.path for raw in raws})]


def changed(recorded: Iterable[Any], folder: Path) -> list[str]:
    """Names of files that are in ``folder`` and are others than when they were recorded.

    Args:
        recorded: what :func:`stamps` gave. folder: of the raw files; what is no longer there does not count.
    """
    found = []
    for stamp in recorded:
        name = stamp.get("file") if isinstance(stamp, dict) else None
        try:
            if isinstance(name, str) and (folder / name).is_file() and _stamp(folder / name, folder) != stamp:
                found.append(name)
        except OSError:  # a file that cannot be read now does not count as changed
            continue
    return found


def _stamp(path: Path, folder: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(file.read(END_BYTES))
        # Of a file under 2 MiB, no byte is read twice.
        file.seek(max(size - END_BYTES, file.tell()))
        digest.update(file.read(END_BYTES))
    return {"file": path.relative_to(folder).as_posix(), "size": size, "digest": digest.hexdigest()}
