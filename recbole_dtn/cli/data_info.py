"""``data info`` on the terminal: several narrow tables; JSON and a page on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from recbole_dtn.cli.arguments import Command
from recbole_dtn.config.load import resolve
from recbole_dtn.data.progress import progress_meter
from recbole_dtn.errors import UsageError
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.files import check_place, write_text
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import clipped, count, decimal, number, share

if TYPE_CHECKING:
    from recbole_dtn.inspect.info.report import DataInfo, FieldInfo, PairInfo

__all__ = ["COMMAND", "run"]

WIDTH = 100
BETWEEN = 3
LONGEST = 24
LONGEST_TOKEN = 12
BEST = 5
SMALL = 0.01

COMMAND = Command(
    "data info",
    usage=["--dataset=NAME [--quick] [--json=FILE|-] [--html=FILE] [settings of the data]"],
    about="""
What a data set holds, in tables of at most 100 columns:
  splits        rows; rows with equal inputs within a split, and those of them with different labels; rows of valid
                and test whose inputs occur in training, and rows of test whose inputs occur in validation
  tasks         observed rows, positives, their rate and its standard error; the standard error of an AUC of 0.7
                at that many positives: the differences a split can show; how the tasks occur together
  fields        type, file, vocabulary, shares of missing values and of values whose token has an id; the most
                frequent tokens and how concentrated they are; moments and quantiles of numbers; lengths of lists
  fields alone  the AUC of each field on its own, in training
  warnings      fields without information, fields mostly unseen in training, inputs that may be outcomes, leaks,
                rows that break the chain of tasks

Everything is counted on the encoded data: duplicates compare ids, so that all tokens unknown to training are the same,
and numbers as float32. The data set is encoded first where its cache is missing. Settings of the data (--split,
--split_ratio, --limit_rows, --min_count, --cache_dir, ...) are taken as for training.
""",
    settings=True,
    place="the data set goes in --dataset=NAME",
)
COMMAND.flag("quick", "leave out duplicates and the fields alone")
COMMAND.option("json", "FILE", "write everything as JSON (keys: recbole_dtn.inspect.info.report); - prints it alone")
COMMAND.option("html", "FILE", "write one page with plots, which needs no network")


def run(words: list[str]) -> int:
    """Inspect a data set."""
    given = COMMAND.parse(words)
    targets = {name: getattr(given, name) for name in ("json", "html") if getattr(given, name) is not None}
    for name, target in targets.items():
        _check_target(name, target)
    settings = resolve(given.settings).settings
    from recbole_dtn.inspect.info.inspect import inspect
    from recbole_dtn.preprocess.prepare import prepare

    to_pipe = targets.get("json") == "-"
    console = make_console()
    notes = make_console(stderr=True) if to_pipe else console
    with progress_meter(make_console(stderr=True)) as meter:
        prepared = prepare(settings, log=lambda text: say(notes, text), meter=meter)
        info = inspect(
            prepared,
            dataset=settings.dataset,
            selected_on_test=settings.selected_on_test,
            quick=given.quick,
            meter=meter,
        )
    if not to_pipe:
        show(console, info)
    if "json" in targets:
        _write_json(info, targets["json"])
    if "html" in targets:
        from recbole_dtn.inspect.info.page import page

        write_text(Path(targets["html"]), page(info))
        say(notes, f"\nwrote {targets['html']}")
    return 0


def _check_target(name: str, target: str) -> None:
    """Refuse a file that cannot be written before the data is read, which may take long."""
    if name == "json" and target == "-":
        return
    path = Path(target)
    if target == "-" or path.is_dir():
        raise UsageError(f"--{name}: expected the name of a file; found {target!r}")
    if not path.parent.is_dir():
        raise UsageError(f"--{name}: there is no folder {path.parent}")
    check_place(path, f"--{name}={target}", file=True)


def _write_json(info: DataInfo, target: str) -> None:
    from recbole_dtn.inspect.info.report import to_json

    text = json.dumps(to_json(info), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_text(Path(target), text)


# ---- tables -------------------------------------------------------------------------------------------------------


def show(console: Console, info: DataInfo) -> None:
    """Print every table."""
    say(console, f"{info.folder}: {sum(info.rows.values()):,} rows; fingerprint {info.fingerprint}")
    _show_splits(console, info)
    _show_tasks(console, info)
    _show_pairs(console, info)
    _show_fields(console, info)
    _show_alone(console, info)
    if info.warnings:
        say(console, f"\n{len(info.warnings)} {'warning' if len(info.warnings) == 1 else 'warnings'}")
    for text in info.warnings:
        say(console, f"- {text}")


def _table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; one that would be wider than 100 columns is cut into several, each with the first column."""
    cells = [[clipped(row[0], LONGEST), *row[1:]] for row in rows]
    if not cells:
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    say(console, f"\n{title}")
    taken: list[int] = []
    for position in range(1, len(columns) + 1):
        full = position == len(columns) or widths[0] + sum(BETWEEN + widths[at] for at in [*taken, position]) > width
        if full and taken:
            chosen = [0, *taken]
            show_table(console, [columns[at] for at in chosen], [[row[at] for at in chosen] for row in cells])
            taken = []
        taken.append(position)


