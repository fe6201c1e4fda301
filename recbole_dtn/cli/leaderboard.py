"""``leaderboard [run|render|diff|add]``: models x data sets x splits x seeds, and their results."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import Command, split_words, whole
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.plugins import check_named
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.report.console import make_console, say

if TYPE_CHECKING:
    from recbole_dtn.leaderboard.board import Entry
    from recbole_dtn.leaderboard.remake import Remade

__all__ = ["help_text", "run"]

FLOORS = "Logistic,Boosting"
SHOWN_MISSING = 5
"""Most cells without a record that are named."""
HELP = f"""\
{PROGRAM} leaderboard [run] --models=A,B --datasets=X --seeds=3
{PROGRAM} leaderboard run BOARD.yaml --workers=4
{PROGRAM} leaderboard render BOARD.yaml

commands:
  run     train and test every model on every data set with every split and
          seed, and write the tables and the page of their results; the command
          when none is named
  render  write the tables and the page again, from the records of the runs
  diff    compare two leaderboards row by row, paired by seed or split
  add     add a row to a leaderboard's file

`{PROGRAM} leaderboard run --help` shows its options.
"""

RUN = Command(
    "leaderboard run",
    usage=["--models=DTN,PLE --datasets=ml-100k [settings]", "BOARD.yaml [options] [settings]"],
    after="""
A cell is one run (row, data set, split, seed). Every other --key=value is a setting of all cells (--epochs=1). A cell
that is recorded under output_dir with the same settings, data, split, seed and version is not run again, so a
leaderboard that was stopped goes on with the same command. Several may run over one output_dir: each cell is run once.

BOARD.yaml has the options as keys (models, datasets, seeds, split_seeds, folds, floors, plugins) and settings of all
rows under settings. An entry of models may be a map, a row of its own:

  datasets: [ml-100k]
  models:
    - MMoE
    - {name: one module, model: DTN, interactions: [gdcn]}
  settings: {epochs: 3}

Options and settings of the command line win over the file's.
""",
    settings=True,
)
RENDER = Command(
    "leaderboard render",
    usage=[
        "BOARD.yaml [--records=FOLDER] [--output=FOLDER] [--format=html]",
        "--records=FOLDER [--name=NAME] [--output=FOLDER] [--format=html]",
    ],
    about="""
Writes the tables and the page of a leaderboard again, from the records of its runs and nothing else: no data is read
and nothing is trained. The same records give the same bytes.
""",
    after="""
With a leaderboard's file (or --models and --datasets) the rows are its rows, in its order; its options are those of
`leaderboard run`. Records of earlier versions of this package count too. Without one, every finished run below
--records is in the tables; rows of one model are named after the settings in which they differ.
""",
    settings=True,
)


def _plan_options(command: Command) -> None:
    """The options that say which cells a leaderboard has."""
    command.option("models", "A,B", "models, separated by commas; needed without a file")
    command.option("datasets", "X,Y", "data sets, separated by commas; needed without a file")
    command.option(
        "seeds",
        "N",
        "how many seeds from 2020 on, or the seeds themselves: 2020,2021; each is run on every split; default: 3, or "
        "one per split where there are several",
    )
    command.option(
        "split_seeds",
        "N",
        "how many random splits (split_seed from 2020 on), or their seeds: 1,5; all models share them",
    )
    command.option("folds", "N", "cut the rows into N folds and test each of them once (for every split_seed)")
    command.option(
        "floors",
        "A,B",
        f"simple models on the same rows, each run once per split; default: {FLOORS}; none: leave them out",
    )


_plan_options(RUN)
RUN.option("workers", "N", "cells that run at the same time, each in a process of one thread", default=1, kind=whole)
RUN.option("output", "FOLDER", "folder of the tables and the page", default="leaderboard")
RUN.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
RUN.flag("trust", "run the plug-in files that the leaderboard's file and config_files name")

RENDER.option("records", "FOLDER", "folder of the runs; default: output_dir of the cells")
RENDER.option("output", "FOLDER", "folder of the tables and the page", default="leaderboard")
RENDER.option("format", "md,csv,latex,html", "forms to write; default: all")
RENDER.option("name", "NAME", "name of the files; default: that of the leaderboard's file, or of the folder")
_plan_options(RENDER)
RENDER.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
RENDER.flag("trust", "run the plug-in files that the leaderboard's file and config_files name")

DIFF = Command(
    "leaderboard diff",
    usage=["A B [--output=FILE.md]"],
    about="""
