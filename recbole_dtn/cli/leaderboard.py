"""``leaderboard [run|render|speed|serve|diff|add|cell]``: models x data sets x splits x seeds, and their results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from recbole_dtn.cli.arguments import split_words
from recbole_dtn.cli.leaderboard_options import (
    ADD,
    CELL,
    COMMANDS,
    DIFF,
    FLOORS,
    HELP,
    OUTPUT,
    RENDER,
    RUN,
    SERVE,
    SPEED,
)  # fmt: skip
from recbole_dtn.errors import Preempted, UsageError, nearest
from recbole_dtn.plugins import check_named
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.files import check_place, write_text

if TYPE_CHECKING:
    from recbole_dtn.leaderboard.board import BoardFile, Entry
    from recbole_dtn.leaderboard.cells import Cell
    from recbole_dtn.leaderboard.datasets import DataEntry
    from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted
    from recbole_dtn.leaderboard.remake import Remade

__all__ = ["help_text", "run"]

SHOWN_MISSING = 5
"""Most cells without a record that are named."""


def help_text(words: list[str]) -> str:
    """How to call it, or one of its commands.

    Raises:
        UsageError: for another command.
    """
    commands = [word for word in words[:1] if not word.startswith("-")]
    _board_file(commands)
    command = commands[0] if commands and commands[0] in COMMANDS else "run"
    return COMMANDS[command].help_text() if commands else HELP


def _board_file(words: list[str]) -> Path | None:
    """The leaderboard's file among the words of the command."""
    rest = words[1:] if words[:1] and words[0] in COMMANDS else words
    if not rest:
        return None
    if len(rest) > 1 or not rest[0].endswith((".yaml", ".yml")):
        unknown = rest[-1]
        raise UsageError(
            f"leaderboard: unknown word {unknown!r}; {nearest(unknown, COMMANDS)}, or the file of a leaderboard (.yaml)"
        )
    return Path(rest[0])


def run(words: list[str]) -> int:
    """Run the command."""
    others = {"render": _render, "speed": _speed, "serve": _serve, "diff": _diff, "add": _add, "cell": _cell}
    return others.get(words[0] if words else "", _run)(words)


@dataclass(frozen=True)
class _Plan:
    """Which cells a leaderboard has, as :func:`~recbole_dtn.leaderboard.cells.plan_cells` takes them."""

    models: list[Entry]
    datasets: list[DataEntry]
    seeds: list[int] | None
    overrides: list[str]
    settings: tuple[str, ...]
    split_seeds: list[int] | None
    floors: list[str]
    proposed: list[str]
    match: MatchWanted | None = None
    tune: TuneWanted | None = None

    def name_of(self, file: Path | None) -> str:
        """Name of the leaderboard's files: that of its own file, or the data sets'."""
        from recbole_dtn.leaderboard.datasets import board_name

        return file.stem if file else board_name(self.datasets)

    def cells(self, chosen: BoardPlan | None = None) -> list[Cell]:
        """The cells, their settings checked; ``chosen``: with the settings that were chosen for the rows."""
        from recbole_dtn.leaderboard.cells import plan_cells

        return plan_cells(
            self.models, self.datasets, self.seeds, self.overrides, settings=self.settings,
            split_seeds=self.split_seeds, floors=self.floors, chosen=None if chosen is None else chosen.words,
        )  # fmt: skip


