"""What a run prints, on the terminal and into its ``log.txt``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from recbole_dtn.config.metrics import error_name, is_error
from recbole_dtn.preprocess.prepare import PreparedData
from recbole_dtn.record.record import RunRecord
from recbole_dtn.record.training import FILE_NAME as TRAINING
from recbole_dtn.report.console import say
from recbole_dtn.report.files import writing
from recbole_dtn.report.tables import plain_lines, show_table
from recbole_dtn.report.text import NONE, cell, count, decimal, share, shown
from recbole_dtn.schema import FIRST_TOKEN, FieldSpec
from recbole_dtn.training.gates import gate_rows
from recbole_dtn.training.warn import failure_signs, result_warnings

__all__ = ["METRIC_NAMES", "Report", "detail_tables", "metric_rows"]

METRIC_NAMES = {
    "auc": "AUC",
    "logloss": "log loss",
    "ne": "NE",
    "calibration": "calibration",
    "pr_auc": "PR AUC",
    "gauc_equal": "GAUC (equal)",
    "rne": "NE, recalibrated",
    "xauc": "xAUC",
}
REDRAWN = 0.5
"""Seconds between two pictures of the live bar."""
Metrics = Mapping[str, Mapping[str, float | None]]


def metric_rows(metrics: Metrics) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table with a row per task and a column per metric; a dash where one is undefined.

    A standard error stands behind its metric, and is no column.

    >>> metric_rows({"click": {"auc": 0.78541, "auc_se": 0.00446, "ne": None}, "buy": {"auc": None, "auc_se": None}})
    (['task', 'AUC ± s.e.', 'NE'], [['click', '0.7854 ± 0.0045', '–'], ['buy', '–', '–']])
    """
    found = list(dict.fromkeys(key for values in metrics.values() for key in values))
    keys = [key for key in found if not is_error(key)]
    columns = [METRIC_NAMES.get(key, key.upper()) + " ± s.e." * (error_name(key) in found) for key in keys]
    return ["task", *columns], [[task, *(_cell(values, key) for key in keys)] for task, values in metrics.items()]


