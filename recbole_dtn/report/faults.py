"""An unexpected error in one line: whose code raised it, and where."""

from __future__ import annotations

import sys
import traceback
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

__all__ = ["PLUGIN_MODULE", "describe_fault", "plugin_fault"]

PLUGIN_MODULE = "recbole_dtn_plugin_"
"""How the name of a module begins that was loaded from a ``--plugins`` file."""
GROUPS = "recbole_dtn."
"""How the entry-point groups begin under which installed packages register their methods."""


def plugin_fault(error: BaseException) -> str | None:
    """The file and line of the plug-in whose code was running when an error was raised; None where there was none."""
    plugin, own = _frames(error)
    inside = f" (in {own}, which it called)" if own else ""
    return f"plug-in {plugin} raised {_said(error)}{inside}" if plugin else None


def describe_fault(error: BaseException) -> str:
    """What went wrong, for an error that no check foresaw.

    A fault of a plug-in is reported by :func:`plugin_fault`. Any other is a bug of this package; but where plug-in
    files are loaded they are named, since what a plug-in returned may be at fault.
    """
    told = plugin_fault(error)
    if told is not None:
        return told
    where = _frames(error)[1] or _last(error)
    files = [str(getattr(module, "__file__", "")) for name, module in sys.modules.items() if _is_file(name)]
    if files:
        return (
            f"{_said(error)} ({where}): either a bug, or what a plug-in ({', '.join(files)}) returned is not what is "
            "expected; the checks in recbole_dtn.testing tell which"
        )
    return f"this is a bug: {_said(error)} ({where})"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"


def _frames(error: BaseException) -> tuple[str, str]:
    """The innermost place in a plug-in, and the innermost one in this package that is not further out than it."""
    plugin, own = "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if _is_plugin(module):
            plugin, own = f"{frame.f_code.co_filename}:{line}", ""
        elif module.partition(".")[0] == "recbole_dtn":
            own = f"{Path(frame.f_code.co_filename).name}:{line}"
    return plugin, own


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