def _plan(given: argparse.Namespace, file: Path | None) -> _Plan:
    """The plan of a leaderboard's file and of options; its plug-ins are loaded."""
    from recbole_dtn.leaderboard.board import Entry, listed, read_board, setting_words

    board = read_board(file) if file else None
    models = [Entry.of(name) for name in split_words(given.models or "")] or (board.entries if board else [])
    planned = board.data if board else []
    named = split_words(given.datasets or "")
    datasets = [entry for name in named for entry in _of_board(name, planned)] if named else planned
    for name, values in (("models", models), ("datasets", datasets)):
        if not values:
            raise UsageError(f"--{name} is needed, or a file that has it: leaderboard run BOARD.yaml; --help shows how")
    named, also = split_words(given.plugins or ""), board.plugins if board else []
    load_plugins(named)
    check_named(also, str(file), beside=named, trust=given.trust)
    plugins = [*named, *(path for path in also if path not in named)]
    load_plugins(plugins)
    floors = split_words(FLOORS if given.floors is None else given.floors)
    if given.floors is None and board and board.floors is not None:
        floors = board.floors
    floors = [] if floors == ["none"] else floors
    for name in (*(entry.model for entry in models), *floors):
        MODELS.entry(name)
    proposed = split_words(given.proposed or "") or (board.proposed if board else [])
    for name in proposed:
        if name not in (rows := [*(entry.name for entry in models), *floors]):
            raise UsageError(f"proposed: no row {name!r}; {nearest(name, rows)}")
    folds = given.folds or (board.folds if board else None)
    overrides = [
        *([f"--plugins={','.join(plugins)}"] if plugins else []),
        *(["--trust"] if given.trust else []),
        *given.settings,
        *([f"--folds={folds}"] if folds else []),
    ]
    from recbole_dtn.leaderboard.cells import parse_seeds

    seeds = given.seeds or (listed(board.seeds) if board else None)
    splits = given.split_seeds or (listed(board.split_seeds) if board else None)
    return _Plan(
        models,
        datasets,
        parse_seeds(seeds) if seeds else None,
        overrides,
        setting_words(board.settings) if board else (),
        parse_seeds(splits, "split_seeds") if splits else None,
        floors,
        proposed,
        _match(given, board),
        _tune(given, board),
    )


def _of_board(name: str, planned: list[DataEntry]) -> list[DataEntry]:
    """The data sets of a leaderboard's file under a name of ``--datasets``; else the data set of that name."""
    from recbole_dtn.leaderboard.datasets import data_entries

    return [entry for entry in planned if entry.shown == name] or data_entries(name)


def _match(given: argparse.Namespace, board: BoardFile | None) -> MatchWanted | None:
    """How rows are matched, by options or the file."""
    from recbole_dtn.leaderboard.match import MATCHED
    from recbole_dtn.leaderboard.plan import MatchWanted

    by = given.match or (board.match if board else "none")
    if by not in (*MATCHED, "none"):
        raise UsageError(f"--match: expected {', '.join(MATCHED)} or none; {nearest(by, [*MATCHED, 'none'])}")
    if by == "none":
        return None
    reference = given.reference or (board.reference if board else None)
    if reference is None:
        raise UsageError(f"match: {by}: expected the name of a row under reference (--reference=DTN)")
    tolerance = given.match_tolerance
    if tolerance is not None and tolerance <= 0:
        raise UsageError(f"--match_tolerance: expected a share above 0, found {tolerance:g}")
    return MatchWanted(by=by, reference=reference, tolerance=tolerance or (board.match_tolerance if board else 0.05))


def _tune(given: argparse.Namespace, board: BoardFile | None) -> TuneWanted | None:
    """How rows are tuned, by options or the file."""
    from recbole_dtn.leaderboard.plan import TuneWanted

    wanted = board.tune if board else None
    if given.trials is None:
        return wanted
    if given.trials < 0:
        raise UsageError(f"--trials: expected 0 or more, found {given.trials}")
    if given.trials == 0:
        return None
    return wanted.model_copy(update={"trials": given.trials}) if wanted else TuneWanted(trials=given.trials)


def _run(words: list[str]) -> int:
    """Run the leaderboard."""
    given = RUN.parse(words, most_words=len(words))
    file = _board_file(given.words)
    if given.workers < 1:
        raise UsageError(f"--workers: expected 1 or more, found {given.workers}")
    check_place(Path(given.output), f"--output={given.output}")
    plan = _plan(given, file)
    if given.dry_run:
        return _dry_run(plan)
    if given.collect:
        _write_found(_found_of(plan, None, file, Path(given.output))(), Path(given.output))
        return 0
    if given.print_jobs:
        return _print_jobs(plan, file, Path(given.output))
    from recbole_dtn.leaderboard.executors import make_executor
    from recbole_dtn.leaderboard.run import run_board

    options = _mapping("executor_options", given.executor_options)
    executor = make_executor(given.executor or "local", given.workers, options, Path(given.output))
    run_board(
        plan.models,
        plan.datasets,
        plan.seeds,
        plan.overrides,
        Path(given.output),
        make_console(lasting=True),
        settings=plan.settings,
        split_seeds=plan.split_seeds,
        board=file.stem if file else None,
        floors=plan.floors,
        proposed=plan.proposed,
        workers=given.workers,
        executor=executor,
        match=plan.match,
        tune=plan.tune,
    )
    if given.speed:
        _measure(plan, plan.name_of(file), Path(given.output))
    return 0


