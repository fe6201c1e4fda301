"""Files of ``torch.save`` with tensors and plain values alone: checksummed, faults told, and nothing run."""

from __future__ import annotations

import errno
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from recbole_dtn.errors import DataError, why
from recbole_dtn.record.sealed import damaged, is_sealed, seal

__all__ = ["load_plain", "save_plain"]

SEALED = "sealed"
"""Key of a content whose file has a checksum; earlier versions wrote none."""
PROBED = 1 << 16
"""Bytes that are written to learn why others could not be."""


def save_plain(content: dict[str, Any], path: Path) -> None:
    """``torch.save``, with a checksum at the end of the file.

    Raises:
        OSError: where the system could not write it.
    """
    try:
        torch.save({**content, SEALED: True}, path)
        seal(path)
    except RuntimeError:
        # Of a full disk, torch says that its own format is wrong; the system says it when asked once more.
        with path.open("ab") as file:
            file.write(bytes(PROBED))
            file.flush()
            os.fsync(file.fileno())
        raise


def load_plain(file: Path, *, mapped: bool) -> Any:
    """What ``torch.save`` wrote, if that is tensors and plain values; nothing in the file is run.

    Raises:
        DataError: for a file that cannot be read, does not have its checksum, is cut off or damaged, or holds code.
    """
    sealed = is_sealed(file)
    if not sealed and _has_fault(file):
        raise damaged(file)
    content = _load(file, mapped=mapped)
    if isinstance(content, dict) and content.get(SEALED) and not sealed:
        raise damaged(file)
    return content


def _has_fault(file: Path) -> bool:
    """Whether a part of an archive does not have the CRC-32 that torch writes and does not check."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is not None
    except OSError as error:
        raise DataError(f"{file}: cannot be read {why(error)}") from error
    except Exception:  # cut off, or no archive: torch's reader says which
        return False


def _load(file: Path, *, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file that is no checkpoint: it is refused
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        # torch asks for places outside of a file that is cut off.
        if error.errno != errno.EINVAL:
            raise DataError(f"{file}: cannot be read {why(error)}") from error
        raise DataError(f"{file} is cut off: take another copy of it, or train again") from error
    except pickle.UnpicklingError as error:  # its text tells how to run the file's code
        raise DataError(
            f"{file} is not a checkpoint, or holds other objects than tensors and plain values, which could run any "
            "code: it was not opened; take the file that the run wrote"
        ) from error
    except Exception as error:  # torch raises many kinds for a file that is not its own
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"{file} is not a checkpoint that torch can read ({said or type(error).__name__}): it is cut off, damaged "
            "or of another program; take another copy of it"
        ) from error
