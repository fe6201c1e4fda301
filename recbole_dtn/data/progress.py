"""Progress reporting for long-running data steps.

A step reports to a :data:`Meter`. :func:`progress_meter` draws one bar per stage on a terminal, and prints a line per
minute elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recbole_dtn.report.text import cell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

__all__ = ["Meter", "progress_meter", "silent"]

Meter = Callable[[str, int, int], None]
"""``meter(stage, done, total)``: the stage in words, and how much of its total is done (bytes or rows)."""


def silent(stage: str, done: int, total: int) -> None:
    """A meter that shows nothing."""


SECONDS_BETWEEN_LINES = 60.0


@contextmanager
def progress_meter(console: Console, *, show: bool = True) -> Iterator[Meter]:
    """``with progress_meter(console) as meter``: shows what is reported to ``meter``.

    Args:
        console: where. show: whether to show anything (the setting ``progress``).
    """
    if not show or console.quiet:
        yield silent
    elif console.is_terminal:
        yield from _bars(console)
    else:
        yield _Lines(console)


def _bars(console: Console) -> Iterator[Meter]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def meter(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(cell(stage), total=max(total, 1))
            bars.update(tasks[stage], completed=done, total=max(total, 1), visible=done < total)

        yield meter


class _Lines:
    """A line of text where a stage goes on for long."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        from recbole_dtn.report.console import say

        # Nothing is printed for a stage's end: short stages stay silent.
        if total and done < total and now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            say(self.console, f"{stage}: {done / total:.0%}")