def _dry_run(plan: _Plan) -> int:
    """Print what the leaderboard would run; of planted data sets the first planting is written."""
    from recbole_dtn.leaderboard.datasets import write_planted
    from recbole_dtn.leaderboard.outlook import show_outlook

    cells, console = plan.cells(), make_console()
    first = list({entry.shown: entry for entry in reversed(plan.datasets)}.values())
    write_planted(first, Path(cells[0].settings.data_path), lambda text: say(console, text))
    show_outlook(cells, plan.match, plan.tune, console)
    return 0


def _mapping(name: str, text: str | None) -> dict[str, Any]:
    """The map that an option has in YAML; empty without one."""
    import yaml

    try:
        found = yaml.safe_load(text or "{}")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"--{name}: expected a map such as '{{timeout_min: 60}}', found {text!r}")
    return found


def _print_jobs(plan: _Plan, file: Path | None, output: Path) -> int:
    """Print a command per missing cell; of tuned rows those of the next trials first."""
    from recbole_dtn.leaderboard.datasets import write_planted
    from recbole_dtn.leaderboard.jobs import board_jobs
    from recbole_dtn.leaderboard.plan import write_plan

    cells = plan.cells()
    # Standard output has the commands and nothing else.
    write_planted(plan.datasets, Path(cells[0].settings.data_path), lambda text: print(text, file=sys.stderr))
    commands = board_jobs(
        cells, plan.match, plan.tune, plan.cells, lambda found: write_plan(found, output, plan.name_of(file))
    )
    for command in commands:
        print(command)
    return 0


def _cell(words: list[str]) -> int:
    """Run one cell."""
    given = CELL.parse(words[1:])
    for key in ("model", "dataset"):
        if not any(word.startswith(f"--{key}=") for word in given.settings):
            raise UsageError(
                f"leaderboard cell: --{key} is needed; `leaderboard run --print-jobs` writes whole commands"
            )
    from filelock import Timeout

    from recbole_dtn.leaderboard.cell_run import run_locked
    from recbole_dtn.leaderboard.cells import cell_of

    cell = cell_of(given.settings)
    try:
        record = run_locked(cell)
    except Timeout:
        say(make_console(), f"{cell.title}: another process is running it")
        return 0
    say(make_console(), f"{cell.title}: {record.status}, {cell.folder / record.run_id}")
    if record.status == "preempted":
        raise Preempted("the same command goes on")
    if record.status == "interrupted":
        raise KeyboardInterrupt
    return 0


def _speed(words: list[str]) -> int:
    """Measure the rows one at a time, and write the tables again."""
    given = SPEED.parse(words, most_words=len(words))
    file = _board_file(given.words)
    if given.seconds < 1:
        raise UsageError(f"--seconds: expected 1 or more, found {given.seconds}")
    plan = _plan(given, file)
    some = file is not None and (given.models is not None or given.datasets is not None)
    _measure(plan, plan.name_of(file), Path(given.output), given.seconds, tables=not some)
    if some:  # the tables have all rows of the file
        say(make_console(), f"leaderboard render {file} writes them into the tables")
    return 0


def _measure(plan: _Plan, board: str, output: Path, seconds: float = 5.0, *, tables: bool = True) -> None:
    from recbole_dtn.leaderboard.forms import write_forms
    from recbole_dtn.leaderboard.remake import of_cells
    from recbole_dtn.leaderboard.speed import measure_board

    chosen, console = _chosen(plan, [output], board), make_console()
    cells = plan.cells(chosen)
    found = of_cells(cells, None, board)
    runs = {(run.dataset, run.settings_digest): found.folder_of(run) for run in found.records}
    try:
        path = measure_board(
            cells, lambda cell: runs.get((cell.key.dataset, cell.key.settings_digest)), output, board, console,
            seconds=seconds,
        )  # fmt: skip
        say(console, f"speeds written to {path}")
    finally:
        if tables and found.records:
            write_forms(found.records, found.names, output, board, proposed=plan.proposed, plan=chosen)


