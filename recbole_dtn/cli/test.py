"""``python run_recbole_dtn.py test --run=FOLDER``: the test numbers of a finished run, computed again."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import Command, split_words
from recbole_dtn.config.settings import SELECTED_ON_TEST
from recbole_dtn.plugins import plugin_warnings
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import shown

if TYPE_CHECKING:
    from recbole_dtn.serving.load import LoadedRun

__all__ = ["help_text", "run"]

COMMAND = Command(
    "test",
    usage=["--run=FOLDER [--dataset=NAME] [--json]"],
    about="""
The test numbers of a finished run, computed again from its checkpoint. The plug-in files that the run used are code:
they are run only if you name them, or trust the folder. A warning tells which of them have changed since.
""",
    place="the folder goes in --run=FOLDER",
)
COMMAND.option("run", "FOLDER", "a run's folder, as printed at its end", required=True)
COMMAND.option(
    "dataset", "NAME", "another data set with the run's columns, all of whose rows are scored (of parts: its test part)"
)
COMMAND.flag(
    "json",
    'print {"run": ..., "test": {task: {metric: value}}}, with every digit; null where a metric is undefined',
)
COMMAND.option("data_path", "FOLDER", "where the data is now, if it has moved")
COMMAND.option("cache_dir", "FOLDER", "where the encoded caches are now")
COMMAND.option("plugins", "a.py,b.py", "the plug-in files that the run used, where they are now")
COMMAND.flag("trust", "run every plug-in file that the run's folder names")


def help_text(words: list[str]) -> str:
    """How to call it."""
    return COMMAND.help_text()


def run(words: list[str]) -> int:
    """Load the checkpoint, read the test split, print the metrics."""
    given = COMMAND.parse(words)
    folder: str = given.run
    moved = {key: getattr(given, key) for key in ("data_path", "cache_dir") if getattr(given, key) is not None}
    from recbole_dtn.record.record import FILE_NAME, read_record

    if (Path(folder) / FILE_NAME).exists() or not any(Path(folder).glob("*.ckpt")):
        read_record(Path(folder))  # a wrong folder is an error before torch is imported
    from recbole_dtn.training.signals import Signals

    with Signals():  # SIGTERM has an exit code and a word, and tears no record that is being rebuilt
        return _test(given, folder, moved)


def _test(given: Namespace, folder: str, moved: dict[str, str]) -> int:
    from recbole_dtn.record.training import lacks_record
    from recbole_dtn.serving.load import load
    from recbole_dtn.training.report import detail_tables, metric_rows

    rebuilt = lacks_record(Path(folder))
    with plugin_warnings():
        loaded = load(folder, plugins=split_words(given.plugins or ""), trust=given.trust, **moved)
    if given.dataset is not None:
        return _other(loaded, folder, given.dataset, as_json=given.json)
    if not rebuilt and loaded.record.status != "finished":
        at = f" at {loaded.record.interrupted_at}" if loaded.record.interrupted_at else ""
        said = f"this run was {loaded.record.status}{at}: no test of it was finished before this one"
        print(shown(said), file=sys.stderr)
    if not rebuilt:
        found = loaded.evaluate()
    else:
        from recbole_dtn.serving.rebuild import rebuild_record

        found, record = rebuild_record(Path(folder), loaded)
        how = "is being run" if record is None else f"had no record of its end; one was written ({record.status})"
        print(f"this run {how}: tested from the checkpoint of epoch {loaded.record.best_epoch}", file=sys.stderr)
    if given.json:
        flag = {"selected_on_test": True} if loaded.record.selected_on_test else {}
        factors = {"factors": found.factors} if found.factors else {}
        details = {"details": found.details} if found.details else {}
        told = {"run": folder, "test": found.tasks, **factors, **details, **flag}
        print(json.dumps(told, indent=2, allow_nan=False))
        return 0
    console = make_console()
    say(console, f"test of {folder}")
    if loaded.record.selected_on_test:
        say(console, f"warning: {SELECTED_ON_TEST}")
    show_table(console, *metric_rows({**found.tasks, **found.factors}))
    for title, columns, rows in detail_tables(found.details):
        say(console, f"\n{title}")
        show_table(console, columns, rows, numbers=True)
    return 0


def _other(loaded: LoadedRun, folder: str, dataset: str, *, as_json: bool) -> int:
    """The metrics on another data set, and what of it was unknown to the run."""
    from recbole_dtn.cli.predict import show_fields
    from recbole_dtn.serving.predict import evaluate_dataset
    from recbole_dtn.training.report import metric_rows

    found = evaluate_dataset(loaded, dataset)
    if as_json:
        content = {"run": folder, "dataset": dataset, "test": found.metrics, **found.to_dict()}
        content.pop("metrics", None)
        print(json.dumps(content, indent=2, allow_nan=False))
        return 0
    console = make_console()
    say(console, f"test of {folder} on {dataset}, {found.rows:,} rows")
    show_fields(console, found)
    show_table(console, *metric_rows({**(found.metrics or {}), **found.factors}))
    return 0
