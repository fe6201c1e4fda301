"""Files of ``torch.save`` with tensors and plain values alone: written and read with faults told, and nothing run."""

from __future__ import annotations

import errno
import pickle
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from recbole_dtn.errors import DataError, why

__all__ = ["load_plain", "save_plain"]


class _Noting:
    """A binary file that notes why it could not be written: torch tells of its own file's format instead."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_plain(content: dict[str, Any], path: Path) -> None:
    """``torch.save``.

    Raises:
        OSError: where the system could not write it.
    """
    with path.open("wb") as file:
        noting = _Noting(file)
        try:
            torch.save(content, noting)  # type: ignore[arg-type]
        except RuntimeError:
            if noting.error is None:
                raise
            raise noting.error from None


def load_plain(file: Path, *, mapped: bool) -> Any:
    """What ``torch.save`` wrote, if that is tensors and plain values; nothing in the file is run.

    Raises:
        DataError: for a file that cannot be read, is cut off or damaged, or holds code.
    """
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
