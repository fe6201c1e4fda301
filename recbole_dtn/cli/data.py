"""``run_recbole_dtn.py data info|validate|split|cache``: look at a data set, and keep its caches in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import folder_name, parse, path_option
from recbole_dtn.cli.console import make_console, say, show_table
from recbole_dtn.config.datasets import dataset_yaml
from recbole_dtn.config.load import resolve
from recbole_dtn.config.properties import read_yaml
from recbole_dtn.errors import UsageError, nearest

if TYPE_CHECKING:
    from recbole_dtn.data.info import DataInfo

__all__ = ["help_text", "run"]

FAULTS_SHOWN = 50
FAULTY = 2

HELP = """\
run_recbole_dtn.py data info --dataset=NAME         rows, fields, vocabularies and positives per task and split
run_recbole_dtn.py data validate --dataset=NAME     every fault of its atomic files, with file and line
run_recbole_dtn.py data validate FOLDER             the same for a folder of atomic files
run_recbole_dtn.py data split --dataset=NAME --name=NEW    write our split as RecBole's parts train, valid, test
run_recbole_dtn.py data cache list                  the encoded caches under data_path (or cache_dir), with their sizes
run_recbole_dtn.py data cache clear [--dataset=NAME]       remove them, of one data set or of all

Settings of the data (--data_path, --cache_dir, --split, --limit_rows, --config_files, ...) are taken as for training.
`data validate` exits with 2 when it finds a fault that cannot be read past.
"""


def help_text(words: list[str]) -> str:
    """How to call it."""
    return HELP


def run(words: list[str]) -> int:
    """Dispatch on the second word."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "info": _info,
        "validate": _validate,
        "split": _split,
        "cache": _cache,
    }
    if not words or words[0].startswith("-"):
        raise UsageError(f"data: name one of {', '.join(commands)}")
    if words[0] not in commands:
        raise UsageError(f"data: unknown command {words[0]!r}; {nearest(words[0], commands)}")
    return commands[words[0]](words[1:])


def _info(words: list[str]) -> int:
    resolved = resolve(words)
    from recbole_dtn.data.datamodule import prepare
    from recbole_dtn.data.info import summarise

    console = make_console()
    info = summarise(prepare(resolved.settings, log=lambda text: say(console, text)))
    say(console, f"{info.folder}: {sum(info.rows.values()):,} rows; fingerprint {info.fingerprint}\n")
    splits = list(info.rows)
    rows = [["rows", *(f"{info.rows[split]:,}" for split in splits)], *_task_rows(info, splits)]
    show_table(console, ("task", *splits), rows)
    say(console, "")
    heading = ("field", "type", "file", "vocabulary")
    shares = [*(f"missing, {split}" for split in splits), *(f"known, {split}" for split in splits[1:])]
    rows = [
        [
            field.name,
            field.kind,
            field.table,
            f"{field.vocabulary:,}" if field.vocabulary else "–",
            *(_share(field.missing[split]) for split in splits),
            *(_share(field.coverage[split]) for split in splits[1:]),
        ]
        for field in info.fields
    ]
    show_table(console, (*heading, *shares), rows)
    return 0


def _task_rows(info: DataInfo, splits: list[str]) -> list[list[str]]:
    """Per task, positives of the observed rows and their share, in each split."""
    cells = {
        (task.task, task.split): f"{task.positives:,} of {task.observed:,} ({_share(task.rate)})" for task in info.tasks
    }
    names = list(dict.fromkeys(task.task for task in info.tasks))
    return [[name, *(cells[name, split] for split in splits)] for name in names]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _validate(words: list[str]) -> int:
    if words and not words[0].startswith("-"):
        if len(words) > 1:
            raise UsageError(f"data validate: unexpected word {words[1]!r}; one folder, or --dataset=NAME")
        folder = Path(words[0])
    else:
        settings = resolve(words).settings
        folder = Path(settings.data_path) / (settings.folder or settings.dataset)
    if not folder.is_dir():
        raise UsageError(f"data validate: there is no folder {folder}")
    from recbole_dtn.data.validate import validate

    console = make_console()
    faults = sorted(validate(folder))
    for fault in faults[:FAULTS_SHOWN]:
        say(console, str(fault) if fault.fatal else f"{fault} (stock RecBole misreads it)")
    if len(faults) > FAULTS_SHOWN:
        say(console, f"... and {len(faults) - FAULTS_SHOWN:,} more")
    fatal = sum(fault.fatal for fault in faults)
    say(console, f"{folder}: {fatal:,} faults, {len(faults) - fatal:,} warnings" if faults else f"{folder}: no fault")
    return FAULTY if fatal else 0


def _split(words: list[str]) -> int:
    parsed = parse(words, values=("name",), settings=True)
    if parsed.words:
        raise UsageError(f"data split: unexpected word {parsed.words[0]!r}; the data set goes in --dataset=NAME")
    (name,) = parsed.need("name")
    settings = resolve(parsed.settings).settings
    folder = Path(settings.data_path) / folder_name(name)
    from recbole_dtn.data.export import write_given_splits

    console = make_console()
    write_given_splits(settings, folder, name, log=lambda text: say(console, text))
    say(console, f"next: run_recbole_dtn.py --dataset={name}{path_option(settings.data_path)}")
    return 0


def _cache(words: list[str]) -> int:
    parsed = parse(words, values=("data_path", "cache_dir", "dataset"))
    if parsed.words not in (["list"], ["clear"]):
        found = f"; found {' '.join(parsed.words)!r}" if parsed.words else ""
        raise UsageError(f"data cache: name list or clear{found}")
    from recbole_dtn.data.cache import cache_clear, cache_list

    data_path = Path(parsed.values.get("data_path", "dataset"))
    cache_dir = Path(parsed.values["cache_dir"]) if parsed.values.get("cache_dir") else None
    dataset = _folder_name(parsed.values.get("dataset"), data_path)
    if parsed.words == ["clear"]:
        entries = cache_clear(data_path, cache_dir, dataset=dataset)
    else:
        entries = [entry for entry in cache_list(data_path, cache_dir) if dataset in (None, entry.dataset)]
    rows = [
        (
            entry.dataset,
            entry.fingerprint,
            "–" if entry.rows is None else f"{entry.rows:,}",
            f"{entry.bytes / 1e6:,.1f} MB",
            "complete" if entry.complete else "torn",
        )
        for entry in entries
    ]
    console = make_console()
    if rows:
        show_table(console, ("data set", "fingerprint", "rows", "size", "state"), rows)
    total = sum(entry.bytes for entry in entries) / 1e6
    verb = "removed" if parsed.words == ["clear"] else "found"
    entries_word = "entry" if len(rows) == 1 else "entries"
    say(console, f"{verb} {len(rows)} cache {entries_word}, {total:,.1f} MB")
    return 0


def _folder_name(dataset: str | None, data_path: Path) -> str | None:
    """The folder of a data set, by which the caches are named (``ml-100k`` lives in ``ml-100k-mt``)."""
    file = None if dataset is None else dataset_yaml(dataset, data_path)
    return dataset if file is None else str(read_yaml(file).get("folder") or dataset)
