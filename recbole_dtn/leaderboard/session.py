"""One pass over the cells of a leaderboard: those that are recorded are taken, the others are run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import Timeout
from rich.console import Console

from recbole_dtn.errors import DataError, Preempted
from recbole_dtn.leaderboard.cell_run import Fingerprint, RunCell, fit_cell, fit_cell_beside, reason, recorded_run
from recbole_dtn.leaderboard.cells import Cell
from recbole_dtn.leaderboard.executors import Executor, RemoteExecutor
from recbole_dtn.leaderboard.failures import Notes
from recbole_dtn.leaderboard.progress import BoardProgress
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.workers import Outcome, Workers
from recbole_dtn.plugins import changed_plugins
from recbole_dtn.record.code import code_digest
from recbole_dtn.record.constant import worse_than_constant
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import say
from recbole_dtn.report.text import decimal

__all__ = ["Session", "Sessions"]

OWN_PROCESS = True
"""Whether one worker is a process of its own too, so that a cell that the system kills does not end the leaderboard."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at cells that another leaderboard is running."""


class Sessions:
    """Makes passes over cells that share records, processes, and the state on the terminal; its end is theirs.

    Args:
        cells: below whose folders records are; those that cannot be read are told. console: where progress is printed.
        run_cell: trains and tests one cell; None: :func:`~.cell_run.fit_cell`. fingerprint: of the data as they are.
        workers: cells that run at the same time. executor: runs them elsewhere. archive: file of more records.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        console: Console,
        run_cell: RunCell | None,
        fingerprint: Fingerprint,
        workers: int,
        executor: RemoteExecutor | None = None,
        archive: Path | None = None,
    ) -> None:
        self.console, self.fingerprint, self.workers, self.executor = console, fingerprint, workers, executor
        self.recorded = Recorded()
        for folder in dict.fromkeys(cell.folder for cell in cells):
            self.recorded.read(folder)
        if archive is not None:
            self.recorded.read_archive(archive)
        for message in self.recorded.unreadable:
            say(console, f"left out: {message}")
        self.here = workers == 1 and executor is None and (run_cell is not None or not OWN_PROCESS)
        self.run_cell = run_cell or (fit_cell if workers == 1 else fit_cell_beside)
        self.pool: Executor = executor or Workers(workers, self.run_cell, reason)
        self.progress = BoardProgress(console)
        self.notes = Notes(cells)
        self.expected = False  # whether it was told what is to end in all passes
        self.of_trials = False
        self._open = ExitStack()

    def __enter__(self) -> Sessions:
        self._open.enter_context(self.pool)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._open.close()

    def expect(self, epochs: Sequence[int]) -> None:
        """What is to end in the passes from now on: the most epochs of every cell, trials too."""
        self.expected = True
        self.progress.expect(epochs)

    def __call__(self, cells: Sequence[Cell]) -> Session:
        if not self.expected:
            self.progress.expect([cell.settings.epochs for cell in cells])
        of_trials = bool(cells) and cells[0].settings.trial is not None
        if of_trials != self.of_trials:  # their times differ
            self.progress.timed, self.progress.seconds = 0, 0.0
        self.of_trials = of_trials
        return Session(list(cells), self)


class Session:
    """One pass over the cells of a leaderboard."""

    def __init__(self, cells: list[Cell], shared: Sessions) -> None:
        self.cells, self.shared = cells, shared
        self.recorded, self.progress, self.executor = shared.recorded, shared.progress, shared.executor
        self.here, self.pool = shared.here, shared.pool
        self.found: dict[int, RunRecord] = {}
        self.failed: dict[int, str] = {}
        self.locks = [cell.lock() for cell in cells]
        self.started: dict[int, float] = {}
        self.elsewhere: set[int] = set()
        self.waiting = deque(range(len(cells)))
        self.died: set[int] = set()
        self.keep_failures: Callable[[Sequence[tuple[Cell, str]]], object] = lambda _: None
        """Gets all failures so far whenever a cell fails, for files that are kept up to date."""

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

    @property
    def not_run(self) -> list[Cell]:
        """The cells that neither are filled nor have failed."""
        return [cell for place, cell in enumerate(self.cells) if place not in self.found and place not in self.failed]

    def take_recorded(self) -> None:
        """Take the cells that are recorded and that this pass has not come to."""
        for position, cell in enumerate(self.cells):
            if position not in self.found and position not in self.failed:
                record = recorded_run(cell, self.recorded, self.shared.fingerprint)
                if record is not None:
                    self.found[position] = record

    def run(self) -> None:
        """Fill every cell; a failure is reported and the others go on."""
        waiting, pool = self.waiting, self.pool
        with self.progress:
            try:
                while waiting or pool.running:
                    self._start_some()
                    for outcome in pool.finished(LOOK_AGAIN):
                        self._end(outcome)
                    if waiting and not pool.running and self.elsewhere >= set(waiting):
                        time.sleep(LOOK_AGAIN)
            except BaseException as error:  # what runs may save where it is
                if isinstance(error, KeyboardInterrupt | Preempted) and self.pool.running:
                    say(self.shared.console, "stopping: the cells that are running save where they are")
                self.shared.close()
                raise
            finally:
                for lock in self.locks:
                    lock.release()

    def _start_some(self) -> None:
        """Start cells while there is a free process, and take those that are recorded."""
        for _ in range(len(self.waiting)):
            if not self.pool.free:
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
            if self._reuse(position) or self._failed_elsewhere(position):
                self.locks[position].release()
                continue
            self.started[position] = time.perf_counter()
            overrides = list(self.cells[position].overrides)
            self.progress.start(self.cells[position])
            if self.here:
                self._end(_here(position, self.shared.run_cell, overrides))
            else:
                if self.executor is not None:  # the job takes the lock, and keeps it if this process ends
                    self.locks[position].release()
                alone = self.shared.workers == 1 and self.executor is None
                self.pool.start(position, overrides if alone else [*overrides, "--threads=1"])

    def _wait_for(self, position: int) -> None:
        """Look again later at a cell that another leaderboard runs."""
        if position not in self.elsewhere:
            self.elsewhere.add(position)
            self._say(position, "another leaderboard is running it", end="\n")
        self.waiting.append(position)

    def _say(self, position: int, text: str, *, end: str) -> None:
        title = f"[{position + 1}/{len(self.cells)}] {self.cells[position].title} ... "
        say(self.shared.console, title + text, end=end)

    def _tell(self, position: int, text: str, *, end: str = "\n") -> None:
        """The rest of a cell's line, or with several processes the whole of it."""
        if self.here:
            say(self.shared.console, text, end=end)
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
        present = self.shared.fingerprint(cell.settings)
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
        by_other = record.versions.get("code", code_digest()) != code_digest()
        self._tell(position, f"{_result(record)} (recorded in {folder}{', by other code' if by_other else ''})")
        self.progress.end(cell, record)
        return True

    def _failed_elsewhere(self, position: int) -> bool:
        """Take the failure of a cell that another leaderboard has run since this one started."""
        found = self.shared.notes.read(self.cells[position])
        if found is not None:
            self._fail(position, found, "failed in another leaderboard")
        return found is not None

    def _fail(self, position: int, reason: str, told: str = "failed") -> None:
        self.failed[position] = reason
        self._tell(position, f"{told}: {reason}")
        try:
            self.keep_failures(self.failures)
        except DataError as error:  # such as a full disk; they are written at the end too
            say(self.shared.console, str(error))
        self.progress.end(self.cells[position], None)

    def _end(self, outcome: Outcome) -> None:
        """Take what a cell has come to.

        Raises:
            KeyboardInterrupt: where Ctrl-C ended it in this process. Preempted: where SIGTERM did.
        """
        outcome = outcome if self.here else self._of_process(outcome)
        position, record = outcome.task, outcome.result
        again = outcome.elsewhere or (outcome.died and position not in self.died)
        if record is None and not outcome.interrupted and not again:
            self.shared.notes.write(self.cells[position], str(outcome.failure))
        self.locks[position].release()
        if outcome.elsewhere:
            self.progress.wait(self.cells[position])
            self._wait_for(position)
            return
        if again:
            self.died.add(position)
            self._tell(position, f"{outcome.failure}; it is run once more")
            self.progress.wait(self.cells[position])
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
            self._fail(position, str(outcome.failure))
            return
        self.found[position] = record
        seconds = time.perf_counter() - self.started[position]
        self._tell(position, f"{_result(record)} ({seconds:.0f} s)")
        self.progress.end(self.cells[position], record)

    def _of_process(self, outcome: Outcome) -> Outcome:
        """The outcome of another process: it alone may be told to end, and a job's record must be on this disk."""
        position, record = outcome.task, outcome.result
        if outcome.interrupted or (record is not None and record.status != "finished"):
            what = "process" if self.executor is None else "job"
            return Outcome(position, failure=f"its {what} was told to end", died=True)
        if record is None or self.executor is None:
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
    except (Exception, SystemExit) as error:  # whatever stops one cell must not stop the cells after it
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
