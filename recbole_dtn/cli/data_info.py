"""``data info`` on the terminal: several narrow tables; JSON and a page on request."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from recbole_dtn.cli.arguments import parse
from recbole_dtn.cli.console import make_console, say, show_table
from recbole_dtn.cli.progress import progress_meter
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import DataError, UsageError

if TYPE_CHECKING:
    from recbole_dtn.data.info.report import DataInfo, FieldInfo

__all__ = ["HELP", "run"]

WIDTH = 100
LONGEST = 24
LONGEST_TOKEN = 12
BEST = 5
NONE = "–"

HELP = """\
python run_recbole_dtn.py data info --dataset=NAME [--quick] [--json=FILE|-] [--html=FILE] [settings of the data]

What a data set holds, in tables of at most 100 columns:
  splits        rows; rows with the same inputs within a split (with other labels, too), and rows of valid and test whose
                inputs are those of a training row
  tasks         observed rows, positives, their rate and its standard error; the standard error of an AUC of 0.7 at that
                many positives, so the differences that a split can show; how the tasks occur together
  fields        type, file, vocabulary, share of missing values, share of values whose token has an id; the most frequent
                tokens and how concentrated they are; moments and quantiles of numbers; lengths of lists
  fields alone  the fields that tell a task apart best on their own, in training
  warnings      fields without information, fields mostly unseen in training, inputs that may be outcomes, leaks,
                rows that break the chain of tasks

Everything is counted on the encoded data: duplicates compare ids, so that all tokens unknown to training are the same,
and numbers as float32. The data set is encoded first where its cache is missing. Settings of the data (--split,
--split_ratio, --limit_rows, --min_count, --cache_dir, ...) are taken as for training.

  --quick        leave out duplicates and the fields alone
  --json=FILE    everything as JSON too (recbole_dtn.data.info.report says what the keys mean); - prints it and no table
  --html=FILE    one page with plots, which needs no network