def _show_splits(console: Console, info: DataInfo) -> None:
    total = sum(info.rows.values())
    columns = ["split", "rows", "share"]
    rows = [[split, count(size), share(size / total)] for split, size in info.rows.items()]
    if info.duplicates is not None:
        columns += ["distinct", "repeated", "conflicting"]
        for row in rows:
            found = info.duplicates[row[0]]
            row += [count(value) for value in (found.distinct, found.repeated, found.conflicting)]
    title = "splits"
    if info.duplicates is not None:
        title += " (rows by inputs: distinct, repeated, with conflicting labels)"
    _table(console, title, columns, rows)
    _show_shared(console, info)


def _show_shared(console: Console, info: DataInfo) -> None:
    """Rows whose inputs occur in an earlier split."""
    rows = []
    for split, found in (info.duplicates or {}).items():
        for earlier, counts in (
            ("train", (found.leaked, found.leaked_share, found.leaked_same)),
            ("valid", (found.in_valid, found.in_valid_share, found.in_valid_same)),
        ):
            if counts[0] is not None:
                rows.append([split, earlier, count(counts[0]), share(counts[1]), count(counts[2])])
    columns = ["rows of", "with the inputs of a row of", "rows", "share", "with its labels"]
    _table(console, "rows of one split in another", columns, rows)


def _show_tasks(console: Console, info: DataInfo) -> None:
    columns = ["task", "split", "observed", "positives", "rate", "± standard error", "AUC's standard error"]
    found = [(task.name, split, one) for task in info.tasks for split, one in task.splits.items()]
    rows = [
        [
            name,
            split,
            count(one.observed),
            count(one.positives),
            share(one.rate),
            share(one.rate_error, 3),
            decimal(one.auc_error, 4),
        ]
        for name, split, one in found
        if one.positives is not None
    ]
    _table(console, "tasks (the last column: of an AUC of 0.7 at that many positives)", columns, rows)
    rows = [
        [name, split, count(one.observed), number(one.mean), number(one.std)]
        for name, split, one in found
        if one.positives is None
    ]
    _table(console, "regression tasks", ["task", "split", "observed", "mean", "standard deviation"], rows)


def _show_pairs(console: Console, info: DataInfo) -> None:
    names = list(dict.fromkeys(pair.task for pair in info.pairs))
    for split in info.rows:
        found = {(pair.task, pair.other): _pair(pair) for pair in info.pairs if pair.split == split}
        rows = [[row, *(found.get((row, column), "100") for column in names)] for row in names]
        title = f"tasks together in {split}: P(row = 1 | column = 1) in %, and phi in brackets"
        _table(console, title, ["", *names], rows)
    chained = [
        [f"{pair.task} after {pair.other}", pair.split, count(pair.both), count(pair.violations)]
        for pair in info.pairs
        if pair.violations is not None
    ]
    _table(console, "chain of tasks", ["chain", "split", "observed in both", "rows that break it"], chained)


