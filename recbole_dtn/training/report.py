"""What a run prints, on the terminal and into its ``log.txt``."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from recbole_dtn.preprocess.prepare import PreparedData

__all__ = ["Report", "number"]

METRIC_NAMES = {"auc": "AUC", "logloss": "log loss", "ne": "NE", "calibration": "calibration"}
REDRAWN = 0.5
"""Seconds between two pictures of the live bar."""
Metrics = Mapping[str, Mapping[str, float | None]]


def number(value: float | None, digits: int = 4) -> str:
    """A number with fixed digits, or a dash where it is undefined.

    >>> number(0.78541), number(None)
    ('0.7854', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}"


class Report:
    """Prints to ``console`` and, once :meth:`log_to` was called, to a log file as plain text.

    Args:
        console: where the user looks; a quiet one may drop everything.
        progress: whether live bars are wanted; they appear on a terminal only.
    """

    def __init__(self, console: Console, *, progress: bool = True) -> None:
        self.console = console
        self.progress = progress and console.is_terminal and not console.quiet
        self._log: Path | None = None
        self._kept = ""
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._steps, self._drawn = 0, 0.0

    def log_to(self, path: Path) -> None:
        """Append everything printed, also what was printed before, to ``path``."""
        self._log = path
        self._write(self._kept)
        self._kept = ""

    def _write(self, text: str) -> None:
        if self._log is None:
            self._kept += text
        else:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(text)

    def show(self, what: RenderableType) -> None:
        """Print one thing; text as it is, since rich takes ``[gdcn]`` for markup and ``:train:`` for an emoji."""
        if isinstance(what, str):
            what = Text(what)
        self.console.print(what)
        plain = Console(file=io.StringIO(), width=160, highlight=False, emoji=False)
        plain.print(what)
        assert isinstance(plain.file, io.StringIO)
        self._write(plain.file.getvalue())

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A small table; the first column is text, the others are numbers."""
        self.show(f"\n{title}")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.show(table)

    # ---- a run's parts ------------------------------------------------------------------------------------------

    def data(self, name: str, prepared: PreparedData, seconds: float) -> None:
        """Rows, fields with their vocabularies, positives per task and split."""
        schema = prepared.schema
        splits = prepared.splits
        total = sum(split.rows for split in splits.values())
        how = "read from the cache" if prepared.cached else "encoded"
        self.show(f"data: {name}, {total:,} rows, {schema.num_fields} fields, {how} in {seconds:.1f} s")
        kinds = {"token": "id", "token_seq": "ids, pooled by {}", "float": "number"}
        self.table(
            "fields",
            ["field", "kind", "vocabulary"],
            [
                [
                    spec.name,
                    f"number in {spec.size - 2} bins" if spec.bins else kinds[spec.kind].format(spec.pooling),
                    "–" if spec.kind == "float" else f"{spec.size - 2:,}",
                ]
                for spec in schema.fields
            ],
        )
        rows = [["rows", *(f"{split.rows:,}" for split in splits.values())]]
        for task in schema.tasks:
            cells = []
            for split in splits:
                positives, observed = prepared.summary.positives[split][task.name]
                share = positives / observed if observed else 0.0
                cells.append(f"{positives:,} ({share:.2%})" if task.kind == "binary" else f"{observed:,} observed")
            after = f", after {', '.join(task.after)}" if task.after else ""
            rows.append([f"{task.name} ({task.condition or task.label}{after})", *cells])
        self.table("positives per task", ["task", *splits], rows)
        self.show("")

    def model(self, name: str, parts: Mapping[str, int], details: str = "") -> None:
        """Parameters by part."""
        total = sum(parts.values())
        listing = ", ".join(f"{part} {count:,}" for part, count in parts.items() if count)
        self.show(f"model: {name}, {total:,} parameters ({listing}){details}")

    def epoch(
        self, epoch: int, epochs: int, *, loss: float, metrics: Metrics | None, rate: float | None, best: bool
    ) -> None:
        """One line per epoch."""
        parts = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}", f"loss {loss:.4f}"]
        for task, values in (metrics or {}).items():
            shown = [
                f"{METRIC_NAMES.get(key, key)} {number(values[key])}"
                for key in ("auc", "logloss", "rmse", "mae")
                if key in values
            ]
            parts.append(f"{task} {' '.join(shown)}")
        if rate is not None:
            parts.append(f"{rate:,.0f} samples/s")
        self.show("  ".join(parts) + ("  best" if best else ""))

    def result(self, title: str, metrics: Metrics) -> None:
        """Final metrics, a row per task."""
        keys = list(dict.fromkeys(key for values in metrics.values() for key in values))
        self.table(
            title,
            ["task", *(METRIC_NAMES.get(key, key.upper()) for key in keys)],
            [[task, *(number(values.get(key)) for key in keys)] for task, values in metrics.items()],
        )

    def gates(self, weights: Mapping[str, Mapping[str, float]]) -> None:
        """Mean gate weights, a row per module and a column per task."""
        if not weights:
            return
        names = list(dict.fromkeys(name for columns in weights.values() for name in columns))
        self.table(
            "mean gate weights over the test rows",
            ["module", *weights],
            [[name, *(number(columns.get(name), 3) for columns in weights.values())] for name in names],
        )

    # ---- the live bar -------------------------------------------------------------------------------------------

    def start_bar(self, title: str, steps: int) -> None:
        """Show a bar of ``steps`` steps."""
        if self.progress:
            # Drawn by move_bar alone: rich's own thread would draw ten times a second, holding up the steps.
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                auto_refresh=False,
            )
            self._task = self._bar.add_task(title, total=steps, rate="")
            self._bar.start()
            self._steps, self._drawn = 0, 0.0

    def move_bar(self, rate: float | None) -> None:
        """One step further; drawn at most every ``REDRAWN`` seconds."""
        self._steps += 1
        now = time.perf_counter()
        if self._bar is not None and now - self._drawn >= REDRAWN:
            shown = "" if rate is None else f"{rate:,.0f} samples/s"
            self._bar.update(self._task, completed=self._steps, rate=shown, refresh=True)
            self._drawn = now

    def stop_bar(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
