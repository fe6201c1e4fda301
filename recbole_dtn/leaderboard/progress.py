"""What a leaderboard is doing, below its lines: cells done, running and failed, time left, best so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recbole_dtn.config.metrics import higher_is_better
from recbole_dtn.leaderboard.cells import Cell
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.text import cell, decimal

__all__ = ["BoardProgress"]


class BoardProgress:
    """A context manager that shows the state of a leaderboard on a terminal, and nothing elsewhere.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self.running: dict[int, tuple[Cell, float]] = {}
        self.total = self.done = self.failed = 0
        self.work = self.worked = self.timed = 0
        """Most epochs of the cells that are to end, of those that have ended, and of those that ran here."""
        self.seconds = 0.0
        self.best: dict[str, tuple[float, str]] = {}
        self.began = time.perf_counter()
        self.console = console
        self.live: Live | None = None

    def __enter__(self) -> BoardProgress:
        if self.console.is_terminal:  # one that is started again would erase what was printed since
            self.live = Live(console=self.console, get_renderable=self.renderable, refresh_per_second=2, transient=True)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def expect(self, epochs: Sequence[int]) -> None:
        """So many cells are still to end, trials too: the most epochs of each."""
        self.total = self.done + self.failed + len(epochs)
        self.work = self.worked + sum(epochs)

    def start(self, cell: Cell) -> None:
        """A cell has started."""
        self.running[id(cell)] = cell, time.perf_counter()

    def wait(self, cell: Cell) -> None:
        """A cell has stopped without an end, and waits."""
        self.running.pop(id(cell), None)

    def end(self, cell: Cell, record: RunRecord | None) -> None:
        """A cell is filled, or has failed (None)."""
        _, started = self.running.pop(id(cell), (None, None))
        self.worked += cell.settings.epochs
        if started is not None:
            self.timed += cell.settings.epochs
            self.seconds += time.perf_counter() - started
        self.done += record is not None
        self.failed += record is None
        if record is not None and record.valid_value is not None:
            metric = str(record.settings.get("valid_metric", ""))
            sign = 1 if higher_is_better(metric, [task.name for task in record.tasks]) else -1
            known = self.best.get(cell.shown_dataset)
            if known is None or sign * (record.valid_value - known[0]) > 0:
                self.best[cell.shown_dataset] = record.valid_value, f"{cell.title}, {metric} of validation"

    @property
    def left(self) -> float | None:
        """Seconds until the end, if each epoch takes as long as those that ran; None before the first cell has ended.

        A trial has fewer epochs than the runs after it.
        """
        if not self.timed or not self.running:
            return None
        return self.seconds / self.timed * (self.work - self.worked) / len(self.running)

    def renderable(self) -> Group:
        """The state as lines of a terminal."""
        ended, total = self.done + self.failed, self.total
        text = f"{self.done} done, {len(self.running)} running, {self.failed} failed of {total}"
        head = Table.grid(padding=(0, 2))
        left = "" if self.left is None else f"about {self.left / 60:.0f} min left"
        head.add_row(ProgressBar(total=total, completed=ended, width=20), Text(text), Text(left))
        now = time.perf_counter()
        lines = [Text(f"  running  {cell(of.title)}  {now - since:.0f} s") for of, since in self.running.values()]
        best = [
            Text(cell(f"  best     {dataset}: {decimal(value, 4)}  {title}"))
            for dataset, (value, title) in self.best.items()
        ]
        return Group(head, *lines, *best)
