"""``python run_recbole_dtn.py test --run=FOLDER``: the test numbers of a finished run, computed again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recbole_dtn.cli.arguments import Command
from recbole_dtn.config.settings import SELECTED_ON_TEST
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table

__all__ = ["help_text", "run"]

COMMAND = Command("test", usage=["--run=FOLDER [--json]"], place="the folder goes in --run=FOLDER")
COMMAND.option("run", "FOLDER", "a run's folder, as printed at its end", required=True)
COMMAND.flag(
    "json",
    'print {"run": ..., "test": {task: {metric: value}}}, with every digit; null where a metric is undefined',
)
COMMAND.option("data_path", "FOLDER", "where the data is now, if it has moved")
COMMAND.option("cache_dir", "FOLDER", "where the encoded caches are now")


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
    from recbole_dtn.record.training import lacks_record
    from recbole_dtn.serving.load import load
    from recbole_dtn.training.report import metric_rows

    rebuilt = lacks_record(Path(folder))
    loaded = load(folder, **moved)
    if not rebuilt and loaded.record.status != "finished":
        at = f" at {loaded.record.interrupted_at}" if loaded.record.interrupted_at else ""
        print(f"this run was {loaded.record.status}{at}: no test of it was finished before this one", file=sys.stderr)
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
        print(json.dumps({"run": folder, "test": found.tasks, **factors, **flag}, indent=2, allow_nan=False))
        return 0
    console = make_console()
    say(console, f"test of {folder}")
    if loaded.record.selected_on_test:
        say(console, f"warning: {SELECTED_ON_TEST}")
    show_table(console, *metric_rows({**found.tasks, **found.factors}))
    return 0