def _pair(pair: PairInfo) -> str:
    places = 1 if pair.given is not None and pair.given >= SMALL else 2
    given = None if pair.given is None else 100 * pair.given
    return f"{decimal(given, places)} ({decimal(pair.phi)})"


def _show_fields(console: Console, info: DataInfo) -> None:
    splits = list(info.rows)
    columns = ["field", "type", "file", "vocabulary", "rare", "missing, %", "known, %"]
    rows = [
        [
            field.name,
            field.kind,
            field.table,
            count(field.vocabulary or None),
            count(field.rare or None),
            _shares([field.splits[split].missing for split in splits]),
            _shares([field.splits[split].coverage for split in splits[1:]]),
        ]
        for field in info.fields
    ]
    title = f"fields (missing: {' / '.join(splits)}; known: values whose token has an id, {' / '.join(splits[1:])})"
    _table(console, title, columns, rows)
    columns = ["field", "effective", "top 1 %", "most frequent tokens"]
    title = "tokens in training (effective: exp of the entropy; top 1 %: share of the values on them)"
    shown = [field for field in info.fields if field.tokens is not None]
    width = _last_width([field.name for field in shown], 11, 7)
    _table(console, title, columns, [_token_row(field, width) for field in shown])
    _show_numbers(console, info.fields)
    _show_lengths(console, info.fields)


def _shares(values: Sequence[float | None]) -> str:
    return " / ".join(share(value).rstrip("%") for value in values)


def _token_row(field: FieldInfo, width: int) -> list[str]:
    assert field.tokens is not None
    tokens = field.tokens
    top = [f"{clipped(name, LONGEST_TOKEN)} {share(part, 1)}" for name, part in tokens.top]
    return [field.name, decimal(tokens.effective, 1), share(tokens.top_percent_share), _joined(top, width)]


def _last_width(names: Iterable[str], *others: int) -> int:
    """Width left for the last column, beside the names and the columns of the other widths."""
    longest = max((len(clipped(name, LONGEST)) for name in names), default=0)
    return WIDTH - longest - sum(others) - BETWEEN * (1 + len(others))


def _joined(parts: Sequence[str], width: int) -> str:
    """As many parts as fit."""
    text = ""
    for part in parts:
        longer = f"{text}, {part}" if text else part
        if len(longer) > width:
            break
        text = longer
    return text


def _show_numbers(console: Console, fields: Sequence[FieldInfo]) -> None:
    columns = ["field", "split", "mean", "std", "smallest", "1 %", "median", "99 %", "largest"]
    rows = []
    for field in fields:
        for split, found in (field.numbers or {}).items():
            quantiles = found.quantiles or (None,) * 5
            shown = (found.mean, found.std, found.smallest, quantiles[0], quantiles[2], quantiles[4], found.largest)
            rows.append([field.name, split, *(number(value, 4) for value in shown)])
    _table(console, "numbers", columns, rows)
    for field in fields:
        for split, found in (field.numbers or {}).items():
            if found.clipped:
                say(console, f"- {field.name}, {split}: {count(found.clipped)} values count as the field's clip")


def _show_lengths(console: Console, fields: Sequence[FieldInfo]) -> None:
    columns = ["field", "split", "mean", "median", "95 %", "longest", "values"]
    rows = [
        [
            field.name,
            split,
            decimal(found.mean, 1),
            *(count(value) for value in (found.median, found.p95, found.longest, field.splits[split].values)),
        ]
        for field in fields
        for split, found in (field.lengths or {}).items()
    ]
    _table(console, "lengths of lists, over the rows", columns, rows)


def _show_alone(console: Console, info: DataInfo) -> None:
    found = sorted(info.single_field_auc or (), key=lambda one: -one.auc)
    tasks = [task.name for task in info.tasks if any(one.task == task.name for one in found)]
    best = {
        task: [f"{clipped(one.field, LONGEST)} {one.auc:.3f}" for one in found if one.task == task][:BEST]
        for task in tasks
    }
    rows = [[task, _joined(best[task], _last_width(tasks))] for task in tasks]
    title = f"each field alone, on {count(info.sampled_rows)} training rows"
    _table(console, title, ["task", "best AUCs"], rows)
