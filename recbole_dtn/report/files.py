"""Text files that are written whole or not at all, and JSON that is read with its faults named."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from recbole_dtn.errors import DataError, UsageError, errno_of, why

__all__ = ["check_folder", "read_json", "why_not_written", "write_text", "writing"]

DAMAGED = "it is damaged or of another program: take another copy of it, or make it again"
NEARLY_FULL = 1 << 16
"""Free bytes below which a disk counts as full, where a library does not say why it could not write."""


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file to a temporary name beside its place, then rename it.

    Args:
        path: the file; missing parent folders are made. text: its content.

    Raises:
        DataError: when the file cannot be written (no permission, a full disk); the old file is kept.
    """
    path = Path(os.path.realpath(path))  # a link stays one, and what it names is written
    with writing(path):
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
            path.write_text(text, encoding="utf-8")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def why_not_written(error: BaseException, folder: Path) -> str:
    """:func:`~recbole_dtn.errors.why`, of libraries too that hide what the system said.

    Args:
        error: what was raised. folder: where it was written; it exists.
    """
    if errno_of(error) is None and shutil.disk_usage(folder).free < NEARLY_FULL:
        error = OSError(errno.ENOSPC, "")
    return why(error)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """``with writing(path):`` an error of the system in it is told with the path and what to do.

    Raises:
        DataError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written {why(error)}") from error


def check_folder(option: str, path: Path) -> None:
    """Refuse a folder that cannot be made or written to, before anything is done.

    Raises:
        UsageError: naming the option.
    """
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise UsageError(f"--{option}={path}: {there} is a file; expected a folder, or the name of a new one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--{option}={path}: {there} cannot be written to; look at its owner and permissions, or "
                         "choose another place")  # fmt: skip


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: for a file that cannot be read, is not UTF-8 or is not JSON (NaN and infinity are not), or has a
            number or nesting without bounds; it names the file, and the line where it is known.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\ud" in text.lower():  # half of a pair of surrogates cannot be printed or written
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except OSError as error:
        raise DataError(f"{path}: cannot be read {why(error)}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text (byte {error.start} of the file); {DAMAGED}") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: text with half of a surrogate pair, which is no character; {DAMAGED}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}); {DAMAGED}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not read: lists and maps are nested too deeply; {DAMAGED}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{path}: not read: {str(error).partition(';')[0]}; {DAMAGED}") from error


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
