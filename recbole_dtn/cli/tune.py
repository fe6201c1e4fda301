"""``tune --model=DTN --dataset=X --trials=N``: search the settings of one model."""

from __future__ import annotations

from pathlib import Path

from recbole_dtn.cli.arguments import Command, split_words, whole
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.report.console import make_console

__all__ = ["help_text", "run"]

COMMAND = Command(
    "tune",
    usage=["--model=DTN --dataset=X --trials=20 [settings]"],
    about="""
Searches the settings of one model by Optuna's TPE sampler. Trial 0 has the defaults. A trial is a run that selects on
validation and reads no test rows; one that falls behind the median of the trials before it is stopped after an epoch.
The trials are kept below output_dir: a command that was stopped goes on, and a larger --trials adds to them.
""",
    after="""
Every other --key=value is a setting of all trials, which is not tuned (--epochs=3). Settings of --config_files are
where the search starts. --output has MODEL-DATASET.best.yaml, for --config_files, and MODEL-DATASET.html with every
trial, the best so far and what mattered; both are kept up to date.

  {program} tune --model=DTN --dataset=ml-100k --trials=20 --epochs=3
  {program} --config_files=tuning/DTN-ml-100k.best.yaml

The space is properties/tuning/space.yaml, or a file of yours that is written like it (--space).
""",
    settings=True,
)
COMMAND.option("model", "NAME", "model", required=True)
COMMAND.option("dataset", "X", "data set", required=True)
COMMAND.option("trials", "N", "trials in all, the defaults among them", default=20, kind=whole)
COMMAND.option("space", "FILE.yaml", "what is tuned", default="tuning/space.yaml")
COMMAND.option("first_seed", "N", "trial n has the seed N + n", default=1000, kind=whole)
COMMAND.option(
    "workers", "N", "trials that start together, each in a process of one thread; others do not know them", default=1,
    kind=whole,
)  # fmt: skip
COMMAND.option("output", "FOLDER", "folder of the best settings and the page", default="tuning")
COMMAND.option("plugins", "a.py,b.py", "Python files that register models, interactions, ...")


def help_text(words: list[str]) -> str:
    """How to call it."""
    from recbole_dtn.cli.help_text import PROGRAM

    return COMMAND.help_text().replace("{program}", PROGRAM)


def run(words: list[str]) -> int:
    """Run the command."""
    given = COMMAND.parse(words)
    for name, least in (("trials", 1), ("workers", 1), ("first_seed", 0)):
        if getattr(given, name) < least:
            raise UsageError(f"--{name}: expected {least} or more, found {getattr(given, name)}")
    for word in given.settings:
        if word.removeprefix("--").partition("=")[0] == "seed":
            raise UsageError(f"{word}: each trial has a seed of its own; --first_seed chooses them")
    plugins = split_words(given.plugins or "")
    load_plugins(plugins)
    MODELS.entry(given.model)
    from recbole_dtn.leaderboard.plan import TuneWanted
    from recbole_dtn.leaderboard.tune import tune_model

    overrides = [*([f"--plugins={','.join(plugins)}"] if plugins else []), *given.settings]
    wanted = TuneWanted(trials=given.trials, space=given.space, first_seed=given.first_seed)
    tune_model(given.model, given.dataset, overrides, wanted, Path(given.output), make_console(), workers=given.workers)
    return 0
