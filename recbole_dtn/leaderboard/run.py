"""Run the cells of a leaderboard, skip those that are recorded, and write the table."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from filelock import Timeout
from rich.console import Console

from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import Preempted, RecBoleDTNError
from recbole_dtn.leaderboard.board import Entry
from recbole_dtn.leaderboard.cells import Cell, Resolve, plan_board, plan_cells, resolve_cell
from recbole_dtn.leaderboard.choose import Chooser, candidates_of, refuse_trial_seeds, schema_of
from recbole_dtn.leaderboard.fairness import with_plan
from recbole_dtn.leaderboard.forms import write_forms
from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted, plan_file, write_plan
from recbole_dtn.leaderboard.progress import BoardProgress
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.render import print_board
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.leaderboard.workers import Outcome, Workers
from recbole_dtn.plugins import changed_plugins
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import say
from recbole_dtn.report.faults import plugin_fault
from recbole_dtn.report.files import write_text
from recbole_dtn.report.tables import csv_text
from recbole_dtn.report.text import decimal
from recbole_dtn.training.signals import Signals

__all__ = ["fit_cell", "present_fingerprint", "run_board", "run_trials", "sessions"]

RunCell = Callable[[list[str]], RunRecord]
Fingerprint = Callable[[Settings], str | None]
LOOK_AGAIN = 1.0
"""Seconds between two looks at cells that another leaderboard is running."""


def run_board(
    models: Sequence[str | Entry],
    datasets: Sequence[str],
    seeds: Sequence[int] | None,
    overrides: Sequence[str],
    output: Path,
    console: Console,
    *,
    settings: Sequence[str] = (),
    split_seeds: Sequence[int] | None = None,
    board: str | None = None,
    floors: Sequence[str] = (),
    workers: int = 1,
    run_cell: RunCell | None = None,
    fingerprint: Fingerprint | None = None,
    match: MatchWanted | None = None,
    tune: TuneWanted | None = None,
    resolve: Resolve = resolve_cell,
) -> Path:
    """Run a leaderboard and write it.

    Several may run over one folder of runs at a time: each cell is locked while it runs, and is run once.

    Args:
        models: rows, each the name of a model or an :class:`~.board.Entry`. datasets: names of data sets.
        seeds, split_seeds, overrides, settings: see :func:`~.cells.plan_cells`.
        output: folder of the tables. console: where progress and the table are printed.
        board: name of the files; the data sets' names by default.
        floors: simple models to compare with; see :func:`~.cells.plan_cells`.
        workers: cells that run at the same time, each in a process of one thread; 1: in this process.
        run_cell: trains and tests one cell from its overrides; with several workers a function of a module.
        fingerprint: the fingerprint of the data that settings name as it is now, None when it is not known yet.
        match, tune: how the rows' widths and settings are chosen before they run; None: they have their own.
        resolve: settings and digest of a cell's overrides.

    Returns:
        The path of the Markdown table; the other forms are in the same folder.

    Raises:
        UsageError: for wrong settings of any cell, before the first runs.
        RecBoleDTNError: at the end, when cells failed; the others are in the table, and ``<board>.failures.csv`` has
            the reasons.
        KeyboardInterrupt, Preempted: after Ctrl-C or SIGTERM; the cells finished by then are in the table, and those
            that were running go on where they were when the leaderboard is run again.
    """
    cells = plan_cells(
        models, datasets, seeds, overrides, settings=settings, split_seeds=split_seeds, floors=floors, resolve=resolve
    )
    name = board or "+".join(datasets)
    session_of = sessions(cells, console, run_cell or fit_cell, fingerprint or present_fingerprint, workers)
    plan = None
    if match is None and tune is None:
        plan_file(output, name).unlink(missing_ok=True)  # one of an earlier pass
    else:
        chooser = Chooser(
            candidates_of(cells), match, tune, resolve=resolve, fingerprint=fingerprint or present_fingerprint,
            schema=schema_of, console=console,
        )  # fmt: skip
        if tune is not None:
            refuse_trial_seeds([cell.key.seed for cell in cells], tune)
            with Signals():
                run_trials(chooser, session_of, lambda found: write_plan(found, output, name))
            chooser.say_best()
        plan = chooser.chosen()
        write_plan(plan, output, name)
        cells = plan_board(
            models, datasets, seeds, overrides, settings=settings, split_seeds=split_seeds, floors=floors,
            resolve=resolve, chosen=plan.words,
        )  # fmt: skip
    session = session_of(cells)
    with Signals() as signals:
        try:
            session.run()
        except Preempted:
            raise Preempted("the cells that are finished are in the table; the same command goes on") from None
        finally:
            with signals.deferred():
                names = {cell.key.settings_digest: cell.name for cell in cells}
                path = _publish(session, names, output, name, console, plan)
    if session.failures:
        titles = "; ".join(cell.title for cell, _ in session.failures)
        raise RecBoleDTNError(f"{len(session.failures)} of {len(cells)} cells failed: {titles}")
    return path


def sessions(
    cells: Sequence[Cell], console: Console, run_cell: RunCell, fingerprint: Fingerprint, workers: int
) -> Callable[[Sequence[Cell]], _Session]:
    """Makes passes over cells, which share the records below the folders of ``cells``; unreadable ones are told."""
    recorded = Recorded()
    for folder in dict.fromkeys(cell.folder for cell in cells):
        recorded.read(folder)
    for message in recorded.unreadable:
        say(console, f"left out: {message}")
    return lambda of: _Session(list(of), recorded, console, run_cell, fingerprint, workers)


def run_trials(
    chooser: Chooser, session_of: Callable[[Sequence[Cell]], _Session], keep: Callable[[BoardPlan], object]
) -> None:
    """Run the trials of all rows.

    Raises:
        KeyboardInterrupt, Preempted: after Ctrl-C or SIGTERM; the same command goes on.
    """

    def fill(cells: Sequence[Cell]) -> tuple[dict[int, RunRecord], dict[int, str]]:
        session = session_of(cells)
        session.run()
        return session.found, session.failed

    try:
        chooser.run_trials(fill, keep)
    except Preempted:
        raise Preempted("the trials that have ended are kept; the same command goes on") from None


class _Session:
    """One pass over the cells of a leaderboard."""

    def __init__(
        self,
        cells: list[Cell],
        recorded: Recorded,
        console: Console,
        run_cell: RunCell,
        fingerprint: Fingerprint,
        workers: int,
    ) -> None:
        self.cells = cells
        self.workers = workers
        self.recorded = recorded
        self.console = console
        self.run_cell = run_cell
        self.fingerprint = fingerprint
        self.found: dict[int, RunRecord] = {}
        self.failed: dict[int, str] = {}
        self.locks = [cell.lock() for cell in cells]
        self.started: dict[int, float] = {}
        self.elsewhere: set[int] = set()

    @property
    def records(self) -> list[RunRecord]:
        """Of the cells that are filled, in the order of the cells."""
        return [self.found[position] for position in sorted(self.found)]

    @property
    def failures(self) -> list[tuple[Cell, str]]:
        """The cells that failed, with the reason."""
        return [(self.cells[position], self.failed[position]) for position in sorted(self.failed)]

    def run(self) -> None:
        """Fill every cell; a failure is reported and the others go on."""
        waiting = deque(range(len(self.cells)))
        with (
            BoardProgress(self.console, self.cells) as self.progress,
            Workers(self.workers, self.run_cell, _reason) as pool,
        ):
            try:
                while waiting or pool.running:
                    self._start_some(waiting, pool)
                    for outcome in pool.finished(LOOK_AGAIN):
                        self._end(outcome)
                    if waiting and not pool.running and self.elsewhere >= set(waiting):
                        time.sleep(LOOK_AGAIN)
            finally:
                for lock in self.locks:
                    lock.release()

    def _start_some(self, waiting: deque[int], pool: Workers) -> None:
        """Start cells while there is a free process, and take those that are recorded."""
        for _ in range(len(waiting)):
            if not pool.free:
                return
            position = waiting.popleft()
            try:
                self.locks[position].acquire()
            except Timeout:
                if position not in self.elsewhere:
                    self.elsewhere.add(position)
                    self._say(position, "another leaderboard is running it", end="\n")
                waiting.append(position)
                continue
            self.elsewhere.discard(position)
            if self.workers == 1:
                self._say(position, "", end="")
            if self._reuse(position):
                self.locks[position].release()
                continue
            self.started[position] = time.perf_counter()
            overrides = list(self.cells[position].overrides)
            if self.workers == 1:
                self._end(_here(position, self.run_cell, overrides))
            else:
                self.progress.start(position)
                pool.start(position, [*overrides, "--threads=1"])

    def _say(self, position: int, text: str, *, end: str) -> None:
        title = f"[{position + 1}/{len(self.cells)}] {self.cells[position].title} ... "
        say(self.console, title + text, end=end)

    def _tell(self, position: int, text: str, *, end: str = "\n") -> None:
        """The rest of a cell's line, or with several processes the whole of it."""
        if self.workers == 1:
            say(self.console, text, end=end)
        else:
            self._say(position, text, end="\n")

    def _reuse(self, position: int) -> bool:
        """Take the cell from its record, if that was made from the data and by the plug-ins as they are now."""
        cell = self.cells[position]
        # What another leaderboard has finished since the start.
        self.recorded.read(cell.folder)
        # Looked up first: the fingerprint reads the data set's files.
        on_any_data = self.recorded.newest(cell.key, None)
        if on_any_data is None:
            return False
        present = self.fingerprint(cell.settings)
        found = self.recorded.newest(cell.key, present)
        if found is None:
            folder, record = on_any_data
            text = (
                f"the data changed since {folder} (fingerprint {record.data_fingerprint[:12]}, now "
                f"{(present or '')[:12]}), run again ... "
            )
            self._tell(position, text, end="")
            return False
        folder, record = found
        changed = changed_plugins(record.plugin_states(), cell.settings)
        if changed:
            self._tell(position, f"the plug-in {changed[0]} changed since {folder}, run again ... ", end="")
            return False
        self.found[position] = record
        self._tell(position, f"{_result(record)} (recorded in {folder})")
        self.progress.end(position, record)
        return True

    def _end(self, outcome: Outcome) -> None:
        """Take what a cell has come to.

        Raises:
            KeyboardInterrupt: where Ctrl-C ended it. Preempted: where SIGTERM did.
        """
        position, record = outcome.task, outcome.result
        self.locks[position].release()
        if outcome.interrupted or (record is not None and record.status == "interrupted"):
            # fit returns an interrupted run instead of raising; the board ends all the same.
            self._tell(position, "interrupted")
            raise KeyboardInterrupt
        if record is not None and record.status == "preempted":
            self._tell(position, "preempted")
            raise Preempted
        if record is None:
            self.failed[position] = str(outcome.failure)
            self._tell(position, f"failed: {outcome.failure}")
        else:
            self.found[position] = record
            seconds = time.perf_counter() - self.started[position]
            self._tell(position, f"{_result(record)} ({seconds:.0f} s)")
        self.progress.end(position, record)


