"""``python run_recbole_dtn.py leaderboard [run]``: models x data sets x splits x seeds, and their results."""

from __future__ import annotations

from pathlib import Path

from recbole_dtn.cli.arguments import Command, split_words
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.report.console import make_console

__all__ = ["help_text", "run"]

HELP = f"""\
{PROGRAM} leaderboard [run] --models=A,B --datasets=X --seeds=3

commands:
  run   train and test every model on every data set with every split and seed,
        and write the table of their results; the command when none is named

`{PROGRAM} leaderboard run --help` shows its options.
"""

RUN = Command(
    "leaderboard run",
    usage=["--models=DTN,PLE --datasets=ml-100k [settings]"],
    after="""
A cell is one run (model, data set, split, seed). Every other --key=value is a setting of all cells (--epochs=1). Cells
run one after another; a cell that is recorded under output_dir with the same settings is not run again.
""",
    settings=True,
)
RUN.option("models", "A,B", "models, separated by commas", required=True)
RUN.option("datasets", "X,Y", "data sets, separated by commas", required=True)
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
    "simple models on the same rows, each run once per split; none: leave them out",
    default="Logistic,Boosting",
)
RUN.option("output", "FOLDER", "folder of the Markdown and CSV tables", default="leaderboard")
RUN.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")
RUN.flag("trust", "run the plug-in files that config_files name")


def help_text(words: list[str]) -> str:
    """How to call it, or its command ``run``.

    Raises:
        UsageError: for another command.
    """
    commands = [word for word in words[:1] if not word.startswith("-")]
    _only_run(commands)
    return RUN.help_text() if commands else HELP


def _only_run(words: list[str]) -> None:
    if words not in ([], ["run"]):
        unknown = next((word for word in words if word != "run"), "run")
        raise UsageError(f"leaderboard: unknown word {unknown!r}; {nearest(unknown, ['run'])}")


def run(words: list[str]) -> int:
    """Run the leaderboard."""
    given = RUN.parse(words, most_words=len(words))
    _only_run(given.words)
    models, datasets = split_words(given.models), split_words(given.datasets)
    load_plugins(split_words(given.plugins or ""))
    floors = [] if given.floors == "none" else split_words(given.floors)
    for name in (*models, *floors):
        MODELS.entry(name)
    folds = [f"--folds={given.folds}"] if given.folds else []
    files = [f"--plugins={given.plugins}"] if given.plugins else []
    overrides = [*files, *(["--trust"] if given.trust else []), *given.settings, *folds]
    from recbole_dtn.leaderboard.cells import parse_seeds
    from recbole_dtn.leaderboard.run import run_board

    seeds = parse_seeds(given.seeds) if given.seeds else None
    splits = parse_seeds(given.split_seeds, "split_seeds") if given.split_seeds else None
    output, console = Path(given.output), make_console()
    run_board(models, datasets, seeds, overrides, output, console, split_seeds=splits, floors=floors)
    return 0
