"""``python run_recbole_dtn.py predict --run=FOLDER``: scores of the rows of files, by a finished run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import Command, split_words, whole
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.errors import UsageError
from recbole_dtn.plugins import plugin_warnings
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.files import check_place
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import count, share

if TYPE_CHECKING:
    from rich.console import Console

    from recbole_dtn.serving.predict import FieldCounts, Scored

__all__ = ["help_text", "run", "show_fields"]

COMMAND = Command(
    "predict",
    usage=[
        "--run=FOLDER --input=FILES --output=FILE [options]",
        "--run=FOLDER --users=FILES --candidates=FILES --k=20 --score=FORMULA --output=FILE [options]",
    ],
    about="""
A row of scores for every row of the input, in its order: a column per task, the probability of a binary one and the
value of a regression. Files are Parquet, CSV, TSV (text also .gz, .zst), or atomic files (.inter, with .user and .item
beside it); `-` is the standard input, of text. They are read in blocks: memory does not grow with the rows. A column
per field of the run is expected, with values as `data split --export` writes them; others are ignored.

Ids that training did not show are scored as unknown ones, missing values as missing; both are counted per field. A row
that cannot be read, or a number that is none, is an error that names the file and the line, and no file is written.

With --users and --candidates, every pair is scored, and the k best candidates of each user are written, best first:
the kept columns, `rank`, the tasks and `score`. Each field of the run is a column of one of the two tables; what
belongs to the request (an hour, a device) is one of the users. The candidates are held in memory.
""",
    after=f"""
  {PROGRAM} predict --run=runs/mine/DTN/... --input='new/*.parquet' --output=scores.parquet --keep=user_id,item_id
  {PROGRAM} predict --run=runs/mine/DTN/... --users=users.parquet --candidates=items.parquet --k=20 \\
      --score='click * buy' --output=top.parquet
  zcat today.csv.gz | {PROGRAM} predict --run=runs/mine/DTN/... --input=- --output=- > scores.csv
