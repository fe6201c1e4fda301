"""Arrays that are mapped from files, and files that become shorter while they are.

Reading a mapped page that its file no longer has ends a process by SIGBUS, and the end of a last page that is cut reads
as zeros. Readers therefore ask for the sizes of the files while they read (:class:`MappedFiles`). For a file that is
cut in between, a handler of SIGBUS says which, and ends the process.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from recbole_dtn.errors import DataError, errno_of, why

__all__ = ["MappedFiles", "load_array", "map_of"]

Array = npt.NDArray[Any]

_PATHS: WeakKeyDictionary[mmap.mmap, Path] = WeakKeyDictionary()
"""The file of each map that is in use. A signal handler is the process's, and so is what it looks at."""


def load_array(path: Path) -> Array:
    """A memory-mapped ``.npy`` file as a plain array (an empty one cannot be mapped).

    Raises:
        DataError: when the file is not as it was when its checksum was taken.
    """
    try:
        # A file of 128 bytes is a header alone. A plain array is sliced many times faster than a memmap.
        array = np.load(path, mmap_mode="r", allow_pickle=False) if path.stat().st_size > 128 else np.load(path)
    except (OSError, ValueError, EOFError) as error:
        if errno_of(error) in (errno.EMFILE, errno.ENFILE):
            raise DataError(f"{path}: cannot be read {why(error)}") from error
        raise DataError(f"{path}: changed while it was opened ({error}); run the same command again") from error
    found: Array = np.asarray(array).view(np.ndarray)
    owner = map_of(found)
    if owner is not None:
        _PATHS[owner] = path
        _watch()
    return found


def map_of(array: Array) -> mmap.mmap | None:
    """The map that an array is a part of; None where it is not in a file."""
    # A view keeps its base; the last one is the map of the whole file.
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    return owner


class MappedFiles:
    """The files that some arrays are mapped from.

    Args:
        arrays: of :func:`load_array`; others have no file.
    """

    def __init__(self, arrays: Iterable[Array]) -> None:
        owners = {id(owner): owner for owner in map(map_of, arrays) if owner is not None}
        # ``size`` asks the system for the size of the file; ``len`` is what was mapped.
        self._sizes = [(owner.size, len(owner), owner) for owner in owners.values()]
        self._next = 0.0

    def check(self) -> None:
        """Check that every file still has all that was mapped.

        Raises:
            DataError: naming one that has become shorter.
        """
        for size, mapped, owner in self._sizes:
            if size() < mapped:
                raise DataError(_shorter(owner))

    def check_often(self) -> None:
        """:meth:`check`, but not before 200 times as long has passed as the last one took: it costs .5 % at most.

        Asking for a size takes .3 to 5 microseconds a file, by system and file system; on a network it may take longer.
        """
        begun = time.perf_counter()
        if begun >= self._next:
            self.check()
            ended = time.perf_counter()
            self._next = ended + 200 * (ended - begun)


def _shorter(owner: mmap.mmap) -> str:
    path = _PATHS.get(owner, "a file of the cache")
    return (
        f"{path}: cut to {owner.size():,} of its {len(owner):,} bytes while it was read, by another program or a "
        "fault of the disk. The same command makes the cache again; a training that has a training checkpoint goes "
        "on with --resume=auto"
    )


# ---- a file that is cut between a check and the read ----------------------------------------------------------------


class _Handler:
    """The handler of SIGBUS of this process, once it is set."""

    kept: Any = None
    before: int = 0


def _watch() -> None:
    """Handle SIGBUS from now on. Handlers of Python's ``signal`` run too late: the faulty read comes again before."""
    if _Handler.kept is not None or not hasattr(signal, "SIGBUS"):
        return
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    try:
        set_handler = ctypes.CDLL(None).signal
    except (OSError, AttributeError):
        return
    set_handler.restype, set_handler.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]

    def on_fault(number: int) -> None:
        # Called in the thread that read, at the read: no lock of the interpreter or of malloc is half taken there.
        cut = [owner for owner in list(_PATHS) if owner.size() < len(owner)]
        if not cut:  # a fault of another kind: it comes again, and ends the process as before
            set_handler(number, _Handler.before)
            return
        os.write(2, f"\nerror: {_shorter(cut[0])}\n".encode())
        os._exit(DataError.exit_code)

    _Handler.kept = kind(on_fault)  # kept alive, since the system holds its address alone
    _Handler.before = set_handler(signal.SIGBUS, ctypes.cast(_Handler.kept, ctypes.c_void_p)) or 0
