"""The serial pass of a leaderboard: the speed of each row, one at a time, each in a process of its own.

The results are in ``<board>.speed.json``. Rows that were measured on this machine with this version, while no other
process was busy there, are not measured again, so that a pass that was stopped goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.leaderboard.cells import Cell
from recbole_dtn.leaderboard.stored import BUSY, FORMAT, Stored
from recbole_dtn.report.console import say
from recbole_dtn.report.files import write_text
from recbole_dtn.version import __version__

__all__ = ["measure_board", "one_cell_per_row"]

LOOKED_AT = 0.5
"""Seconds for which the machine is looked at before a row is measured."""
DIGITS = 5
Measure = Callable[[list[str], Path | None, float], dict[str, Any]]


def one_cell_per_row(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each row on each data set: speed depends on neither seed nor split."""
    found: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        found.setdefault((cell.shown_dataset, cell.key.settings_digest), cell)
    return list(found.values())


def measure_board(
    cells: Sequence[Cell],
    folders: Callable[[Cell], Path | None],
    output: Path,
    board: str,
    console: Console,
    *,
    seconds: float = 5.0,
    measure: Measure | None = None,
) -> Path:
    """Measure every row of a leaderboard, and write the results after each.

    Args:
        cells: of the leaderboard. folders: of a run of a cell, if there is one. output: folder of the tables.
        board: their name. console: where progress is printed. seconds: of each of three measurements.
        measure: measures one cell; in a new process by default.

    Returns:
        The path of the file.

    Raises:
        RecBoleDTNError: at the end, where a row could not be measured; the others are in the file.
    """
    from recbole_dtn.training.speed import machine

    path = output / f"{board}.speed.json"
    rows = one_cell_per_row(cells)
    place = machine(rows[0].settings) if rows else ""
    known = Stored.read(board, output).speed
    lines = [
        line for line in (known.get("rows", []) if known.get("machine") == place else [])
        if line["code_version"] == __version__
    ]  # fmt: skip
    failed = []
    for number, cell in enumerate(rows, start=1):
        named = {"dataset": cell.shown_dataset, "name": cell.name, "settings_digest": cell.key.settings_digest}
        title = f"[{number}/{len(rows)}] {cell.name} {cell.shown_dataset} ... "
        before = [line for line in lines if all(line[key] == named[key] for key in ("dataset", "settings_digest"))]
        if any((line.get("busy_cores") or 0.0) <= BUSY for line in before):
            say(console, f"{title}measured before")
            continue
        busy = round(psutil.cpu_percent(LOOKED_AT) / 100 * (os.cpu_count() or 1), 2)
        if busy > BUSY:
            say(console, f"warning: other processes use {busy:.1f} cores of this machine; {cell.name} will be too slow")
        say(console, title, end="")
        try:
            found = (measure or _apart)(list(cell.overrides), folders(cell), seconds)
        except Exception as error:  # one row must not stop the others
            failed.append(cell.name)
            say(console, f"failed: {error}")
            continue
        lines = [line for line in lines if line not in before]
        lines.append({**named, "code_version": __version__, "busy_cores": busy, **_rounded(found)})
        text = json.dumps({"format": FORMAT, "machine": place, "rows": lines}, indent=1, allow_nan=False)
        write_text(path, text + "\n")
        say(console, f"p50 {found['latency_p50_ms']:.2f} ms, {found['throughput']:,.0f} rows/s")
    if failed:
        raise RecBoleDTNError(f"{len(failed)} of {len(rows)} rows could not be measured: {', '.join(failed)}")
    return path


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for name, value in found.items()}


def _apart(overrides: list[str], folder: Path | None, seconds: float) -> dict[str, Any]:
    """In a new process, so that the memory is that of this row alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, overrides, folder, seconds).result()


def measured(overrides: list[str], folder: Path | None, seconds: float) -> dict[str, Any]:
    """The speed of one cell as plain values."""
    from recbole_dtn.training.speed import measure

    return asdict(measure(overrides, folder, seconds))
