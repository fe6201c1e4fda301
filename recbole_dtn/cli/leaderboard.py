"""``leaderboard [run|render|serve|diff|add]``: models x data sets x splits x seeds, and their results."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import split_words
from recbole_dtn.cli.leaderboard_options import ADD, COMMANDS, DIFF, FLOORS, HELP, OUTPUT, RENDER, RUN, SERVE
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.plugins import check_named
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.report.console import make_console, say

if TYPE_CHECKING:
    from recbole_dtn.leaderboard.board import BoardFile, Entry
    from recbole_dtn.leaderboard.cells import Cell
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
    others = {"render": _render, "serve": _serve, "diff": _diff, "add": _add}
    return others.get(words[0] if words else "", _run)(words)


@dataclass(frozen=True)
class _Plan:
    """Which cells a leaderboard has, as :func:`~recbole_dtn.leaderboard.cells.plan_cells` takes them."""

    models: list[Entry]
    datasets: list[str]
    seeds: list[int] | None
    overrides: list[str]
    settings: tuple[str, ...]
    split_seeds: list[int] | None
    floors: list[str]
    match: MatchWanted | None = None
    tune: TuneWanted | None = None

    def cells(self, chosen: BoardPlan | None = None) -> list[Cell]:
        """The cells, their settings checked; ``chosen``: with the settings that were chosen for the rows."""
        from recbole_dtn.leaderboard.cells import plan_board

        return plan_board(
            self.models, self.datasets, self.seeds, self.overrides, settings=self.settings,
            split_seeds=self.split_seeds, floors=self.floors,
            chosen=chosen.words if chosen is not None else lambda dataset, name: (),
        )  # fmt: skip


def _plan(given: argparse.Namespace, file: Path | None) -> _Plan:
    """The plan of a leaderboard's file and of options; its plug-ins are loaded."""
    from recbole_dtn.leaderboard.board import Entry, listed, read_board, setting_words

    board = read_board(file) if file else None
    models = [Entry.of(name) for name in split_words(given.models or "")] or (board.entries if board else [])
    datasets = split_words(given.datasets or "") or (board.datasets if board else [])
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
        _match(given, board),
        _tune(given, board),
    )


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
    plan = _plan(given, file)
    if given.dry_run:
        from recbole_dtn.leaderboard.outlook import show_outlook

        show_outlook(plan.cells(), plan.match, plan.tune, make_console())
        return 0
    from recbole_dtn.leaderboard.run import run_board

    run_board(
        plan.models,
        plan.datasets,
        plan.seeds,
        plan.overrides,
        Path(given.output),
        make_console(),
        settings=plan.settings,
        split_seeds=plan.split_seeds,
        board=file.stem if file else None,
        floors=plan.floors,
        workers=given.workers,
        match=plan.match,
        tune=plan.tune,
    )
    return 0


def _render(words: list[str]) -> int:
    """Write the tables and the page from records."""
    given = RENDER.parse(words, most_words=len(words))
    file = _board_file(given.words)
    from recbole_dtn.leaderboard.forms import FORMS, parse_forms, write_forms

    forms = parse_forms(split_words(given.format)) if given.format is not None else FORMS
    found = _finder(given, file)()
    console = make_console()
    for message in found.unreadable:
        say(console, f"left out: {message}")
    if found.missing:
        titles = "; ".join(cell.title for cell in found.missing[:SHOWN_MISSING])
        more = len(found.missing) - SHOWN_MISSING
        say(console, f"no record of {len(found.missing)} cells: {titles}" + (f"; and {more} more" if more > 0 else ""))
    if not found.records:
        where = given.records or "output_dir"
        raise UsageError(f"leaderboard render: no finished run below {where}; `leaderboard run` makes them")
    paths = write_forms(
        found.records, found.names, Path(given.output), given.name or found.name, forms, plan=found.plan
    )
    say(console, f"{len(found.records)} runs: {', '.join(map(str, paths))}")
    return 0


def _serve(words: list[str]) -> int:
    """Serve the page until Ctrl-C."""
    given = SERVE.parse(words, most_words=len(words))
    file = _board_file(given.words)
    if not 0 <= given.port < 2**16:
        raise UsageError(f"--port: expected 0 to {2**16 - 1}, found {given.port}")
    from recbole_dtn.leaderboard.serve import BoardServer

    find = _finder(given, file)
    name = given.name or find().name
    with BoardServer(find, name, given.port) as server:
        say(make_console(), f"{name}: {server.address} (Ctrl-C ends)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _finder(given: argparse.Namespace, file: Path | None) -> Callable[[], Remade]:
    """Finds the records of a leaderboard's cells, or all below ``--records``; a second call reads what is new."""
    from recbole_dtn.leaderboard.records import Recorded
    from recbole_dtn.leaderboard.remake import of_cells, of_folder

    folder = Path(given.records) if given.records else None
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--records: no folder {folder}; expected one that holds run folders, such as runs")
    if file or given.models or given.datasets:
        plan = _plan(given, file)
        name, known = file.stem if file else "+".join(plan.datasets), Recorded()
        places = [Path(getattr(given, "output", None) or OUTPUT), *([folder] if folder else [])]
        made: list[tuple[BoardPlan | None, list[Cell]]] = []

        def find() -> Remade:
            chosen = _chosen(plan, places, name)
            if not made or made[-1][0] != chosen:  # while a leaderboard runs, trials change what is chosen
                made[:] = [(chosen, plan.cells(chosen))]
            return of_cells(made[-1][1], folder, name, known, chosen)

        return find
    if folder is None:
        raise UsageError("leaderboard render: expected BOARD.yaml, --records=FOLDER, or both; --help shows how")
    for key in ("seeds", "split_seeds", "folds", "floors"):
        if getattr(given, key) is not None:
            raise UsageError(f"leaderboard render: --{key} needs the file of a leaderboard, or --models")
    if given.settings:
        raise UsageError(f"leaderboard render: {given.settings[0]} needs the file of a leaderboard, or --models")
    load_plugins(split_words(given.plugins or ""))
    known = Recorded()
    return lambda: of_folder(folder, known)


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
    from recbole_dtn.report.files import write_text
    from recbole_dtn.report.tables import show_table

    console = make_console()
    boards = []
    for word in given.words:
        file = Path(word) if word.endswith((".yaml", ".yml")) else None
        found = _finder(RENDER.parse([] if file else [f"--records={word}"]), file)()
        if not found.records:
            raise UsageError(f"leaderboard diff: no finished run of {word}; `leaderboard run` makes them")
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
    from recbole_dtn.report.files import write_text

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
