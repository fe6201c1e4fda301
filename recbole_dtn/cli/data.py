"""``run_recbole_dtn.py data info|validate|split|cache``: look at a data set, and keep its caches in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_dtn.cli import data_info
from recbole_dtn.cli.arguments import folder_name, parse, path_option
from recbole_dtn.cli.console import make_console, say, show_table
from recbole_dtn.config.datasets import dataset_yaml
from recbole_dtn.config.load import resolve
from recbole_dtn.config.properties import read_yaml
from recbole_dtn.errors import UsageError, nearest

if TYPE_CHECKING:
    from recbole_dtn.data.atomic import Fault

__all__ = ["help_text", "run"]

GROUPS_SHOWN = 50
LINES_SHOWN = 3
FAULTY = 2

HELP = """\
python run_recbole_dtn.py data info --dataset=NAME         what it holds, as tables, JSON or a page with plots
python run_recbole_dtn.py data validate --dataset=NAME     the faults of its atomic files, with file and lines
python run_recbole_dtn.py data split --dataset=NAME --name=NEW    our split as RecBole's parts train, valid, test
python run_recbole_dtn.py data cache list|clear            the encoded caches

`data <command> --help` says more of each. Settings of the data (--data_path, --cache_dir, --split, --limit_rows,
--config_files, ...) are taken as for training.
"""
HELP_OF = {
    "info": data_info.HELP,
    "validate": """\
python run_recbole_dtn.py data validate --dataset=NAME [--data_path=dataset] [--all]
python run_recbole_dtn.py data validate FOLDER [--all]

Checks every line of the atomic files of a data set, or of a folder that holds one under its own name: columns, numbers,
UTF-8, keys of the side files, and what stock RecBole would misread. Faults of one kind in one file are shown together,
with their number and first three lines.

  --all    every fault on a line of its own

Exits with 2 when there is a fault that cannot be read past, else with 0.
""",
    "split": """\
python run_recbole_dtn.py data split --dataset=NAME --name=NEW [--data_path=dataset] [--overwrite] [settings]

Writes our split of a data set as another one, <data_path>/NEW/: RecBole's parts NEW.train.inter, NEW.valid.inter and
NEW.test.inter with one label column per task, its side files, and NEW.yaml. Stock RecBole trains on the same rows then.

  --overwrite    replace a data set NEW that is there, with all of its files; without it, that is refused
""",
    "cache": """\
python run_recbole_dtn.py data cache list [--dataset=NAME] [--data_path=dataset] [--cache_dir=FOLDER]
python run_recbole_dtn.py data cache clear [--dataset=NAME] [--data_path=dataset] [--cache_dir=FOLDER]

Lists or removes the encoded caches of one data set or of all: fingerprint, rows, size, and whether each is complete.
They lie under data_path, or in cache_dir where that was set. A removed cache is made again when it is needed.
""",
}


def help_text(words: list[str]) -> str:
    """How to call it, or one of its commands."""
    return HELP_OF.get(words[0], HELP) if words else HELP


def run(words: list[str]) -> int:
    """Dispatch on the second word."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "info": data_info.run,
        "validate": _validate,
        "split": _split,
        "cache": _cache,
    }
    if not words or words[0].startswith("-"):
        raise UsageError(f"data: name one of {', '.join(commands)}")
    if words[0] not in commands:
        raise UsageError(f"data: unknown command {words[0]!r}; {nearest(words[0], commands)}")
    return commands[words[0]](words[1:])


def _validate(words: list[str]) -> int:
    parsed = parse(words, flags=("all",), settings=True)
    if parsed.words:
        wrong = [*parsed.words[1:], *parsed.settings]
        if wrong:
            raise UsageError(f"data validate: unexpected word {wrong[0]!r}; one folder, or --dataset=NAME")
        folder = Path(parsed.words[0])
    else:
        settings = resolve(parsed.settings).settings
        folder = Path(settings.data_path) / (settings.folder or settings.dataset)
    if not folder.is_dir():
        raise UsageError(f"data validate: there is no folder {folder}")
    from recbole_dtn.data.validate import grouped, validate

    console = make_console()
    faults = sorted(validate(folder))
    groups = [[fault] for fault in faults] if "all" in parsed.flags else grouped(faults)
    shown = len(groups) if "all" in parsed.flags else GROUPS_SHOWN
    for group in groups[:shown]:
        say(console, _group(group) if group[0].fatal else f"{_group(group)} (stock RecBole misreads it)")
    if len(groups) > shown:
        say(console, f"... and {len(groups) - shown:,} kinds more; --all prints each fault")
    fatal = sum(fault.fatal for fault in faults)
    say(console, f"{folder}: {fatal:,} faults, {len(faults) - fatal:,} warnings" if faults else f"{folder}: no fault")
    return FAULTY if fatal else 0


def _group(group: list[Fault]) -> str:
    """Faults of one kind in one file, on one line."""
    first = group[0]
    if len(group) == 1:
        return str(first)
    lines = ", ".join(str(fault.line) for fault in group[:LINES_SHOWN])
    more = ", ..." if len(group) > LINES_SHOWN else ""
    return f"{first.file}, {len(group):,} lines ({lines}{more}): {first.kind or first.reason}"


def _split(words: list[str]) -> int:
    parsed = parse(words, values=("name",), flags=("overwrite",), settings=True)
    if parsed.words:
        raise UsageError(f"data split: unexpected word {parsed.words[0]!r}; the data set goes in --dataset=NAME")
    (name,) = parsed.need("name")
    settings = resolve(parsed.settings).settings
    folder = Path(settings.data_path) / folder_name(name)
    from recbole_dtn.data.export import write_given_splits

    console = make_console()
    overwrite = "overwrite" in parsed.flags
    write_given_splits(settings, folder, name, log=lambda text: say(console, text), overwrite=overwrite)
    say(console, f"next: python run_recbole_dtn.py --dataset={name}{path_option(settings.data_path)}")
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
