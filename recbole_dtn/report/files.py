"""Files that are written whole or not at all, the temporary files that killed processes left, and JSON."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from recbole_dtn.errors import ADVICE, DataError, UsageError, errno_of, why

if sys.platform != "win32":
    import fcntl

__all__ = [
    "DAMAGED", "WRITING", "check_place", "collect", "guarded", "is_locked", "json_value", "lock", "put_aside",
    "read_json", "replacing", "temporary_file", "why_not_written", "write_bytes", "write_text", "writing",
]  # fmt: skip

WRITING = ".writing-"
"""How the name of a temporary file or folder begins."""
MINUTE = 60.0
DAMAGED = "it is damaged or of another program: take another copy of it, or make it again"
NEARLY_FULL = 1 << 16
"""Free bytes below which a disk counts as full, where a library does not say why it could not write."""


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file as :func:`write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file to a temporary name beside its place, then rename it.

    Args:
        path: the file; missing parent folders are made. content: what it will hold.

    Raises:
        DataError: when the file cannot be written (no permission, a full disk); the old file is kept.
    """
    path = Path(os.path.realpath(path))  # a link stays one, and what it names is written
    with writing(path):
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def put_aside(path: Path) -> None:
    """Rename a file that another would replace, if it is there, to a free name with ``.earlier`` behind it."""
    if path.is_file():
        names = (path.with_name(f"{path.name}.earlier{number or ''}") for number in itertools.count())
        with writing(path):
            path.rename(next(name for name in names if not name.exists()))


def check_place(place: Path, option: str, *, file: bool = False) -> None:
    """Refuse a place that could not be written to at the end, before any long work.

    Args:
        place: of a folder, made later with its parents, or of a ``file``. option: that names it, for the message.

    Raises:
        UsageError: naming the option and what is in the way.

    >>> check_place(Path("setup.py") / "runs", "output_dir=setup.py")
    Traceback (most recent call last):
    ...
    recbole_dtn.errors.UsageError: output_dir=setup.py: cannot be written (setup.py is a file); choose another folder
    """
    kind, at = "file" if file else "folder", place
    try:
        if file and place.is_dir():
            raise UsageError(f"{option}: cannot be written ({place} is a folder); choose another file")
        if file and place.exists() and not place.is_file():  # a device or a pipe
            return
        at = at.parent if file else at
        while not at.exists():
            at = at.parent
        if not at.is_dir():
            raise UsageError(f"{option}: cannot be written ({at} is a file); choose another {kind}")
        # Where the system can, it gets no name. Asking for permissions would miss a disk that is read-only or full.
        with tempfile.TemporaryFile(dir=at):
            pass
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, f"choose another {kind}")
        raise UsageError(f"{option}: cannot be written ({at}: {error.strerror}); {advice}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """``with replacing(path) as temporary``: an empty file beside ``path`` that takes its name when all went well.

    A failure leaves what was there before.

    Raises:
        OSError: where it cannot be written.
    """
    with temporary_file(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """``with temporary_file(path) as temporary``: an empty file beside ``path``, removed at the end unless renamed.

    This process holds a lock on it, which ends with the process: temporary files that killed processes left in the
    folder are removed first (:func:`collect`).

    Raises:
        OSError: where it cannot be written.
    """
    with guarded(path.parent) as alone:
        # Under the folder's lock, no other process is between making a file and locking it.
        collect([path.parent], alone=alone)
        # A name has at most 255 bytes.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{WRITING}{path.name[:50]}-")
        held = lock(handle)
    if not held:  # without locks: some systems cannot rename a file that is open
        os.close(handle)
    temporary = Path(name)
    try:
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        if held:
            os.close(handle)


def collect(folders: Iterable[Path], *, alone: bool = False) -> None:
    """Remove the temporary files of :func:`replacing` that no running process holds.

    Where file locks do not exist nothing is removed.

    Args:
        folders: to look into; one that is not there or cannot be read is left out.
        alone: whether this process has the lock of the folders (:func:`guarded`); if not, files of the last minute
            stay, since their process may be about to lock them.
    """
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                found = [Path(entry) for entry in entries if entry.name.startswith(WRITING) and entry.is_file()]
        except OSError:
            continue
        for file in found:
            try:
                new = not alone and time.time() - file.stat().st_mtime < MINUTE
                if not new and not is_locked(file):
                    file.unlink()
            except OSError:  # removed by its own process, or a folder that is read-only
                continue


@contextmanager
def guarded(folder: Path) -> Iterator[bool]:
    """Hold the lock under which temporary files and folders in ``folder`` are made; false where there are no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder cannot be opened on every system
        yield False
        return
    try:
        yield lock(handle, wait=True)
    finally:
        os.close(handle)


def is_locked(file: Path) -> bool:
    """Whether a process has the lock of a file; true where that cannot be known.

    Raises:
        FileNotFoundError: when it is not there.
    """
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        raise
    except OSError:
        return True
    try:
        return not lock(handle)
    finally:
        os.close(handle)


def lock(handle: int, *, wait: bool = False) -> bool:
    """Whether this process has the lock of an open file now."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


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


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: for a file that cannot be read, is not UTF-8 or is not JSON (NaN and infinity are not), or has a
            number or nesting without bounds; it names the file, and the line where it is known.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read {why(error)}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text (byte {error.start} of the file); {DAMAGED}") from error
    return json_value(text, path)


def json_value(text: str, path: Path, line: int = 1) -> Any:
    """The value that JSON text is.

    Args:
        text: the text. path: where it is from. line: the first line of it there.

    Raises:
        DataError: as :func:`read_json`.
    """
    try:
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\ud" in text.lower():  # half of a pair of surrogates cannot be printed or written
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: text with half of a surrogate pair, which is no character; {DAMAGED}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {line - 1 + error.lineno}: not JSON ({error.msg}); {DAMAGED}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not read: lists and maps are nested too deeply; {DAMAGED}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{path}: not read: {str(error).partition(';')[0]}; {DAMAGED}") from error


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
