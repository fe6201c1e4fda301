"""The bars of long work in the data room: a bar a stage on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from recbole_dtn.cli.console import say

if TYPE_CHECKING:
    from recbole_dtn.data.progress import Meter

__all__ = ["progress_meter"]

SECONDS_BETWEEN_LINES = 60.0


@contextmanager
def progress_meter(console: Console, *, show: bool = True) -> Iterator[Meter]:
    """``with progress_meter(console) as meter``: what the data room reports to ``meter`` is shown.

    Args:
        console: where. show: whether to show anything (the setting ``progress``).
    """
    if not show or console.quiet:
        yield lambda stage, done, total: None
    elif console.is_terminal:
        yield from _bars(console)
    else:
        yield _Lines(console)


def _bars(console: Console) -> Iterator[Meter]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def meter(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=max(total, 1))
            bars.update(tasks[stage], completed=done, total=max(total, 1), visible=done < total)

        yield meter


class _Lines:
    """A line of text where a stage goes on for long."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if total and done < total and now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            say(self.console, f"{stage}: {done / total:.0%}")