def _render(words: list[str]) -> int:
    """Write the tables and the page from records."""
    given = RENDER.parse(words, most_words=len(words))
    file = _board_file(given.words)
    from recbole_dtn.leaderboard.forms import FORMS, parse_forms

    forms = parse_forms(split_words(given.format)) if given.format is not None else FORMS
    check_place(Path(given.output), f"--output={given.output}")
    _write_found(_finder(given, file)(), Path(given.output), given.name, forms, given.records)
    return 0


def _write_found(
    found: Remade, output: Path, name: str | None = None, forms: Sequence[str] | None = None, below: str | None = None
) -> None:
    """Write the tables and the page of records, and say which cells have none."""
    from recbole_dtn.leaderboard.forms import FORMS, write_forms
    from recbole_dtn.leaderboard.statistics import summarise
    from recbole_dtn.leaderboard.stored import Stored, compute_statistics

    console = make_console()
    for message in found.unreadable:
        say(console, f"left out: {message}")
    if found.missing:
        titles = "; ".join(cell.title for cell in found.missing[:SHOWN_MISSING])
        more = len(found.missing) - SHOWN_MISSING
        say(console, f"no record of {len(found.missing)} cells: {titles}" + (f"; and {more} more" if more > 0 else ""))
    if not found.records:
        where = below or "output_dir"
        raise UsageError(f"leaderboard render: no finished run below {where}; {_what_else(found.unreadable)}")
    name = name or found.name
    # A file that is not in the folder of the tables may have been kept with the records.
    stored = Stored.read(name, output, Path(below) if below else None)
    rows = summarise(found.records, found.names, found.proposed)
    stored = compute_statistics(rows, found.records, stored, found.folder_of, output / f"{name}.statistics.json")
    paths = write_forms(
        found.records, found.names, output, name, forms or FORMS,
        proposed=found.proposed, stored=stored, plan=found.plan,
    )  # fmt: skip
    say(console, f"{len(found.records)} runs: {', '.join(map(str, paths))}")


def _what_else(unreadable: Sequence[str]) -> str:
    """What to do where no run was found."""
    if not unreadable:
        return "`leaderboard run` makes them"
    more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
    return f"left out: {unreadable[0]}{more}"


