"""Run the cells of a leaderboard one after another, skip those that are recorded, and write the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.leaderboard.cells import Cell, plan_cells, resolve_cell
from recbole_dtn.leaderboard.records import Recorded, read_finished
from recbole_dtn.leaderboard.render import print_board, write_board
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.plugins import changed_plugins
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import say
from recbole_dtn.report.faults import plugin_fault
from recbole_dtn.report.text import decimal

__all__ = ["present_fingerprint", "run_board"]

RunCell = Callable[[list[str]], RunRecord]
Fingerprint = Callable[[Settings], str | None]


def run_board(
    models: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int] | None,
    overrides: Sequence[str],
    output: Path,
    console: Console,
    *,
    split_seeds: Sequence[int] | None = None,
    board: str | None = None,
    floors: Sequence[str] = (),
    run_cell: RunCell | None = None,
    fingerprint: Fingerprint | None = None,
    resolve: Callable[[list[str]], tuple[Settings, str]] = resolve_cell,
) -> Path:
    """Run a leaderboard and write it.

    Args:
        models: names of models. datasets: names of data sets. seeds, split_seeds, overrides: see
            :func:`~.cells.plan_cells`.
        output: folder of the tables. console: where progress and the table are printed.
        board: name of the two files; the data sets' names by default.
        floors: simple models to compare with; see :func:`~.cells.plan_cells`.
        run_cell: trains and tests one cell from its overrides. fingerprint: the fingerprint of the data that settings
            name as it is now, None when it is not known yet. resolve: settings and digest of a cell's overrides.

    Returns:
        The path of the Markdown table; the CSV is in the same folder.

    Raises:
        UsageError: for wrong settings of any cell, before the first runs.
        RecBoleDTNError: at the end, when cells failed; the others are in the table.
        KeyboardInterrupt: after Ctrl-C; the cells finished by then are in the table.
    """
    cells = plan_cells(models, datasets, seeds, overrides, split_seeds=split_seeds, floors=floors, resolve=resolve)
    recorded = read_finished(Path(cell.settings.output_dir) for cell in cells)
    for message in recorded.unreadable:
        say(console, f"left out: {message}")
    session = _Session(cells, recorded, console, run_cell or _fit_cell, fingerprint or present_fingerprint)
    try:
        session.run()
    finally:
        path = _publish(session.records, output, board or "+".join(datasets), console)
    if session.failures:
        raise RecBoleDTNError(f"{len(session.failures)} of {len(cells)} cells failed: {'; '.join(session.failures)}")
    return path


class _Session:
    """One pass over the cells of a leaderboard."""

    def __init__(
        self, cells: list[Cell], recorded: Recorded, console: Console, run_cell: RunCell, fingerprint: Fingerprint
    ) -> None:
        self.cells = cells
        self.recorded = recorded
        self.console = console
        self.run_cell = run_cell
        self.fingerprint = fingerprint
        self.records: list[RunRecord] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Fill every cell; a failure is reported and the next cell goes on."""
        for position, cell in enumerate(self.cells, start=1):
            say(self.console, f"[{position}/{len(self.cells)}] {cell.title} ... ", end="")
            if not self._reuse(cell):
                self._train(cell)

    def _reuse(self, cell: Cell) -> bool:
        """Take the cell from its record, if that was made from the data and by the plug-ins as they are now."""
        # Looked up first: the fingerprint reads the data set's files.
        on_any_data = self.recorded.newest(cell.key, None)
        if on_any_data is None:
            return False
        present = self.fingerprint(cell.settings)
        found = self.recorded.newest(cell.key, present)
        if found is None:
            folder, record = on_any_data
            say(
                self.console,
                f"the data changed since {folder} (fingerprint {record.data_fingerprint[:12]}, now "
                f"{(present or '')[:12]}), run again ... ",
                end="",
            )
            return False
        folder, record = found
        changed = changed_plugins(record.plugin_states(), cell.settings)
        if changed:
            say(self.console, f"the plug-in {changed[0]} changed since {folder}, run again ... ", end="")
            return False
        self.records.append(record)
        say(self.console, f"{_result(record)} (recorded in {folder})")
        return True

    def _train(self, cell: Cell) -> None:
        start = time.perf_counter()
        try:
            record = self.run_cell(list(cell.overrides))
        except KeyboardInterrupt:
            say(self.console, "interrupted")
            raise
        except RecBoleDTNError as error:
            self._fail(cell, str(error))
        except Exception as error:  # whatever stops one cell must not stop the cells after it
            self._fail(cell, plugin_fault(error) or f"{type(error).__name__}: {error}")
        else:
            if record.status == "interrupted":
                say(self.console, "interrupted")
                # fit returns an interrupted run instead of raising; the board ends all the same.
                raise KeyboardInterrupt
            self.records.append(record)
            say(self.console, f"{_result(record)} ({time.perf_counter() - start:.0f} s)")

    def _fail(self, cell: Cell, message: str) -> None:
        self.failures.append(cell.title)
        say(self.console, f"failed: {message}")


def _result(record: RunRecord) -> str:
    """The test AUC of each task; of a task without one, its first metric."""
    found = " ".join(
        f"{task} {_short(values['auc'] if 'auc' in values else next(iter(values.values()), None))}"
        for task, values in (record.test or {}).items()
    )
    return f"{found} (selected on the test set)" if record.selected_on_test else found


def _short(value: float | None) -> str:
    """Four digits, without the zero in front.

    >>> _short(0.78514), _short(1.25), _short(None)
    ('.7851', '1.2500', '–')
    """
    text = decimal(value, 4)
    return text.removeprefix("0") if text.startswith("0.") else text


def _publish(records: Sequence[RunRecord], output: Path, board: str, console: Console) -> Path:
    rows = summarise(records)
    if not rows:
        return output / f"{board}.md"
    path = write_board(rows, output, board)
    say(console, "")
    print_board(rows, console)
    say(console, f"leaderboard written to {path} and {path.with_suffix('.csv').name}")
    return path


def _fit_cell(overrides: list[str]) -> RunRecord:
    from recbole_dtn.training.fit import fit_argv

    return fit_argv(overrides, quiet=True).record


def present_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the data set's files as they are now; None where there are none to compare with."""
    from recbole_dtn.data.cache import fingerprint
    from recbole_dtn.preprocess.prepare import open_sources

    try:
        return fingerprint(settings, open_sources(settings))
    except RecBoleDTNError:  # a cell that needs the data will say what is wrong with it
        return None