Compares leaderboard B with leaderboard A: for each row that both have (by data set and name), the test metric of each
task, the difference paired by seed or split with its interval, and the settings that differ.
""",
    after="""
A and B are each a folder of runs, all of which are taken, or the file of a leaderboard, whose runs are below
output_dir.
""",
    place="two leaderboards, each a folder of runs or a leaderboard's file",
)
DIFF.option("output", "FILE.md", "file for the comparison as Markdown too")

ADD = Command(
    "leaderboard add",
    usage=["BOARD.yaml --model=NAME [--name=ROW] [--plugins=a.py] [settings]"],
    about="""
Adds a row to the file of a leaderboard, after those that it has; the rest of the file stays as it is. All cells are
checked first. `leaderboard run BOARD.yaml` then runs the new row's cells.
""",
    settings=True,
    place="one leaderboard's file",
)
ADD.option("model", "NAME", "model of the row", required=True)
ADD.option("name", "ROW", "name of the row; default: the model's")
ADD.option("plugins", "a.py,b.py", "Python files that register the model, added to the leaderboard's")
ADD.flag("trust", "run the plug-in files that the leaderboard's file names")

COMMANDS = {"run": RUN, "render": RENDER, "diff": DIFF, "add": ADD}


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
    others = {"render": _render, "diff": _diff, "add": _add}
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
    )


def _run(words: list[str]) -> int:
    """Run the leaderboard."""
    given = RUN.parse(words, most_words=len(words))
    file = _board_file(given.words)
    if given.workers < 1:
        raise UsageError(f"--workers: expected 1 or more, found {given.workers}")
    plan = _plan(given, file)
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
    )
    return 0


def _render(words: list[str]) -> int:
    """Write the tables and the page from records."""
    given = RENDER.parse(words, most_words=len(words))
    file = _board_file(given.words)
    from recbole_dtn.leaderboard.forms import FORMS, parse_forms, write_forms

    forms = parse_forms(split_words(given.format)) if given.format is not None else FORMS
    found = _found(given, file)
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
    paths = write_forms(found.records, found.names, Path(given.output), given.name or found.name, forms)
    say(console, f"{len(found.records)} runs: {', '.join(map(str, paths))}")
    return 0


def _found(given: argparse.Namespace, file: Path | None) -> Remade:
    """The records of a leaderboard's cells, or all below ``--records``."""
    from recbole_dtn.leaderboard.remake import of_cells, of_folder

    folder = Path(given.records) if given.records else None
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--records: no folder {folder}; expected one that holds run folders, such as runs")
    if file or given.models or given.datasets:
        from recbole_dtn.leaderboard.cells import plan_cells

        plan = _plan(given, file)
        cells = plan_cells(
            plan.models, plan.datasets, plan.seeds, plan.overrides, settings=plan.settings,
            split_seeds=plan.split_seeds, floors=plan.floors,
        )  # fmt: skip
        return of_cells(cells, folder, file.stem if file else "+".join(plan.datasets))
    if folder is None:
        raise UsageError("leaderboard render: expected BOARD.yaml, --records=FOLDER, or both; --help shows how")
    for key in ("seeds", "split_seeds", "folds", "floors"):
        if getattr(given, key) is not None:
            raise UsageError(f"leaderboard render: --{key} needs the file of a leaderboard, or --models")
    if given.settings:
        raise UsageError(f"leaderboard render: {given.settings[0]} needs the file of a leaderboard, or --models")
    load_plugins(split_words(given.plugins or ""))
    return of_folder(folder)


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
        found = _found(RENDER.parse([] if file else [f"--records={word}"]), file)
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
    from recbole_dtn.leaderboard.cells import plan_cells
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
        cells = plan_cells(
            plan.models, plan.datasets, plan.seeds, plan.overrides, settings=plan.settings,
            split_seeds=plan.split_seeds, floors=plan.floors,
        )  # fmt: skip
    write_text(file, text)
    new = sum(cell.name == plan.models[-1].name for cell in cells)
    say(make_console(), f"{file}: added {entry}, {new} cells; `leaderboard run {file}` runs them")
    return 0
