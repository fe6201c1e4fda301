"""``run_recbole_dtn.py data info|validate|split|cache``: look at a data set, and keep its caches in order."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from recbole_dtn.cli import data_info
from recbole_dtn.cli.arguments import Command, folder_name, path_option
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.config.datasets import dataset_yaml
from recbole_dtn.config.load import resolve
from recbole_dtn.config.properties import read_yaml
from recbole_dtn.config.tasks import check_fields_and_tasks
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import count

if TYPE_CHECKING:
    from recbole_dtn.data.atomic import FileFault
    from recbole_dtn.inspect.validate import FaultGroup

__all__ = ["help_text", "run"]

GROUPS_SHOWN = 50
FAULTY = 2
FAILED = 1

HELP = f"""\
{PROGRAM} data info --dataset=NAME         what it holds, as tables, JSON or a page with plots
{PROGRAM} data validate --dataset=NAME     the faults of its atomic files, with file and lines
{PROGRAM} data split --dataset=NAME --name=NEW    our split as RecBole's parts train, valid, test
{PROGRAM} data split --dataset=NAME --export=FOLDER    our split as Parquet or CSV, for any other tool
{PROGRAM} data cache list|clear|verify     the encoded caches

`data <command> --help` says more of each. Settings of the data (--data_path, --cache_dir, --split, --limit_rows,
--config_files, ...) are taken as for training.
"""

VALIDATE = Command(
    "data validate",
    usage=["--dataset=NAME [--data_path=dataset] [--all]", "FOLDER [--all]"],
    about="""
Checks every line of the atomic files of a data set, or of a folder that holds one under its own name: header and types,
number of columns, numbers, UTF-8, line ends, blank lines, whether there are interactions, keys of the side files
(repeated, empty, or missing), spaces around tokens, control and direction characters, and what stock RecBole would
misread. With --dataset, whose
fields and tasks are known, also: columns that they need, labels and conditions, lists of weights as long as their
lists, times, weights and domains. Faults of one kind in one file are shown together, with their number and first
three lines. A warning marks what can still be read.
""",
    after="Exits with 2 when there is a fault that makes the files unreadable, else with 0.",
    settings=True,
    place="one folder, or --dataset=NAME",
)
VALIDATE.flag("all", "every fault on a line of its own")

SPLIT = Command(
    "data split",
    usage=[
        "--dataset=NAME --name=NEW [--data_path=dataset] [--overwrite] [settings]",
        "--dataset=NAME --export=FOLDER [--format=csv] [--overwrite] [settings]",
    ],
    about="""
With --name, writes our split of a data set as another one, <data_path>/NEW/: RecBole's parts NEW.train.inter,
NEW.valid.inter and NEW.test.inter with one label column per task, its side files, and NEW.yaml. Stock RecBole trains on
the same rows then.

With --export, writes the same rows as plain tables for any other tool: train, valid and test with raw values, a label
column per task (empty where it is not observed) and the number `row`, by which `evaluate` takes predictions back.
""",
    settings=True,
    place="the data set goes in --dataset=NAME",
)
SPLIT.option("name", "NEW", "name of the data set that is written")
SPLIT.option("export", "FOLDER", "folder of the plain tables that are written")
SPLIT.option("format", "FORMAT", "format of these tables: parquet or csv", default="parquet")
SPLIT.flag("overwrite", "replace a data set NEW (all of its files), or tables, that exist; without it, an error")

CACHE = Command(
    "data cache",
    usage=[
        "list [--dataset=NAME] [--data_path=dataset] [--cache_dir=FOLDER]",
        "clear [--dataset=NAME] [--data_path=dataset] [--cache_dir=FOLDER]",
        "verify [FOLDER] [--dataset=NAME] [--data_path=dataset] [--cache_dir=FOLDER]",
    ],
    about="""
Lists or removes the encoded caches of one data set or of all: fingerprint, rows, size, and whether each is complete.
They are under data_path, or in cache_dir if that is set. A removed cache is made again when it is needed.

