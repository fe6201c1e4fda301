"""Temporary folders of files under construction, and removal of folders left by killed processes.

A folder under construction holds a file that its process keeps locked; the system drops the lock with the process,
however it ends. Where file locks do not exist nothing is removed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recbole_dtn.report.files import MINUTE, WRITING, collect, guarded, is_locked, lock

__all__ = ["WRITING", "building", "guarded", "is_building", "locked_folder"]

PREFIX = ".building-"
PREFIXES = (PREFIX, WRITING, ".starting-")
"""Name prefixes of folders under construction; the last is that of earlier versions."""
LOCK = ".lock"


@contextmanager
def building(root: Path) -> Iterator[Path]:
    """Create a folder in a cache's ``root`` and remove it at the end; first remove what killed processes left there.

    Raises:
        OSError: when ``root`` cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    with locked_folder(root, PREFIX) as folder:
        yield folder


@contextmanager
def locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """``with locked_folder(parent, prefix) as folder``: a new folder that this process holds, removed at the end.

    Folders in ``parent`` that any process made so (:data:`PREFIXES`) and that none holds any more are removed first,
    and temporary files too (:func:`~recbole_dtn.report.files.collect`).

    Raises:
        OSError: when ``parent`` cannot be written.
    """
    with guarded(parent) as alone:
        # Under the folder's lock, no other process is between mkdtemp and its own lock.
        collect([parent], alone=alone)
        _remove_dead(parent, alone=alone)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
        lock(handle, wait=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # Closed last: until then the folder counts as held.
        os.close(handle)


def is_building(folder: Path) -> bool:
    """Whether a running process builds a cache entry in this folder (true where file locks do not exist)."""
    return folder.name.startswith(PREFIX) and _is_held(folder)


def _is_held(folder: Path) -> bool:
    try:
        return is_locked(folder / LOCK)
    except FileNotFoundError:  # killed before it had one
        return False


def _remove_dead(parent: Path, *, alone: bool) -> None:
    """Remove folders that no process holds.

    Args:
        parent: of the folders. alone: whether no other process can be between creating a folder and locking it; if one
            can, recent folders stay.
    """
    for folder in parent.iterdir():
        if folder.name.startswith(PREFIXES) and folder.is_dir() and not folder.is_symlink():
            try:
                # Without the lock, a folder of the last minute may be one whose process has not locked it yet.
                may_be_new = not alone and time.time() - folder.stat().st_mtime < MINUTE
            except OSError:  # its own process has just removed it
                continue
            if not may_be_new and not _is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