""",
    place="files go in --input=A,B",
)
COMMAND.option("run", "FOLDER", "a run's folder, as printed at its end", required=True)
COMMAND.option("input", "FILES", "files with commas between, patterns in quotes ('logs/*.parquet'), or -")
COMMAND.option(
    "output", "FILE", "the scores: .parquet, .csv or .tsv (text also .gz, .zst), or - for CSV", required=True
)
COMMAND.option(
    "keep",
    "A,B",
    "columns that are passed on, such as ids; '*': all of --input. Of users and candidates: the first of each",
)
COMMAND.flag("labels", "compute the run's metrics too; the input then has the columns of the tasks' labels")
COMMAND.flag("logits", "write the logits too, as <task>_logit")
COMMAND.option(
    "score", "FORMULA", "value of a formula over tasks and number columns, the column score: 'click * buy ** 0.5'"
)
COMMAND.option("users", "FILES", "users, a row each; with --candidates")
COMMAND.option("candidates", "FILES", "candidates, such as items, a row each; with --users")
COMMAND.option("k", "N", "how many candidates of each user are written", kind=whole)
COMMAND.option("exclude", "FILES", "pairs of --users and --candidates that are left out, such as what was bought")
COMMAND.option("join", "FILES", "tables of users or items, each joined by the first column that it shares")
COMMAND.option("spec", "FILE", "spec of `preprocess table` (reader, list_separator, fill, and the tasks of --labels)")
COMMAND.option("batch_size", "N", "rows scored at a time", default=8192, kind=whole)
COMMAND.option("threads", "N", "threads of the model on the CPU; default: all", kind=whole)
COMMAND.flag("overwrite", "replace the output")
COMMAND.flag("json", "print rows, counts and metrics as JSON, with every digit")
COMMAND.option("plugins", "a.py,b.py", "plug-in files that the run used")
COMMAND.flag("trust", "run the plug-in files that the run's folder names")


def help_text(words: list[str]) -> str:
    """How to call it."""
    return COMMAND.help_text()


def run(words: list[str]) -> int:
    """Load the run, score, write, tell what was unknown."""
    given = COMMAND.parse(words)
    ranked = _ranked(given)
    if given.threads is not None and given.threads < 1:
        raise UsageError(f"--threads: expected at least 1; found {given.threads}")
    if given.output != "-":
        check_place(Path(given.output), f"--output={given.output}", file=True)
    from recbole_dtn.record.record import read_record

    read_record(Path(given.run))  # a wrong folder is an error before torch is imported
    import torch

    from recbole_dtn.data.progress import progress_meter
    from recbole_dtn.serving.load import load
    from recbole_dtn.serving.predict import score_files
    from recbole_dtn.training.signals import Signals

    if given.threads is not None:
        torch.set_num_threads(given.threads)
    # The standard output may be the scores.
    console = make_console(stderr=given.output == "-")
    with plugin_warnings():
        loaded = load(given.run, plugins=split_words(given.plugins or ""), trust=given.trust)
    # SIGTERM leaves no half of a file.
    with Signals(), progress_meter(console, show=not given.json) as meter:
        shared = {
            "keep": split_words(given.keep or ""),
            "score": given.score,
            "spec": None if given.spec is None else Path(given.spec),
            "batch_rows": given.batch_size,
            "overwrite": given.overwrite,
            "meter": meter,
        }
        if ranked:
            from recbole_dtn.serving.top import best_candidates

            found = best_candidates(
                loaded, given.users, given.candidates, given.output, k=given.k, exclude=given.exclude, **shared
            )
        else:
            found = score_files(
                loaded,
                given.input,
                given.output,
                labels=given.labels,
                logits=given.logits,
                join=given.join,
                **shared,
            )
    if given.json:
        say(console, json.dumps({"run": given.run, "output": given.output, **found.to_dict()}, indent=2))
        return 0
    show_fields(console, found)
    if found.metrics is not None:
        from recbole_dtn.training.report import metric_rows

        say(console, "")
        show_table(console, *metric_rows({**found.metrics, **found.factors}))
    scored, unit = (found.pairs, "pairs") if ranked else (found.rows, "rows")
    users = f"{found.rows:,} users, " if ranked else ""
    rate = scored / found.seconds if found.seconds else 0.0
    say(console, f"wrote {given.output}: {users}{scored:,} {unit} in {found.seconds:.1f} s ({rate:,.0f} {unit}/s)")
    return 0


def _ranked(given: argparse.Namespace) -> bool:
    """Whether the candidates of users are asked for.

    Raises:
        UsageError: for options that do not go together, or lack one.
    """
    asked = [name for name in ("users", "candidates", "k", "exclude") if getattr(given, name) is not None]
    if not asked:
        if given.input is None:
            raise UsageError("--input (or --users and --candidates) is needed; --help shows how")
        return False
    missing = [f"--{name}" for name in ("users", "candidates", "k") if name not in asked]
    if missing:
        raise UsageError(f"--{asked[0]} needs {' and '.join(missing)} too; --help shows how")
    for name in ("input", "join", "labels", "logits"):
        if getattr(given, name) not in (None, False):
            raise UsageError(f"--{name} does not go with --users and --candidates")
    return True


def show_fields(console: Console, found: Scored) -> None:
    """A table of the fields with something missing or unknown, and the notes."""
    rows = [
        [name, *_counted(counts, found.rows)]
        for name, counts in found.fields.items()
        if counts.missing or counts.unknown
    ]
    if rows:
        show_table(console, ["field", "rows without a value", "unknown values"], rows, numbers=True)
    for note in found.notes:
        say(console, f"note: {note}")


def _counted(counts: FieldCounts, rows: int) -> list[str]:
    shares = ((counts.missing, rows), (counts.unknown, counts.values))
    return [f"{count(some)} ({share(some / total)})" if some else "0" for some, total in shares]