verify reads every file of the caches, or of those in FOLDER, and compares it with its checksum; the atomic files are
compared with what was encoded. Runs do the same for files that are new to them, and with --check=full for all.
""",
    after="verify exits with 1 when a file is faulty, else with 0.",
)
CACHE.option("dataset", "NAME", "the data set; all of them where none is named")
CACHE.option("data_path", "FOLDER", "folder that holds one folder per data set", default="dataset")
CACHE.option("cache_dir", "FOLDER", "folder of the caches, where the setting cache_dir named one")

COMMANDS = {"info": data_info.COMMAND, "validate": VALIDATE, "split": SPLIT, "cache": CACHE}


def help_text(words: list[str]) -> str:
    """How to call it, or one of its commands."""
    return COMMANDS[words[0]].help_text() if words and words[0] in COMMANDS else HELP


def run(words: list[str]) -> int:
    """Dispatch on the second word."""
    runs = {"info": data_info.run, "validate": _validate, "split": _split, "cache": _cache}
    if not words or words[0].startswith("-"):
        raise UsageError(f"data: name one of {', '.join(runs)}")
    if words[0] not in runs:
        raise UsageError(f"data: unknown command {words[0]!r}; {nearest(words[0], runs)}")
    return runs[words[0]](words[1:])


def _validate(words: list[str]) -> int:
    given = VALIDATE.parse(words, most_words=1)
    settings = None
    if given.words:
        if given.settings:
            raise UsageError(f"data validate: unexpected word {given.settings[0]!r}; {VALIDATE.place}")
        folder = Path(given.words[0])
    else:
        settings = resolve(given.settings).settings
        check_fields_and_tasks(settings)
        folder = Path(settings.data_path) / (settings.folder or settings.dataset)
    if not folder.is_dir():
        raise UsageError(f"data validate: there is no folder {folder}")
    from recbole_dtn.data.progress import progress_meter
    from recbole_dtn.inspect.validate import find_faults

    console = make_console()
    counts = {True: 0, False: 0}
    with progress_meter(make_console(stderr=True)) as meter:
        found = _counted(find_faults(folder, settings, meter=meter), counts)
        _show_faults(console, found, each=given.all)
    fatal, warnings = counts[True], counts[False]
    ending = f"{_number(fatal, 'fault')}, {_number(warnings, 'warning')}" if fatal or warnings else "no fault"
    unchecked = "; fields and labels are checked with --dataset=NAME" if settings is None else ""
    say(console, f"{folder}: {ending}{unchecked}")
    return FAULTY if fatal else 0


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _counted(faults: Iterable[FileFault], counts: dict[bool, int]) -> Iterator[FileFault]:
    for fault in faults:
        counts[fault.fatal] += 1
        yield fault


def _show_faults(console: Console, faults: Iterable[FileFault], *, each: bool) -> None:
    """Every fault as it is found, or those of a kind together."""
    if each:
        for fault in faults:
            say(console, _line(fault, str(fault.line)))
        return
    from recbole_dtn.inspect.validate import grouped

    groups = grouped(faults)
    for group in groups[:GROUPS_SHOWN]:
        say(console, _group(group))
    if len(groups) > GROUPS_SHOWN:
        say(console, f"... and {len(groups) - GROUPS_SHOWN:,} kinds more; --all prints each fault")


def _line(fault: FileFault, lines: str) -> str:
    where = f"{fault.file}, line {lines}" if fault.line else fault.file
    return f"{where}: {'' if fault.fatal else 'warning: '}{fault.reason}"


def _group(group: FaultGroup) -> str:
    """Faults of one kind in one file, on one line."""
    first = group.first
    if group.count == 1:
        return _line(first, str(first.line))
    more = ", ..." if group.count > len(group.lines) else ""
    lines = f"{', '.join(map(str, group.lines))}{more}"
    mark = "" if first.fatal else "warning: "
    return f"{first.file}, {group.count:,} lines ({lines}): {mark}{first.kind or first.reason}"


def _split(words: list[str]) -> int:
    given = SPLIT.parse(words)
    if (given.name is None) == (given.export is None):
        raise UsageError(
            "data split: expected --name=NEW (a data set) or --export=FOLDER (plain tables); --help shows how"
        )
    if given.export is not None:
        return _export(given)
    name = folder_name(given.name)
    settings = resolve(given.settings).settings
    folder = Path(settings.data_path) / name
    from recbole_dtn.preprocess.export import write_given_splits

    console = make_console()
    write_given_splits(settings, folder, name, log=lambda text: say(console, text), overwrite=given.overwrite)
    say(console, f"next: {PROGRAM} --dataset={name}{path_option(settings.data_path)}")
    return 0


def _export(given: argparse.Namespace) -> int:
    if given.format not in ("parquet", "csv"):
        raise UsageError(f"--format: expected parquet or csv; found {given.format!r}")
    if not given.export:
        raise UsageError("--export: expected a folder; found ''")
    settings = resolve(given.settings).settings
    from recbole_dtn.preprocess.plain import export_splits

    console, folder = make_console(), Path(given.export)
    export_splits(settings, folder, form=given.format, log=lambda text: say(console, text), overwrite=given.overwrite)
    say(console, f"next: {PROGRAM} evaluate --predictions=FILE --labels={folder / f'test.{given.format}'}")
    return 0


def _cache(words: list[str]) -> int:
    given = CACHE.parse(words, most_words=len(words))
    verify = given.words[:1] == ["verify"] and len(given.words) <= 2
    if not verify and given.words not in (["list"], ["clear"]):
        found = f"; found {' '.join(given.words)!r}" if given.words else ""
        raise UsageError(f"data cache: name list, clear or verify{found}")
    from recbole_dtn.data.cached import cache_clear, cache_list

    clear = given.words == ["clear"]
    data_path = Path(given.data_path)
    cache_dir = Path(given.cache_dir) if given.cache_dir else None
    dataset = _folder_name(given.dataset, data_path)
    if clear:
        entries = cache_clear(data_path, cache_dir, dataset=dataset)
    else:
        entries = [entry for entry in cache_list(data_path, cache_dir) if dataset in (None, entry.dataset)]
    if verify:
        named = [entry.path for entry in entries]
        return _verify(named if len(given.words) == 1 else _entries_in(Path(given.words[1])))
    rows = [
        (
            entry.dataset,
            entry.fingerprint,
            count(entry.rows),
            f"{entry.bytes / 1e6:,.1f} MB",
            "complete" if entry.complete else "incomplete",
        )
        for entry in entries
    ]
    console = make_console()
    if rows:
        show_table(console, ("data set", "fingerprint", "rows", "size", "state"), rows)
    total = sum(entry.bytes for entry in entries) / 1e6
    entries_word = "entry" if len(rows) == 1 else "entries"
    say(console, f"{'removed' if clear else 'found'} {len(rows)} cache {entries_word}, {total:,.1f} MB")
    return 0


def _entries_in(folder: Path) -> list[Path]:
    from recbole_dtn.data.verify import entries_in

    if not folder.is_dir():
        raise UsageError(f"data cache verify: there is no folder {folder}")
    entries = entries_in(folder)
    if not entries:
        raise UsageError(f"data cache verify: {folder} holds no cache; expected a data set's folder, or one of a cache")
    return entries


def _verify(entries: list[Path]) -> int:
    """Check every file of cache entries, and what they were made from; print a row for each."""
    from recbole_dtn.data.progress import progress_meter
    from recbole_dtn.data.verify import FileState, verify_entry, verify_sources

    found: list[FileState] = []
    with progress_meter(make_console(stderr=True)) as meter:
        for root in dict.fromkeys(entry.parent for entry in entries):
            found += verify_sources(root, meter)
            for entry in entries:
                if entry.parent == root:
                    found += verify_entry(entry, meter)
    console = make_console()
    if found:
        show_table(console, ("file", "state"), [(str(each.path), each.state) for each in found])
    faults = [each.path for each in found if each.fault]
    entries_word = "entry" if len(entries) == 1 else "entries"
    ending = f"{_number(len(faults), 'faulty file')}" if faults else "no fault"
    say(console, f"checked {len(entries)} cache {entries_word}, {_number(len(found), 'file')}: {ending}")
    if any(path.parent in entries for path in faults):
        say(console, "The next run makes a faulty cache again from the atomic files.")
    if any(path.parent not in entries for path in faults):
        say(
            console,
            "Restore faulty atomic files from a copy, or make them again by `preprocess ... --overwrite`.",
        )
    return FAILED if faults else 0


def _folder_name(dataset: str | None, data_path: Path) -> str | None:
    """The name of a data set's folder, which its caches have too."""
    file = None if dataset is None else dataset_yaml(dataset, data_path)
    return dataset if file is None else str(read_yaml(file).get("folder") or dataset)
