"""``python run_recbole_dtn.py leaderboard [run]``: models x data sets x seeds, and the table of their results."""

from __future__ import annotations

from pathlib import Path

from recbole_dtn.cli.arguments import parse, split_words
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.report.console import make_console

__all__ = ["help_text", "run"]

HELP = f"""\
{PROGRAM} leaderboard [run] --models=A,B --datasets=X --seeds=3

commands:
  run   train and test every model on every data set with every seed, and write
        the table of their results; the command when none is named

`{PROGRAM} leaderboard run --help` shows its options.
"""

RUN_HELP = f"""\
{PROGRAM} leaderboard run --models=DTN,PLE --datasets=ml-100k

  --models=A,B           models, apart by commas
  --datasets=X,Y         data sets, apart by commas
  --seeds=3              how many seeds from 2020 on, or the seeds: 2020,2021;
                         all share one split
  --output=leaderboard   folder of the Markdown and CSV tables
  --key=value            any other setting, for every cell (--epochs=1)

Cells run one after another; those already recorded under output_dir with the
same settings are skipped.
"""


def help_text(words: list[str]) -> str:
    """How to call it, or its command ``run``.

    Raises:
        UsageError: for another command.
    """
    commands = [word for word in words[:1] if not word.startswith("-")]
    _only_run(commands)
    return RUN_HELP if commands else HELP


def _only_run(words: list[str]) -> None:
    if words not in ([], ["run"]):
        unknown = next((word for word in words if word != "run"), "run")
        raise UsageError(f"leaderboard: unknown word {unknown!r}; {nearest(unknown, ['run'])}")


def run(words: list[str]) -> int:
    """Run the board."""
    parsed = parse(words, values=("models", "datasets", "seeds", "output", "plugins"), settings=True)
    _only_run(parsed.words)
    models, datasets = (split_words(text) for text in parsed.need("models", "datasets"))
    plugins = parsed.values.get("plugins")
    load_plugins(split_words(plugins or ""))
    for name in models:
        MODELS.entry(name)
    overrides = [*([f"--plugins={plugins}"] if plugins else []), *parsed.settings]
    from recbole_dtn.leaderboard.cells import parse_seeds
    from recbole_dtn.leaderboard.run import run_board

    seeds = parse_seeds(parsed.values.get("seeds", "3"))
    run_board(models, datasets, seeds, overrides, Path(parsed.values.get("output", "leaderboard")), make_console())
    return 0