"""


def run(words: list[str]) -> int:
    """Inspect a data set."""
    parsed = parse(words, values=("json", "html"), flags=("quick",), settings=True)
    if parsed.words:
        raise UsageError(f"data info: unexpected word {parsed.words[0]!r}; the data set goes in --dataset=NAME")
    targets = {name: parsed.values[name] for name in ("json", "html") if name in parsed.values}
    for name, target in targets.items():
        _check_target(name, target)
    settings = resolve(parsed.settings).settings
    from recbole_dtn.data.datamodule import prepare
    from recbole_dtn.data.info.inspect import inspect

    to_pipe = targets.get("json") == "-"
    console = make_console()
    notes = Console(stderr=True, highlight=False) if to_pipe else console
    with progress_meter(Console(stderr=True)) as meter:
        prepared = prepare(settings, log=lambda text: say(notes, text))
        info = inspect(prepared, dataset=settings.dataset, quick="quick" in parsed.flags, meter=meter)
    if not to_pipe:
        show(console, info)
    if "json" in targets:
        _write_json(info, targets["json"])
    if "html" in targets:
        from recbole_dtn.data.info.page import page

        _write(Path(targets["html"]), page(info))
        say(notes, f"\nwrote {targets['html']}")
    return 0


def _check_target(name: str, target: str) -> None:
    """Before anything is read, so that a long count is not in vain."""
    if name == "json" and target == "-":
        return
    path = Path(target)
    if target == "-" or path.is_dir():
        raise UsageError(f"--{name}: expected the name of a file; found {target!r}")
    if not path.parent.is_dir():
        raise UsageError(f"--{name}: there is no folder {path.parent}")


def _write_json(info: DataInfo, target: str) -> None:
    from recbole_dtn.data.info.report import to_json

    text = json.dumps(to_json(info), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        _write(Path(target), text)


def _write(path: Path, text: str) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        os.replace(name, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None


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
    """A table, cut into several side by side columns where it would be wider than 100; the first column is repeated."""
    cells = [[_clipped(row[0], LONGEST), *row[1:]] for row in rows]
    if not cells:
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    say(console, f"\n{title}")
    taken: list[int] = []
    for position in range(1, len(columns) + 1):
        full = position == len(columns) or widths[0] + sum(2 + widths[at] for at in [*taken, position]) > WIDTH
        if full and taken:
            chosen = [0, *taken]
            show_table(console, [columns[at] for at in chosen], [[row[at] for at in chosen] for row in cells])
            taken = []
        taken.append(position)


def _show_splits(console: Console, info: DataInfo) -> None:
    total = sum(info.rows.values())
    columns = ["split", "rows", "share"]
    rows = [[split, f"{count:,}", _share(count / total)] for split, count in info.rows.items()]
    if info.duplicates is not None:
        columns += ["distinct inputs", "repeated", "labels conflict", "inputs in train", "labels too"]
        for row in rows:
            found = info.duplicates[row[0]]
            row += [f"{count:,}" for count in (found.distinct, found.repeated, found.conflicting)]
            row += [NONE if count is None else f"{count:,}" for count in (found.leaked, found.leaked_same)]
    _table(console, "splits", columns, rows)


def _show_tasks(console: Console, info: DataInfo) -> None:
    columns = ("task", "split", "observed", "positives", "rate", "± standard error", "AUC's standard error")
    rows = [
        (
            task.name,
            split,
            f"{found.observed:,}",
            f"{found.positives:,}",
            _share(found.rate),
            _share(found.rate_error, 3),
        )
        + (NONE if found.auc_error is None else f"{found.auc_error:.4f}",)
        for task in info.tasks
        for split, found in task.splits.items()
        if found.positives is not None
    ]
    _table(console, "tasks (the last column: of an AUC of 0.7 at that many positives)", columns, rows)
    rows = [
        (task.name, split, f"{found.observed:,}", _number(found.mean), _number(found.std))
        for task in info.tasks
        for split, found in task.splits.items()
        if found.positives is None
    ]
    _table(console, "regression tasks", ("task", "split", "observed", "mean", "standard deviation"), rows)


def _show_pairs(console: Console, info: DataInfo) -> None:
    names = list(dict.fromkeys(pair.task for pair in info.pairs))
    for split in info.rows:
        found = {(pair.task, pair.other): pair for pair in info.pairs if pair.split == split}
        rows = [
            [
                row,
                *(
                    f"{_share(found[row, column].given)} ({_phi(found[row, column].phi)})" if row != column else "1"
                    for column in names
                ),
            ]
            for row in names
        ]
        title = f"tasks together in {split}: P(row = 1 | column = 1), and phi in brackets"
        _table(console, title, ("", *names), rows)
    chained = [
        (f"{pair.task} after {pair.other}", pair.split, f"{pair.both:,}", f"{pair.violations:,}")
        for pair in info.pairs
        if pair.violations is not None
    ]
    _table(console, "chain of tasks", ("chain", "split", "observed in both", "rows that break it"), chained)


def _show_fields(console: Console, info: DataInfo) -> None:
    splits = list(info.rows)
    columns = ["field", "type", "file", "vocabulary", "rare", *(f"missing {split}" for split in splits)]
    columns += [f"known {split}" for split in splits[1:]]
    rows = [
        [
            field.name,
            field.kind,
            field.table,
            f"{field.vocabulary:,}" if field.vocabulary else NONE,
            f"{field.rare:,}" if field.rare else NONE,
            *(_share(field.splits[split].missing) for split in splits),
            *(_share(field.splits[split].coverage) for split in splits[1:]),
        ]
        for field in info.fields
    ]
    _table(console, "fields (known: values whose token has an id)", columns, rows)
    heading = ("field", "effective", "top 1 %", *(f"token {rank}" for rank in range(1, 6)))
    title = "tokens in training (effective: exp of the entropy; top 1 %: share of values on the most frequent tokens)"
    _table(console, title, heading, [_token_row(field) for field in info.fields if field.tokens is not None])
    _show_numbers(console, info.fields)


def _token_row(field: FieldInfo) -> list[str]:
    assert field.tokens is not None
    tokens = field.tokens
    top = [f"{_clipped(name, LONGEST_TOKEN)} {share:.1%}" for name, share in tokens.top]
    effective = NONE if tokens.effective is None else f"{tokens.effective:,.1f}"
    return [field.name, effective, _share(tokens.top_percent_share), *top, *[""] * (5 - len(top))]


def _show_numbers(console: Console, fields: Sequence[FieldInfo]) -> None:
    columns = ("field", "split", "mean", "std", "smallest", "1 %", "median", "99 %", "largest")
    rows = []
    for field in fields:
        for split, found in (field.numbers or {}).items():
            quantiles = found.quantiles or (None,) * 5
            shown = (found.mean, found.std, found.smallest, quantiles[0], quantiles[2], quantiles[4], found.largest)
            rows.append([field.name, split, *(_number(value) for value in shown)])
    _table(console, "numbers", columns, rows)
    columns = ("field", "split", "mean", "median", "95 %", "longest", "values")
    rows = [
        [field.name, split, f"{found.mean:,.2f}", f"{found.median:,}", f"{found.p95:,}", f"{found.longest:,}"]
        + [f"{field.splits[split].values:,}"]
        for field in fields
        for split, found in (field.lengths or {}).items()
    ]
    _table(console, "lengths of lists, over the rows", columns, rows)


def _show_alone(console: Console, info: DataInfo) -> None:
    if not info.single_field_auc:
        return
    tasks = list(dict.fromkeys(found.task for found in info.single_field_auc))
    best = {
        task: sorted((f for f in info.single_field_auc if f.task == task), key=lambda f: -f.auc)[:BEST]
        for task in tasks
    }
    rows = [[task, *(f"{_clipped(f.field, 14)} {f.auc:.3f}" for f in best[task])] for task in tasks]
    rows = [[*row, *[""] * (1 + BEST - len(row))] for row in rows]
    columns = ["task", "best field, AUC", *("",) * (BEST - 1)]
    _table(console, f"each field alone, on {info.sampled_rows:,} training rows", columns, rows)


def _share(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}%}"


def _phi(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.5g}"


def _clipped(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
