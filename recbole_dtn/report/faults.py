"""An unexpected error in one line: whose code raised it, and where."""

from __future__ import annotations

import sys
import traceback
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

__all__ = ["PLUGIN_MODULE", "describe_fault"]

PLUGIN_MODULE = "recbole_dtn_plugin_"
"""How the name of a module begins that was loaded from a ``--plugins`` file."""
GROUPS = "recbole_dtn."
"""How the entry-point groups begin under which installed packages register their methods."""


def describe_fault(error: BaseException) -> str:
    """What went wrong, for an error that no check foresaw.

    A plug-in whose code was running when the error was raised is named with its file and line. Without one the error is
    a bug of this package; but where plug-in files are loaded they are named, since what a plug-in returned may be at
    fault.
    """
    message = " ".join(str(error).split()) or "no message"
    said = f"{type(error).__name__}: {message}"
    own, foreign = "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        place = f"{frame.f_code.co_filename}:{line}"
        if _is_plugin(module):
            own, foreign = "", place
        elif module.partition(".")[0] == "recbole_dtn":
            own = f"{Path(frame.f_code.co_filename).name}:{line}"
    if foreign:
        inside = f" (in {own}, which it called)" if own else ""
        return f"plug-in {foreign} raised {said}{inside}"
    where = own or _last(error)
    files = [str(getattr(module, "__file__", "")) for name, module in sys.modules.items() if _is_file(name)]
    if files:
        return (
            f"{said} ({where}): either a bug, or what a plug-in ({', '.join(files)}) returned is not what is expected; "
            "the checks in recbole_dtn.testing tell which"
        )
    return f"this is a bug: {said} ({where})"


def _is_file(module: str) -> bool:
    return module.startswith(PLUGIN_MODULE)


def _is_plugin(module: str) -> bool:
    return _is_file(module) or module.partition(".")[0] in _installed()


@cache
def _installed() -> frozenset[str]:
    """Top-level modules of the installed packages that register methods."""
    known: Any = entry_points()
    points = [point for group in known.groups if group.startswith(GROUPS) for point in known.select(group=group)]
    return frozenset(point.value.partition(":")[0].partition(".")[0] for point in points) - {"recbole_dtn"}


def _last(error: BaseException) -> str:
    """File and line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