def _serve(words: list[str]) -> int:
    """Serve the page until Ctrl-C."""
    given = SERVE.parse(words, most_words=len(words))
    file = _board_file(given.words)
    if not 0 <= given.port < 2**16:
        raise UsageError(f"--port: expected 0 to {2**16 - 1}, found {given.port}")
    from recbole_dtn.leaderboard.serve import BoardServer

    find = _finder(given, file)
    name = given.name or find().name
    with BoardServer(find, name, given.port, output=Path(given.output)) as server:
        say(make_console(), f"{name}: {server.address} (Ctrl-C ends)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _finder(given: argparse.Namespace, file: Path | None) -> Callable[[], Remade]:
    """Finds the records of a leaderboard's cells, or all below ``--records``; a second call reads what is new."""
    from recbole_dtn.leaderboard.records import Recorded
    from recbole_dtn.leaderboard.remake import of_folder

    folder = Path(given.records) if given.records else None
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--records: no folder {folder}; expected one that holds run folders, such as runs")
    if file or given.models or given.datasets:
        return _found_of(_plan(given, file), folder, file, Path(getattr(given, "output", None) or OUTPUT))
    if folder is None:
        raise UsageError("leaderboard render: expected BOARD.yaml, --records=FOLDER, or both; --help shows how")
    for key in ("seeds", "split_seeds", "folds", "floors"):
        if getattr(given, key) is not None:
            raise UsageError(f"leaderboard render: --{key} needs the file of a leaderboard, or --models")
    if given.settings:
        raise UsageError(f"leaderboard render: {given.settings[0]} needs the file of a leaderboard, or --models")
    load_plugins(split_words(given.plugins or ""))
    known, proposed = Recorded(), split_words(given.proposed or "")
    return lambda: replace(of_folder(folder, known), proposed=proposed)


def _found_of(plan: _Plan, folder: Path | None, file: Path | None, output: Path) -> Callable[[], Remade]:
    """Finds the records of a plan's cells below ``folder``, or (None) below ``output_dir``.

    What was chosen for the rows is in ``output``, or kept with the records.
    """
    from recbole_dtn.leaderboard.records import Recorded
    from recbole_dtn.leaderboard.remake import of_cells

    name, known = plan.name_of(file), Recorded()
    places = [output, *([folder] if folder else [])]
    made: list[tuple[BoardPlan | None, list[Cell]]] = []

    def find() -> Remade:
        chosen = _chosen(plan, places, name)
        if not made or made[-1][0] != chosen:  # while a leaderboard runs, trials change what is chosen
            made[:] = [(chosen, plan.cells(chosen))]
        return replace(of_cells(made[-1][1], folder, name, known, chosen), proposed=plan.proposed)

    return find


def _chosen(plan: _Plan, folders: list[Path], name: str) -> BoardPlan | None:
    """What was chosen for the rows of a leaderboard that matches or tunes them.

    Raises:
        UsageError: where it has not been chosen yet, or was chosen otherwise.
    """
    if plan.match is None and plan.tune is None:
        return None
    from recbole_dtn.leaderboard.plan import find_plan, plan_file

    found = find_plan(folders, name)
    if found is None:
        places = " or ".join(str(plan_file(folder, name)) for folder in folders)
        raise UsageError(
            f"{name}: its rows are matched or tuned, and there is no {places}; `leaderboard run` writes it"
        )
    if (found.match, found.tune) != (plan.match, plan.tune):
        raise UsageError(
            f"{name}.plan.json: it was made with other options of match or tune; give the same, or run the leaderboard"
        )
    return found


def _diff(words: list[str]) -> int:
    """Compare two leaderboards."""
    given = DIFF.parse(words[1:], most_words=2)
    if len(given.words) != 2:
        raise UsageError(f"leaderboard diff: expected {DIFF.place}; found {len(given.words)}")
    from recbole_dtn.leaderboard.against import COLUMNS, against, against_markdown
    from recbole_dtn.report.tables import show_table

    console = make_console()
    boards = []
    for word in given.words:
        file = Path(word) if word.endswith((".yaml", ".yml")) else None
        found = _finder(RENDER.parse([] if file else [f"--records={word}"]), file)()
        if not found.records:
            raise UsageError(f"leaderboard diff: no finished run of {word}; {_what_else(found.unreadable)}")
        for message in found.unreadable:
            say(console, f"left out: {message}")
        boards.append(found)
    a, b = boards
    compared = against(a.records, b.records, a.names, b.names)
    show_table(console, COLUMNS, [change.cells for change in compared.changes], numbers=True)
    say(console, "\n".join(["", *compared.notes]))
    if given.output:
        write_text(Path(given.output), against_markdown(compared))
        say(console, f"written to {given.output}")
    return 0


def _add(words: list[str]) -> int:
    """Add a row to a leaderboard's file."""
    given = ADD.parse(words[1:], most_words=1)
    file = _board_file(given.words)
    if file is None or not file.is_file():
        raise UsageError(f"leaderboard add: expected the file of a leaderboard (.yaml), found {file or 'none'}")
    from recbole_dtn.leaderboard.board import appended, entry_of, read_board

    entry = entry_of(given.model, given.name, given.settings)
    text = appended(file.read_text(encoding="utf-8"), "models", entry)
    plugins = split_words(given.plugins or "")
    for path in plugins:
        if path not in read_board(file).plugins:
            text = appended(text, "plugins", path)
    with TemporaryDirectory() as folder:
        trial = Path(folder) / file.name
        trial.write_text(text, encoding="utf-8")
        options = [f"--plugins={','.join(plugins)}"] if plugins else []
        plan = _plan(RUN.parse([*options, *(["--trust"] if given.trust else [])]), trial)
        cells = plan.cells()
    write_text(file, text)
    new = sum(cell.name == plan.models[-1].name for cell in cells)
    say(make_console(), f"{file}: added {entry}, {new} cells; `leaderboard run {file}` runs them")
    return 0
