"""``python run_recbole_dtn.py evaluate``: metrics and paired tests of predictions in files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from recbole_dtn.cli.arguments import Command, split_words, whole
from recbole_dtn.cli.help_text import PROGRAM
from recbole_dtn.plugins import plugin_warnings
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import decimal, p_value

if TYPE_CHECKING:
    from recbole_dtn.serving.evaluate import Comparison, Report

__all__ = ["help_text", "run"]

COMMAND = Command(
    "evaluate",
    usage=[
        "--predictions=A.csv,B.parquet --labels=test.parquet [options]",
        "--predictions=A.csv --run=FOLDER [options]",
    ],
    about="""
Exact metrics of predictions that any tool made, with standard errors, and paired tests of all others against the first
(the first run; without a run, the first file). A file has a column per task; Parquet, CSV and TSV are read. Labels are
in a file too, or are those of a run's test rows. `data split --export` writes the rows of a data set's splits, with a
number `row` by which predictions come back.
""",
    after=f"""
  {PROGRAM} data split --dataset=ml-100k --export=rows
  {PROGRAM} evaluate --predictions=mine.csv --run=runs/ml-100k/MMoE/...
""",
    place="files go in --predictions=A,B",
)
COMMAND.option("predictions", "A,B", "files with a column per task, and the key")
COMMAND.option("labels", "FILE", "file with the labels; an empty cell is a label that is not observed")
COMMAND.option("run", "FOLDER", "a run, or several, in place of labels: rows and labels are those of its test split")
COMMAND.option("key", "COLUMN", "joins predictions to labels; default: row if both have it, else the order of the rows")
COMMAND.option("tasks", "A,B", "columns of the tasks; default: those of export.json, or those that all files have")
COMMAND.option("regression", "A,B", "tasks whose label is a number and not 0 or 1")
COMMAND.option("group", "COLUMN", "column of the labels, such as users, by which errors and tests are clustered")
COMMAND.option("weight", "COLUMN", "column of the labels: sample weights")
COMMAND.option("domain", "COLUMN", "column of the labels: domains, for metrics that need them")
COMMAND.option("metrics", "A,B", "metrics to compute; default: all that apply")
COMMAND.flag("logits", "the files hold logits, not probabilities")
COMMAND.option(
    "draws", "N", "draws of the bootstrap, for metrics other than AUC; 0: no test of these", default=2000, kind=whole
)
COMMAND.option("seed", "N", "seed of the draws", default=2020, kind=whole)
COMMAND.flag("json", "print metrics, comparisons and counts as JSON, with every digit; null where one is undefined")
COMMAND.option("data_path", "FOLDER", "where a run's data is now, if it has moved")
COMMAND.option("cache_dir", "FOLDER", "where its encoded caches are now")
COMMAND.option("plugins", "a.py,b.py", "plug-in files that may be run: those of the runs, or with metrics of your own")
COMMAND.flag("trust", "run every plug-in file that a run's folder names")


def help_text(words: list[str]) -> str:
    """How to call it."""
    return COMMAND.help_text()


def run(words: list[str]) -> int:
    """Read the files, evaluate, print."""
    given = COMMAND.parse(words)
    from recbole_dtn.serving.score_files import LabelColumns, evaluate_files

    moved = {key: getattr(given, key) for key in ("data_path", "cache_dir") if getattr(given, key) is not None}
    lists = {
        name: split_words(getattr(given, name) or "")
        for name in ("predictions", "run", "tasks", "regression", "metrics", "plugins")
    }
    columns = LabelColumns(
        given.key, tuple(lists["tasks"]) or None, tuple(lists["regression"]), given.group, given.weight, given.domain
    )
    with plugin_warnings():
        found = evaluate_files(
            lists["predictions"],
            given.labels,
            lists["run"],
            columns=columns,
            logits=given.logits,
            metrics=lists["metrics"] or None,
            draws=given.draws,
            seed=given.seed,
            plugins=lists["plugins"],
            trust=given.trust,
            **moved,
        )
    if given.json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        _print(found)
    return 0


def _print(found: Report) -> None:
    from recbole_dtn.training.report import metric_rows

    console = make_console()
    for task, counts in found.counts.items():
        positives = f", {counts['positives']:,} positives" if "positives" in counts else ""
        groups = f", in {counts['groups']:,} groups" if "groups" in counts else ""
        say(console, f"{task}: {counts['rows']:,} rows{positives}{groups}")
    for name, metrics in found.metrics.items():
        say(console, f"\n{name}")
        show_table(console, *metric_rows(metrics), numbers=True)
    if found.comparisons:
        reference = found.comparisons[0].second
        say(console, f"\ndifferences from {reference}")
        columns = ["", "task", "metric", "difference ± s.e.", "95 % interval", "p", "p (Holm)", "by"]
        show_table(console, columns, [_cells(test) for test in found.comparisons])


def _cells(test: Comparison) -> list[str]:
    from recbole_dtn.training.report import METRIC_NAMES

    return [
        test.first, test.task, METRIC_NAMES.get(test.metric, test.metric.upper()),
        f"{decimal(test.difference, 4)} ± {decimal(test.standard_error, 4)}",
        f"{decimal(test.low, 4)} to {decimal(test.high, 4)}",
        p_value(test.p, 4), p_value(test.p_holm, 4), test.method,
    ]  # fmt: skip
