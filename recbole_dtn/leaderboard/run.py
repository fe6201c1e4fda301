"""Run the cells of a leaderboard, skip those that are recorded, and write the table."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from filelock import Timeout
from rich.console import Console

from recbole_dtn.errors import DataError, Preempted, RecBoleDTNError
from recbole_dtn.leaderboard.archive import archive_file
from recbole_dtn.leaderboard.board import Entry
from recbole_dtn.leaderboard.cell_run import (
    Fingerprint,
    RunCell,
    fit_cell,
    fit_cell_beside,
    present_fingerprint,
    reason,
)
from recbole_dtn.leaderboard.cells import Cell, Resolve, plan_cells, resolve_cell
from recbole_dtn.leaderboard.choose import Chooser, candidates_of, refuse_trial_seeds, schema_of
from recbole_dtn.leaderboard.datasets import DataEntry, board_name, data_entries, write_planted
from recbole_dtn.leaderboard.design import NO_DESIGN, Design
from recbole_dtn.leaderboard.executors import Executor, RemoteExecutor
from recbole_dtn.leaderboard.fairness import board_rows
from recbole_dtn.leaderboard.forms import write_forms
from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted, find_plan, plan_file, write_plan
from recbole_dtn.leaderboard.progress import BoardProgress
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.render import print_board
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.leaderboard.stored import Stored, compute_statistics
from recbole_dtn.leaderboard.workers import Outcome, Workers
from recbole_dtn.plugins import changed_plugins
from recbole_dtn.record.constant import worse_than_constant
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import say
from recbole_dtn.report.files import check_place, put_aside, write_text
from recbole_dtn.report.tables import csv_text
from recbole_dtn.report.text import decimal
from recbole_dtn.training.signals import Signals
from recbole_dtn.training.warn import refuse_untrusted

__all__ = ["fit_cell", "present_fingerprint", "run_board", "run_trials", "sessions"]

LOOK_AGAIN = 1.0
"""Seconds between two looks at cells that another leaderboard is running."""


def run_board(
    models: Sequence[str | Entry],
    datasets: Sequence[str | DataEntry],
    seeds: Sequence[int] | None,
    overrides: Sequence[str],
    output: Path,
    console: Console,
    *,
    settings: Sequence[str] = (),
    split_seeds: Sequence[int] | None = None,
    board: str | None = None,
    floors: Sequence[str] = (),
    design: Design = NO_DESIGN,
    workers: int = 1,
    executor: RemoteExecutor | None = None,
    run_cell: RunCell | None = None,
    fingerprint: Fingerprint | None = None,
    match: MatchWanted | None = None,
    tune: TuneWanted | None = None,
    resolve: Resolve = resolve_cell,
) -> Path:
    """Run a leaderboard and write it.

    Several may run over one folder of runs at a time: each cell is locked while it runs, and is run once.

    Args:
        models: rows, each the name of a model or an :class:`~.board.Entry`. datasets: names of data sets,
            or entries; planted ones are written where they are missing.
        seeds, split_seeds, overrides, settings: see :func:`~.cells.plan_cells`.
        output: folder of the tables. console: where progress and the table are printed.
        board: name of the files; the data sets' names by default.
        floors: simple models to compare with; see :func:`~.cells.plan_cells`.
        design: which rows are compared.
        workers: cells that run at the same time, each in a process of one thread; 1: in this process.
        executor: runs the cells on other machines instead; a cell whose worker dies is tried again once.
        run_cell: trains and tests one cell from its overrides; with several workers a function of a module.
        fingerprint: the fingerprint of the data that settings name as it is now, None when it is not known yet.
        match, tune: how the rows' widths and settings are chosen before they run; None: they have their own.
        resolve: settings and digest of a cell's overrides.

    Returns:
        The path of the Markdown table; the other forms are in the same folder.

    Raises:
        UsageError: for wrong settings of any cell, before the first runs.
        RecBoleDTNError: at the end, when cells failed; the others are in the table, and ``<board>.failures.csv`` has
            the reasons. Also when results of a cell with ``strict`` are not to be trusted.
        KeyboardInterrupt, Preempted: after Ctrl-C or SIGTERM; the cells finished by then are in the table, and those
            that were running go on where they were when the leaderboard is run again.
    """
    cells = plan_cells(
        models, datasets, seeds, overrides, settings=settings, split_seeds=split_seeds, floors=floors, resolve=resolve
    )
    check_place(output, f"--output={output}")
    data = [entry for given in datasets for entry in data_entries(given)]
    write_planted(data, Path(cells[0].settings.data_path), lambda text: say(console, text))
    for folder, cell in {cell.folder: cell for cell in cells}.items():
        check_place(folder, f"output_dir={cell.settings.output_dir}")
    name = board or board_name(data)
    known_data = fingerprint or present_fingerprint
    session_of = sessions(cells, console, run_cell, known_data, workers, executor, archive_file(output, name))
    plan = None
    if match is None and tune is None:
        put_aside(plan_file(output, name))  # one of an earlier pass
    else:
        chooser = Chooser(
            candidates_of(cells), match, tune, resolve=resolve, fingerprint=known_data, schema=schema_of,
            console=console, known=_known_plan(output, name, console),
        )  # fmt: skip
        if tune is not None:
            refuse_trial_seeds([cell.key.seed for cell in cells], tune)
            with Signals():
                run_trials(chooser, session_of, lambda found: write_plan(found, output, name))
            chooser.say_best()
        plan = chooser.chosen()
        write_plan(plan, output, name)
        cells = plan_cells(
            models, datasets, seeds, overrides, settings=settings, split_seeds=split_seeds, floors=floors,
            chosen=plan.words, resolve=resolve,
        )  # fmt: skip
    session = session_of(cells)
    whole = False
    with Signals() as signals:
        try:
            session.run()
            whole = True
        except Preempted:
            raise Preempted("the cells that are finished are in the table; the same command goes on") from None
        finally:
            with signals.deferred():
                names = {cell.key.settings_digest: cell.name for cell in cells}
                path = _publish(session, names, output, name, console, design, plan, whole=whole)
    if session.failures:
        titles = "; ".join(cell.title for cell, _ in session.failures)
        raise RecBoleDTNError(f"{len(session.failures)} of {len(cells)} cells failed: {titles}")
    refuse_untrusted(session.strict_runs)
    return path


def _known_plan(output: Path, board: str, console: Console) -> BoardPlan | None:
    """The plan of an earlier pass; one that cannot be read is told, and written anew."""
    try:
        return find_plan([output], board)
    except DataError as error:
        say(console, f"left out: {error}")
        return None


def sessions(
    cells: Sequence[Cell],
    console: Console,
    run_cell: RunCell | None,
    fingerprint: Fingerprint,
    workers: int,
    executor: RemoteExecutor | None = None,
    archive: Path | None = None,
) -> Callable[[Sequence[Cell]], _Session]:
    """Makes passes over cells, which share the records below the folders of ``cells`` and in ``archive``.

    Unreadable ones are told.
    """
    recorded = Recorded()
    for folder in dict.fromkeys(cell.folder for cell in cells):
        recorded.read(folder)
    if archive is not None:
        recorded.read_archive(archive)
    for message in recorded.unreadable:
        say(console, f"left out: {message}")
    run = run_cell or (fit_cell if workers == 1 else fit_cell_beside)
    return lambda of: _Session(list(of), recorded, console, run, fingerprint, workers, executor)


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
        executor: RemoteExecutor | None = None,
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
        self.waiting = deque(range(len(cells)))
        self.died: set[int] = set()
        self.executor = executor

    @property
    def here(self) -> bool:
        """Whether cells run in this process, one after another."""
        return self.workers == 1 and self.executor is None

    @property
    def records(self) -> list[RunRecord]:
        """Of the cells that are filled, in the order of the cells."""
        return [self.found[position] for position in sorted(self.found)]

    @property
    def strict_runs(self) -> list[tuple[str, RunRecord]]:
        """Title and record of the cells whose settings are ``strict``."""
        return [(self.cells[p].title, self.found[p]) for p in sorted(self.found) if self.cells[p].settings.strict]

    @property
    def failures(self) -> list[tuple[Cell, str]]:
        """The cells that failed, with the reason."""
        return [(self.cells[position], self.failed[position]) for position in sorted(self.failed)]

    def run(self) -> None:
        """Fill every cell; a failure is reported and the others go on."""
        executor: Executor = self.executor or Workers(self.workers, self.run_cell, reason)
        waiting = self.waiting
        with BoardProgress(self.console, self.cells) as self.progress, executor as pool:
            try:
                while waiting or pool.running:
                    self._start_some(pool)
                    for outcome in pool.finished(LOOK_AGAIN):
                        self._end(outcome)
                    if waiting and not pool.running and self.elsewhere >= set(waiting):
                        time.sleep(LOOK_AGAIN)
            finally:
                for lock in self.locks:
                    lock.release()

    def _start_some(self, pool: Executor) -> None:
        """Start cells while there is a free process, and take those that are recorded."""
        for _ in range(len(self.waiting)):
            if not pool.free:
                return
            position = self.waiting.popleft()
            try:
                self.locks[position].acquire()
            except Timeout:
                self._wait_for(position)
                continue
            self.elsewhere.discard(position)
            if self.here:
                self._say(position, "", end="")
            if self._reuse(position):
                self.locks[position].release()
                continue
            self.started[position] = time.perf_counter()
            overrides = list(self.cells[position].overrides)
            if self.here:
                self._end(_here(position, self.run_cell, overrides))
            else:
                self.progress.start(position)
                if self.executor is not None:  # the job takes the lock, and keeps it if this process ends
                    self.locks[position].release()
                pool.start(position, [*overrides, "--threads=1"])

    def _wait_for(self, position: int) -> None:
        """Look again later at a cell that another leaderboard runs."""
        if position not in self.elsewhere:
            self.elsewhere.add(position)
            self._say(position, "another leaderboard is running it", end="\n")
        self.waiting.append(position)

    def _say(self, position: int, text: str, *, end: str) -> None:
        title = f"[{position + 1}/{len(self.cells)}] {self.cells[position].title} ... "
        say(self.console, title + text, end=end)

    def _tell(self, position: int, text: str, *, end: str = "\n") -> None:
        """The rest of a cell's line, or with several processes the whole of it."""
        if self.here:
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
        outcome = outcome if self.executor is None else self._of_job(outcome)
        position, record = outcome.task, outcome.result
        self.locks[position].release()
        if outcome.elsewhere:
            self.progress.wait(position)
            self._wait_for(position)
            return
        if outcome.died and position not in self.died:
            self.died.add(position)
            self._tell(position, f"{outcome.failure}; it is run once more")
            self.progress.wait(position)
            self.waiting.append(position)
            return
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

    def _of_job(self, outcome: Outcome) -> Outcome:
        """The outcome of a job: its scheduler may end it, and its record must be where this process sees it."""
        position, record = outcome.task, outcome.result
        if outcome.interrupted or (record is not None and record.status != "finished"):
            return Outcome(position, failure="its job was told to end", died=True)
        if record is None:
            return outcome
        cell = self.cells[position]
        self.recorded.read(cell.folder)
        if any(found.run_id == record.run_id for _, found in self.recorded.runs.get(cell.key, [])):
            return outcome
        text = (
            f"its run {record.run_id} is not below {cell.folder}: output_dir must be on a disk that all machines share"
        )
        return Outcome(position, failure=text)


