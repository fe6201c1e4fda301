"""The checksum of a checkpoint, at the end of its file: the comment of the zip archive that torch writes."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from recbole_dtn.data.sums import file_sum
from recbole_dtn.errors import DataError, why

__all__ = ["damaged", "is_sealed", "seal"]

MARK = b"recbole_dtn "
SEAL_BYTES = len(MARK) + 40
END = b"PK\x05\x06"
END_BYTES = 22
"""Of the last record of an archive without a comment; its last two bytes are the length of the comment."""


def seal(path: Path) -> None:
    """Append the checksum of an archive to it. It stays an archive that torch, and any other reader, can read.

    Raises:
        OSError: when it cannot be written. ValueError: for a file that is no archive, or has a comment already.
    """
    with path.open("r+b") as file:
        file.seek(-END_BYTES, os.SEEK_END)
        end = file.read()
        if not end.startswith(END) or end[-2:] != b"\0\0":
            raise ValueError(f"{path} is no zip archive without a comment")
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", SEAL_BYTES))
    found = file_sum(path)
    with path.open("ab") as file:
        file.write(MARK + found.encode())


def is_sealed(path: Path) -> bool:
    """Whether a file has a checksum, and it is right; false where it has none.

    Raises:
        DataError: when its content does not have its checksum, or it cannot be read.
    """
    try:
        size = path.stat().st_size - SEAL_BYTES
        if size < 0:
            return False
        with path.open("rb") as file:
            file.seek(size)
            mark = file.read()
        if not mark.startswith(MARK):
            return False
        right = mark == MARK + file_sum(path, size).encode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read {why(error)}") from error
    if not right:
        raise damaged(path)
    return True


def damaged(path: Path) -> DataError:
    """The error for a checkpoint whose checksum is wrong, or missing where it should be."""
    return DataError(
        f"{path} does not have its checksum: a fault of the disk or of memory, an incomplete copy, or another program "
        "changed it. Put back a copy of it, or train again; a training.ckpt can be deleted, and `test "
        f"--run={path.parent}` then tests the best epoch"
    )