def _here(position: int, run_cell: RunCell, overrides: list[str]) -> Outcome:
    """Run a cell in this process."""
    try:
        return Outcome(position, run_cell(overrides))
    except KeyboardInterrupt:
        return Outcome(position, interrupted=True)
    except Exception as error:  # whatever stops one cell must not stop the cells after it
        return Outcome(position, failure=_reason(error))


def _reason(error: BaseException) -> str:
    """Why a cell failed, in a sentence."""
    if isinstance(error, RecBoleDTNError):
        return str(error)
    known = plugin_fault(error) if isinstance(error, Exception) else None
    return known or f"{type(error).__name__}: {error}"


def _result(record: RunRecord) -> str:
    """The test AUC of each task; of a task without one, its first metric. Of a trial the value on validation."""
    if record.settings.get("trial") is not None:
        return f"{record.settings.get('valid_metric')} {_short(record.valid_value)} on validation"
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


def _publish(
    session: _Session, names: Mapping[str, str], output: Path, board: str, console: Console, plan: BoardPlan | None
) -> Path:
    rows = with_plan(summarise(session.records, names), plan)
    write_failures(session.failures, output, board)
    if not rows:
        return output / f"{board}.md"
    path, *others = write_forms(session.records, names, output, board, plan=plan)
    say(console, "")
    print_board(rows, console)
    say(console, f"leaderboard written to {path}, {', '.join(other.name for other in others)}")
    return path


def write_failures(failures: Sequence[tuple[Cell, str]], output: Path, board: str) -> None:
    """Write ``<board>.failures.csv``, a line per cell that failed; without any, one of an earlier pass is removed."""
    path = output / f"{board}.failures.csv"
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = [
        (cell.key.dataset, cell.name, cell.key.model, cell.key.split.title, cell.key.seed, cell.key.settings_digest,
         reason)
        for cell, reason in failures
    ]  # fmt: skip
    write_text(path, csv_text(("dataset", "name", "model", "split", "seed", "settings_digest", "reason"), lines))


def fit_cell(overrides: list[str]) -> RunRecord:
    """Train and test one cell, from where it was if it had been stopped."""
    from recbole_dtn.training.fit import fit_argv

    return fit_argv(overrides, quiet=True, resume="auto").record


def present_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the data set's files as they are now; None where there are none to compare with."""
    from recbole_dtn.data.cache import fingerprint
    from recbole_dtn.preprocess.prepare import open_sources

    try:
        return fingerprint(settings, open_sources(settings))
    except RecBoleDTNError:  # a cell that needs the data will say what is wrong with it
        return None
