"""The errors a user can cause, each with the exit code of the command line (1, 2, 3)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["DataError", "RecBoleDTNError", "TooManyRejectedError", "UsageError", "nearest"]


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
