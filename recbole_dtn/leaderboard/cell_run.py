"""One cell run by itself, in whatever process or machine a scheduler has chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from filelock import Timeout

from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import Preempted, RecBoleDTNError
from recbole_dtn.leaderboard.cells import Cell, cell_of
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.plugins import changed_plugins
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.faults import plugin_fault
from recbole_dtn.report.text import clipped, shown

__all__ = [
    "Answer", "Call", "Fingerprint", "RunCell", "fit_cell", "fit_cell_beside", "present_fingerprint", "reason",
    "recorded_run", "run_call", "run_locked",
]  # fmt: skip

RunCell = Callable[[list[str]], RunRecord]
Fingerprint = Callable[[Settings], str | None]
LONGEST_REASON = 2000
"""Characters of the reason of a failure in the files and on the terminal."""
Answer = tuple[str, Any]
"""``result`` and a record, ``failure`` or ``interrupted`` and a sentence, or ``elsewhere``: another process runs it."""


@dataclass(frozen=True)
class Call:
    """A cell as it is sent to another process.

    Attributes:
        folder: that paths of settings are relative to. words: its settings, as on the command line.
    """

    folder: str
    words: tuple[str, ...]


def run_call(call: Call) -> Answer:
    """Run a cell under its lock, if it is not recorded; what goes wrong is in the answer."""
    try:
        os.chdir(call.folder)
        return "result", run_locked(cell_of(call.words))
    except Timeout:
        return "elsewhere", None
    except (KeyboardInterrupt, Preempted):
        return "interrupted", "interrupted"
    except BaseException as error:
        return "failure", reason(error)


def run_locked(cell: Cell, run_cell: RunCell | None = None) -> RunRecord:
    """The record of a cell: that of a finished run on the data and with the plug-ins as they are now, or a new one.

    Other cells may run on the same machine, so that the times and rates of a new one count as unknown.

    Raises:
        Timeout: when another process runs the cell. Whatever ends the run.
    """
    with cell.lock():
        return recorded_run(cell) or (run_cell or fit_cell_beside)(list(cell.overrides))


def recorded_run(
    cell: Cell, recorded: Recorded | None = None, fingerprint: Fingerprint | None = None
) -> RunRecord | None:
    """The record of a finished run of a cell, on the data and with the plug-ins as they are now; else None.

    ``recorded``: records that were read before, to which those of the cell's folder are added. ``fingerprint``: of the
    data; None: :func:`present_fingerprint`.
    """
    recorded = Recorded() if recorded is None else recorded
    recorded.read(cell.folder)
    if recorded.newest(cell.key, None) is None:  # the fingerprint reads the data set's files
        return None
    found = recorded.newest(cell.key, (fingerprint or present_fingerprint)(cell.settings))
    if found is None or changed_plugins(found[1].plugin_states(), cell.settings):
        return None
    return found[1]


def fit_cell(overrides: Sequence[str], *, beside_others: bool = False) -> RunRecord:
    """Train and test one cell, from where it was if it had been stopped."""
    from recbole_dtn.training.fit import AsCell, fit_argv

    return fit_argv(list(overrides), quiet=True, resume="auto", cell=AsCell(beside_others=beside_others)).record


def fit_cell_beside(overrides: Sequence[str]) -> RunRecord:
    """:func:`fit_cell` while other cells run; in its record rates and times count as unknown."""
    return fit_cell(overrides, beside_others=True)


def present_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the data set's files as they are now; None where there are none to compare with."""
    from recbole_dtn.data.cache import fingerprint
    from recbole_dtn.preprocess.prepare import open_sources

    try:
        return fingerprint(settings, open_sources(settings))
    except RecBoleDTNError:  # a cell that needs the data will say what is wrong with it
        return None


def reason(error: BaseException) -> str:
    """Why a cell failed, in a sentence."""
    try:
        known = plugin_fault(error) if isinstance(error, Exception) else None
        text = str(error) if isinstance(error, RecBoleDTNError) else known or f"{type(error).__name__}: {error}"
    except Exception:  # of its own __str__
        text = type(error).__name__
    return clipped(shown(text), LONGEST_REASON)