def detail_tables(details: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of each table among what metrics tell beside their values.

    >>> told = {"click": {"ece": {"reliability": [{"rows": 20.0, "predicted": 0.25, "observed": 0.2}]}}}
    >>> list(detail_tables(told))
    [('click, ece', ['bin', 'rows', 'predicted', 'observed'], [['1', '20', '0.2500', '0.2000']])]
    """
    for task, metrics in details.items():
        for name, told in metrics.items():
            bins, domains = told.get("reliability", []), told.get("domains", {})
            first = "bin" if bins else "domain"
            lines = {str(number): line for number, line in enumerate(bins, 1)} | domains
            if lines:
                columns = list(next(iter(lines.values())))
                cells = [[key, *(_detail(name, line[name]) for name in columns)] for key, line in lines.items()]
                yield f"{task}, {name}", [first, *columns], cells


def _detail(name: str, value: float | None) -> str:
    counted = name in ("rows", "positives") and value is not None
    return f"{value:,.10g}" if counted else decimal(value, 4)


def _cell(values: Mapping[str, float | None], key: str) -> str:
    value, error = values.get(key), values.get(error_name(key))
    # Without an error, as for two rows, the value stands alone.
    return decimal(value, 4) if value is None or error is None else f"{decimal(value, 4)} ± {decimal(error, 4)}"


def _kind(spec: FieldSpec) -> str:
    """What a field is, in words; of a binned number, how many bins it has."""
    if spec.kind == "float":
        return f"number in {spec.size - FIRST_TOKEN} bins" if spec.bins else "logarithm" if spec.log1p else "number"
    return "id" if spec.kind == "token" else f"ids, pooled by {spec.pooling}"


class Report:
    """Prints to ``console`` and, once :meth:`log_to` was called, to a log file as plain text.

    Args:
        console: where to print; a quiet console prints nothing.
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
        # Printed before the run's folder existed.
        self._write(self._kept)
        self._kept = ""

    def _write(self, text: str) -> None:
        text = shown(text)
        if self._log is None:
            self._kept += text
        else:
            with writing(self._log), self._log.open("a", encoding="utf-8") as file:
                file.write(text)

    def show(self, text: str) -> None:
        """Print text as it is, and log it."""
        say(self.console, text)
        self._write(f"{text}\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A small table; the first column is text, the others are numbers."""
        self.show(f"\n{title}")
        show_table(self.console, columns, rows, numbers=True)
        self._write("".join(f"{line}\n" for line in plain_lines(columns, rows, numbers=True)))

    # ---- a run's parts ------------------------------------------------------------------------------------------

    def data(self, name: str, prepared: PreparedData, seconds: float) -> None:
        """Rows, fields with their vocabularies, positives per task and split."""
        schema = prepared.schema
        splits = prepared.splits
        total = sum(split.rows for split in splits.values())
        how = "read from the cache" if prepared.cached else "encoded"
        self.show(f"data: {name}, {total:,} rows, {schema.num_fields} fields, {how} in {seconds:.1f} s")
        if prepared.summary.how:
            self.show(f"split: {prepared.summary.how}")
        self.table(
            "fields",
            ["field", "kind", "vocabulary"],
            [
                [
                    spec.name,
                    _kind(spec),
                    NONE if spec.kind == "float" else count(spec.size - 2),
                ]
                for spec in schema.fields
            ],
        )
        rows = [["rows", *(f"{split.rows:,}" for split in splits.values())]]
        for task in schema.tasks:
            cells = []
            for split in splits:
                positives, observed = prepared.summary.positives[split][task.name]
                rate = share(positives / observed if observed else 0.0)
                cells.append(f"{positives:,} ({rate})" if task.kind == "binary" else f"{observed:,} observed")
            after = f", after {', '.join(task.after)}" if task.after else ""
            rows.append([f"{task.name} ({task.condition or task.label}{after})", *cells])
        self.table("positives per task", ["task", *splits], rows)
        self.show("")

    def warnings(self, sentences: Sequence[str]) -> None:
        """A paragraph per warning."""
        for sentence in sentences:
            self.show(f"warning: {sentence}\n")

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
                f"{METRIC_NAMES.get(key, key)} {decimal(values[key], 4)}"
                for key in ("auc", "logloss", "rmse", "mae")
                if key in values
            ] or [
                f"{METRIC_NAMES.get(key, key)} {decimal(value, 4)}"
                for key, value in values.items()
                if not is_error(key)
            ]
            parts.append(f"{task} {' '.join(shown)}")
        if rate is not None:
            parts.append(f"{rate:,.0f} samples/s")
        self.show("  ".join(parts) + ("  best" if best else ""))

    def result(self, title: str, metrics: Metrics) -> None:
        """Final metrics, a row per task."""
        self.table(title, *metric_rows(metrics))

    def gates(self, weights: Mapping[str, Mapping[str, float]]) -> None:
        """Mean gate weights, a row per module and a column per task, under a heading per group that sums to 1."""
        if not weights:
            return
        title, rows = gate_rows(weights)
        self.table(title, ["module", *weights], rows)

    def end(self, record: RunRecord, folder: Path) -> None:
        """How the run ended: its test, its gates, what looks wrong in it, and where it was written."""
        if record.status != "finished":
            best = record.best_epoch
            kept = f"the best checkpoint (epoch {best}) is kept" if best else "there is no checkpoint yet"
            self.show(f"{record.status} at {record.interrupted_at}; {kept}; there is no test result")
            if (folder / TRAINING).is_file():
                self.show(f"--resume={folder} goes on with it")
        if record.test is not None:
            mark = " (selected on the test set)" if record.selected_on_test else ""
            found = {**record.test, **record.factors.get("test", {})}
            self.result(f"test{mark}, best epoch {record.best_epoch} of {record.epochs}", found)
        for later, pairs in record.chain_breaks.items():
            for earlier, (broken, rows) in pairs.items():
                if broken:
                    self.show(f"P({later}) > P({earlier}) in {broken:,} of {rows:,} test rows ({share(broken / rows)})")
        self.gates(record.gate_weights)
        for sign in failure_signs(record):
            self.show(f"note: {sign}")
        for sentence in result_warnings(record) if record.test is not None else []:
            self.show(f"\nwarning: {sentence}")
        self.show(f"\nrun written to {folder}")

    # ---- the live bar -------------------------------------------------------------------------------------------

    def start_bar(self, title: str, steps: int) -> None:
        """Show a bar of ``steps`` steps."""
        if self.progress:
            # Drawn by move_bar alone: rich's own thread would draw ten times a second, holding up the steps.
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                auto_refresh=False,
            )
            self._task = self._bar.add_task(cell(title), total=steps, rate="")
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
