"""Folders in which something is built, and the removal of those whose process was killed.

A folder under construction holds a file that its process keeps locked; the system drops the lock with the process,
however it ends. Where file locks do not exist nothing is removed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["WRITING", "building", "guarded", "is_building"]

PREFIX = ".building-"
WRITING = ".writing-"
LOCK = "lock"


@contextmanager
def building(root: Path) -> Iterator[Path]:
    """A new folder in ``root`` that goes away at the end; what killed processes left there goes away first.

    Raises:
        OSError: when ``root`` cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    with guarded(root) as alone:
        if alone:
            _remove_dead(root)
        folder = Path(tempfile.mkdtemp(dir=root, prefix=PREFIX))
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
        _locked(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def guarded(root: Path) -> Iterator[bool]:
    """For a moment the only process to begin or to clean up in ``root``; false where that cannot be told."""
    try:
        handle = os.open(root, os.O_RDONLY)
    except OSError:  # a folder cannot be opened on every system
        yield False
        return
    try:
        yield _locked(handle, wait=True)
    finally:
        os.close(handle)


def is_building(folder: Path) -> bool:
    """Whether a process that lives builds in this folder (true where that cannot be told)."""
    if not folder.name.startswith(PREFIX):
        return False
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:  # killed before it had one
        return False
    except OSError:
        return True
    try:
        return not _locked(handle)
    finally:
        os.close(handle)


def _remove_dead(root: Path) -> None:
    """While ``root`` is guarded, nobody is between making a folder and locking it."""
    for folder in root.glob(f"{PREFIX}*"):
        if not is_building(folder):
            shutil.rmtree(folder, ignore_errors=True)
    for path in root.glob(f"{WRITING}*"):
        path.unlink(missing_ok=True)


def _locked(handle: int, *, wait: bool = False) -> bool:
    """Whether this process has the lock of an open file now."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