def _here(position: int, run_cell: RunCell, overrides: list[str]) -> Outcome:
    """Run a cell in this process."""
    try:
        return Outcome(position, run_cell(overrides))
    except KeyboardInterrupt:
        return Outcome(position, interrupted=True)
    except Exception as error:  # whatever stops one cell must not stop the cells after it
        return Outcome(position, failure=reason(error))


def _result(record: RunRecord) -> str:
    """The test AUC of each task; of a task without one, its first metric. Of a trial the value on validation."""
    if record.settings.get("trial") is not None:
        return f"{record.settings.get('valid_metric')} {_short(record.valid_value)} on validation"
    found = " ".join(
        f"{task} {_short(values['auc'] if 'auc' in values else next(iter(values.values()), None))}"
        for task, values in (record.test or {}).items()
    )
    worse = list(dict.fromkeys(each.task for each in worse_than_constant(record)))
    found += f" (log loss of {', '.join(worse)} above that of a constant)" if worse else ""
    return f"{found} (selected on the test set)" if record.selected_on_test else found


def _short(value: float | None) -> str:
    """Four digits, without the zero in front.

    >>> _short(0.78514), _short(1.25), _short(None)
    ('.7851', '1.2500', '–')
    """
    text = decimal(value, 4)
    return text.removeprefix("0") if text.startswith("0.") else text


