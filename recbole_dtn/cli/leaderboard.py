"""``python run_recbole_dtn.py leaderboard [run]``: models x data sets x splits x seeds, and their results."""

from __future__ import annotations

from pathlib import Path

from recbole_dtn.cli.arguments import Command, split_words, whole
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.plugins import check_named
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.report.console import make_console

__all__ = ["help_text", "run"]

FLOORS = "Logistic,Boosting"
HELP = f"""\
{PROGRAM} leaderboard [run] --models=A,B --datasets=X --seeds=3
{PROGRAM} leaderboard run BOARD.yaml --workers=4

commands:
  run   train and test every model on every data set with every split and seed,
        and write the table of their results; the command when none is named

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
RUN.option("models", "A,B", "models, separated by commas; needed without a file")
RUN.option("datasets", "X,Y", "data sets, separated by commas; needed without a file")
RUN.option(
    "seeds",
    "N",
    "how many seeds from 2020 on, or the seeds themselves: 2020,2021; each is run on every split; default: 3, or one "
    "per split where there are several",
)
RUN.option(
    "split_seeds", "N", "how many random splits (split_seed from 2020 on), or their seeds: 1,5; all models share them"
)
RUN.option("folds", "N", "cut the rows into N folds and test each of them once (for every split_seed)")
RUN.option(
    "floors",
    "A,B",
    f"simple models on the same rows, each run once per split; default: {FLOORS}; none: leave them out",
)
RUN.option("workers", "N", "cells that run at the same time, each in a process of one thread", default=1, kind=whole)
RUN.option("output", "FOLDER", "folder of the Markdown and CSV tables", default="leaderboard")
RUN.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
RUN.flag("trust", "run the plug-in files that the leaderboard's file and config_files name")


def help_text(words: list[str]) -> str:
    """How to call it, or its command ``run``.

    Raises:
        UsageError: for another command.
    """
    commands = [word for word in words[:1] if not word.startswith("-")]
    _board_file(commands)
    return RUN.help_text() if commands else HELP


def _board_file(words: list[str]) -> Path | None:
    """The leaderboard's file among the words of the command."""
    rest = words[1:] if words[:1] == ["run"] else words
    if not rest:
        return None
    if len(rest) > 1 or not rest[0].endswith((".yaml", ".yml")):
        unknown = rest[-1]
        raise UsageError(
            f"leaderboard: unknown word {unknown!r}; {nearest(unknown, ['run'])}, or the file of a leaderboard (.yaml)"
        )
    return Path(rest[0])


def run(words: list[str]) -> int:
    """Run the leaderboard."""
    given = RUN.parse(words, most_words=len(words))
    file = _board_file(given.words)
    from recbole_dtn.leaderboard.board import Entry, listed, read_board, setting_words

    board = read_board(file) if file else None
    if given.workers < 1:
        raise UsageError(f"--workers: expected 1 or more, found {given.workers}")
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
    from recbole_dtn.leaderboard.run import run_board

    seeds = given.seeds or (listed(board.seeds) if board else None)
    splits = given.split_seeds or (listed(board.split_seeds) if board else None)
    run_board(
        models,
        datasets,
        parse_seeds(seeds) if seeds else None,
        overrides,
        Path(given.output),
        make_console(),
        settings=setting_words(board.settings) if board else (),
        split_seeds=parse_seeds(splits, "split_seeds") if splits else None,
        board=file.stem if file else None,
        floors=floors,
        workers=given.workers,
    )
    return 0
