"""Run the cells of a leaderboard, skip those that are recorded, and write the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from recbole_dtn.errors import DataError, Preempted, RecBoleDTNError, UsageError
from recbole_dtn.leaderboard.archive import archive_file
from recbole_dtn.leaderboard.board import Entry
from recbole_dtn.leaderboard.cell_run import Fingerprint, RunCell, present_fingerprint
from recbole_dtn.leaderboard.cells import Cell, Resolve, plan_cells, resolve_cell
from recbole_dtn.leaderboard.choose import Chooser, candidates_of, refuse_trial_seeds, schema_of
from recbole_dtn.leaderboard.datasets import DataEntry, board_name, data_entries, write_planted
from recbole_dtn.leaderboard.design import NO_DESIGN, Design
from recbole_dtn.leaderboard.executors import RemoteExecutor
from recbole_dtn.leaderboard.failures import with_reasons, write_failures
from recbole_dtn.leaderboard.fairness import board_rows, setting_notes
from recbole_dtn.leaderboard.forms import write_forms
from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted, find_plan, plan_file, write_plan
from recbole_dtn.leaderboard.render import print_board
from recbole_dtn.leaderboard.session import Session, Sessions
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.leaderboard.stored import Stored, compute_statistics
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import say
from recbole_dtn.report.files import check_place, put_aside
from recbole_dtn.training.signals import Signals
from recbole_dtn.training.warn import refuse_untrusted

__all__ = ["run_board", "run_trials"]

LONGEST_NAME = 200
"""Bytes of the name of a leaderboard's files, so that there is room for their endings."""
GOES_ON = "the cells that are finished are in the table; the same command goes on"


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
        workers: cells that run at the same time, each in a process of one thread; 1: in one of torch's own number.
        executor: runs the cells on other machines instead; a cell whose worker dies is tried again once.
        run_cell: trains and tests one cell from its overrides; with several workers a function of a module.
        fingerprint: the fingerprint of the data that settings name as it is now, None when it is not known yet.
        match, tune: how the rows' widths and settings are chosen before they run; None: they have their own.
        resolve: settings and digest of a cell's overrides.

    Returns:
        The path of the Markdown table; the other forms are in the same folder.

    Raises:
        UsageError: for wrong settings of any cell or too long a name, before the first runs.
        DataError: for a damaged file beside the tables, before the first cell runs.
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
    for note in setting_notes(cells):
        say(console, note)
    name = board or board_name(data)
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UsageError(
            f"files of the leaderboard: expected a name of at most {LONGEST_NAME} bytes, found {name!r}; it is that of "
            "its file, or of its data sets where it has none"
        )
    Stored.read(name, output)  # damaged files beside the tables would be found after hours, when the tables are made
    known_data = fingerprint or present_fingerprint
    with Sessions(cells, console, run_cell, known_data, workers, executor, archive_file(output, name)) as session_of:
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
                session_of.expect([*chooser.trials_left, *(cell.settings.epochs for cell in cells)])
                with Signals():
                    run_trials(chooser, session_of, lambda found: write_plan(found, output, name))
                chooser.say_best()
            plan = chooser.chosen()
            write_plan(plan, output, name)
            cells = plan_cells(
                models, datasets, seeds, overrides, settings=settings, split_seeds=split_seeds, floors=floors,
                chosen=plan.words, resolve=resolve,
            )  # fmt: skip
        session_of.expect([cell.settings.epochs for cell in cells])  # anew: some trials may have ended elsewhere
        session = session_of(cells)
        session.keep_failures = partial(write_failures, output=output, board=name)
        whole = False
        with Signals() as signals:
            try:
                session.run()
                session_of.close()
                whole = True
            except Preempted:
                raise Preempted(GOES_ON) from None
            except KeyboardInterrupt:
                say(console, GOES_ON)
                raise
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


def run_trials(
    chooser: Chooser, session_of: Callable[[Sequence[Cell]], Session], keep: Callable[[BoardPlan], object]
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


def _publish(
    session: Session,
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
    if not whole:
        session.take_recorded()
    stored = Stored.read(board, output)
    left = [*session.failures, *with_reasons(session.not_run, stored.failures)]
    stored = replace(stored, failures=write_failures(left, output, board))
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