def _publish(
    session: _Session,
    names: Mapping[str, str],
    output: Path,
    board: str,
    console: Console,
    design: Design,
    plan: BoardPlan | None,
    *,
    whole: bool,
) -> Path:
    """Write and print the tables. ``whole``: no cell is left to run, so that the statistics are worth their time."""
    write_failures(session.failures, output, board)
    stored = Stored.read(board, output)
    rows = summarise(session.records, names, design)
    if not rows:
        return output / f"{board}.md"
    if whole:
        for folder in dict.fromkeys(cell.folder for cell in session.cells):
            session.recorded.read(folder)
        folders = session.recorded.folders
        stored = compute_statistics(
            rows, session.records, stored, lambda run: folders.get((run.dataset, run.model, run.run_id)),
            output / f"{board}.statistics.json",
        )  # fmt: skip
    path, *others = write_forms(session.records, names, output, board, design=design, stored=stored, plan=plan)
    say(console, "")
    print_board(board_rows(session.records, names, design, stored, plan), console, stored)
    say(console, f"leaderboard written to {path}, {', '.join(other.name for other in others)}")
    return path


def write_failures(failures: Sequence[tuple[Cell, str]], output: Path, board: str) -> None:
    """Write ``<board>.failures.csv``, a line per cell that failed; without any, one of an earlier pass is removed."""
    path = output / f"{board}.failures.csv"
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = [
        (cell.shown_dataset, cell.name, cell.key.model, cell.key.split.title, cell.key.seed, cell.key.settings_digest,
         reason)
        for cell, reason in failures
    ]  # fmt: skip
    write_text(path, csv_text(("dataset", "name", "model", "split", "seed", "settings_digest", "reason"), lines))
