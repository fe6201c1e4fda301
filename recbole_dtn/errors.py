"""The errors a user can cause, each with the exit code of the command line (1, 2, 3)."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

__all__ = ["DataError", "RecBoleDTNError", "TooManyRejectedError", "UsageError", "errno_of", "nearest", "why"]


class RecBoleDTNError(Exception):
    """Base of every error whose message is meant for the user; shown without a traceback."""

    exit_code = 1


class UsageError(RecBoleDTNError):
    """A wrong setting, name or command: found before any data is read."""

    exit_code = 2


class DataError(RecBoleDTNError):
    """A file that does not hold what it should; the message names file, line and column where there is one."""

    exit_code = 2


class TooManyRejectedError(RecBoleDTNError):
    """More raw rows were rejected than ``max_rejected`` allows."""

    exit_code = 3


class Preempted(BaseException):
    """SIGTERM has come: whoever catches it saves what there is, and the command ends with ``exit_code``.

    Like KeyboardInterrupt it is no Exception, so that what goes on after a fault does not go on after it.
    """

    exit_code = 75


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """A sentence that names the known names nearest to ``name``.

    >>> nearest("gdnc", ["gdcn", "masknet", "memonet"])
    "did you mean 'gdcn'? (known: gdcn, masknet, memonet)"
    >>> nearest("zzz", ["gdcn", "masknet"])
    'known: gdcn, masknet'
    """
    names = sorted(set(known))
    lowered = {candidate.lower(): candidate for candidate in names}
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.6)]
    listing = f"known: {', '.join(names)}" if names else "none are known"
    if not close:
        return listing
    guesses = " or ".join(repr(guess) for guess in close)
    return f"did you mean {guesses}? ({listing})" if len(names) <= 12 else f"did you mean {guesses}?"


ADVICE = {
    errno.ENOSPC: "free space there, or choose a place on another disk",
    errno.EDQUOT: "free space there, or choose a place on another disk",
    errno.EFBIG: "the system limits the size of a file: raise `ulimit -f`",
    errno.EMFILE: "the system limits the number of open files: raise `ulimit -n`",
    errno.ENFILE: "the system limits the number of open files of all processes: end some",
    errno.EACCES: "look at the owner and the permissions of it and its folders, or choose another place",
    errno.EPERM: "look at the owner and the permissions of it and its folders, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOTDIR: "a file is where a folder is expected",
    errno.EISDIR: "a folder is where a file is expected",
    errno.EIO: "the disk or its connection fails: look at the system's log",
}
"""What to do about an error of the system."""


def errno_of(error: BaseException) -> int | None:
    """The system's number of an error; None for one that is not the system's.

    >>> errno_of(OSError(28, "No space left on device")), errno_of(OSError("Broken pipe (os error 32)"))
    (28, 32)
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # Polars and other libraries in Rust.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def why(error: BaseException) -> str:
    """What the system says, in brackets, and what to do; it goes behind "cannot be written".

    >>> why(OSError(27, "File too large"))
    '(File too large): the system limits the size of a file: raise `ulimit -f`'
    >>> why(OSError("parquet: underlying IO error: No space left on device (os error 28)"))
    '(No space left on device): free space there, or choose a place on another disk'
    """
    number = errno_of(error)
    if number is None:
        return f"({' '.join(str(error).split()) or type(error).__name__})"
    advice = ADVICE.get(number)
    return f"({os.strerror(number)})" + (f": {advice}" if advice else "")
