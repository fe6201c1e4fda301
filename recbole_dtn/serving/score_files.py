"""Predictions in files, held against labels in a file or against a run on its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.metric.paired import LEAST_DRAWS
from recbole_dtn.preprocess.plain import FILE_NAME, ROW
from recbole_dtn.registry import load_plugins
from recbole_dtn.report.files import read_json
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.evaluate import Report, evaluate_labelled
from recbole_dtn.serving.given import Floats, Labelled, domain_numbers, numbered_groups, one_column, task_columns
from recbole_dtn.serving.load import LoadedRun, load

__all__ = ["LabelColumns", "evaluate_files"]


@dataclass(frozen=True)
class LabelColumns:
    """Which columns of the file of labels are what; None: as ``export.json`` beside it says, or none.

    Attributes:
        key: joins predictions to labels; None: ``row`` where both files have it, else the order of the rows.
        tasks: the labels. regression: the tasks that are one.
    """

    key: str | None = None
    tasks: tuple[str, ...] | None = None
    regression: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    domain: str | None = None


def evaluate_files(
    predictions: Sequence[str | Path],
    labels: str | Path | None = None,
    runs: Sequence[str | Path] = (),
    *,
    columns: LabelColumns = LabelColumns(),
    logits: bool = False,
    metrics: Sequence[Any] | None = None,
    draws: int = LEAST_DRAWS,
    seed: int = 2020,
    plugins: Sequence[str] = (),
    trust: bool = False,
    **moved: Any,
) -> Report:
    """:func:`recbole_dtn.evaluate` of files (Parquet, CSV, TSV) and of finished runs.

    Args:
        predictions: files with a column per task. labels: file with the labels; not with ``runs``, whose test rows
            and labels are taken. runs: folders of runs on the same data; the first of them, or else the first file, is
            what all others are compared with.
        columns: of the files. logits: whether the files hold logits. metrics, draws, seed: as ``evaluate``.
        plugins, trust: which plug-in files of the runs may be run, as in :func:`recbole_dtn.load`.
        moved: settings of paths for the runs.

    Raises:
        UsageError, DataError: for what does not fit together; file, column and row are named.
    """
    if bool(runs) == (labels is not None):
        raise UsageError("evaluate: expected --labels or --run (whose test rows are taken), and not both")
    if not predictions and not runs:
        raise UsageError("evaluate: expected --predictions; found none")
    load_plugins(plugins)  # a metric of the user's own, also without a run
    _refuse_twice([*runs, *predictions])
    names = _names([*runs, *predictions])
    loaded = [load(folder, plugins=plugins, trust=trust, **moved) for folder in runs]
    key: str | None
    keys: pl.Series | None
    if labels is None:
        key, keys, known = _against_run(loaded[0], columns)
    else:
        columns = _described(Path(labels), columns)
        key, keys, known = _read_labels(read_table(Path(labels)), Path(labels), columns, predictions)
    scores = {}
    for name, run in zip(names, loaded, strict=False):
        if run.record.data_fingerprint != loaded[0].record.data_fingerprint:
            raise UsageError(f"evaluate: run {name!r} has other data or another split than {names[0]!r}")
        scores[name] = _scores_of_run(run, known)
    for name, file in zip(names[len(loaded) :], predictions, strict=True):
        scores[name] = _read_scores(Path(file), known, key, keys)
    raw = {name: logits if place >= len(loaded) else True for place, name in enumerate(names)}
    return evaluate_labelled(scores, known, metrics=metrics, logits=raw, draws=draws, seed=seed)


def _refuse_twice(files: Sequence[str | Path]) -> None:
    """Refuse a file or run that is named twice.

    Raises:
        UsageError: naming it.
    """
    seen: dict[Path, str | Path] = {}
    for file in files:
        if Path(file).resolve() in seen:
            raise UsageError(f"evaluate: {file} is named twice; leave one out")
        seen[Path(file).resolve()] = file


def _names(files: Sequence[str | Path]) -> list[str]:
    """A short name of each: its own without the ending, or its path where two are the same."""
    short = [Path(file).name if Path(file).is_dir() else Path(file).name.partition(".")[0] for file in files]
    return [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]


# ---- runs -----------------------------------------------------------------------------------------------------------


def _against_run(run: LoadedRun, columns: LabelColumns) -> tuple[str, pl.Series, Labelled]:
    """The key, row numbers and labels of the test split of a run."""
    if columns.key not in (None, ROW):
        raise UsageError(
            f"evaluate: with --run rows are joined by {ROW!r}, of `data split --export`; found {columns.key!r}"
        )
    parts: dict[str, list[Any]] = {}
    for batch in run.batches():
        labels = torch.where(batch.observed, batch.labels.double(), torch.nan)
        given = {"row": batch.row, "labels": labels, "groups": batch.group, "weights": batch.sample_weight}
        for name, value in {**given, "domain": batch.domain}.items():
            if value is not None:
                parts.setdefault(name, []).append(value.numpy())
    whole: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
    rows = pl.Series(ROW, whole.pop("row"))
    if "weights" in whole:
        whole["weights"] = whole["weights"].astype(np.float64)
    places = _places(run, columns.tasks or run.model.schema.task_names)
    whole["labels"] = whole["labels"][:, places]
    return ROW, rows, Labelled(tuple(run.model.schema.tasks[place] for place in places), **whole, key=rows)


def _places(run: LoadedRun, tasks: Sequence[str]) -> list[int]:
    """The columns of tasks among those of a run."""
    names = run.model.schema.task_names
    missing = [name for name in tasks if name not in names]
    if missing:
        raise UsageError(f"evaluate: a run has no task {missing[0]!r}; {nearest(missing[0], names)}")
    return [names.index(name) for name in tasks]


def _scores_of_run(run: LoadedRun, known: Labelled) -> Floats:
    """(N, T) logits of the chosen tasks."""
    logits = torch.cat([output.logits.double() for _, output in run.outputs()])
    return logits[:, _places(run, [task.name for task in known.tasks])].numpy()


# ---- files ----------------------------------------------------------------------------------------------------------


def read_table(path: Path, rows: int | None = None) -> pl.DataFrame:
    """A Parquet, CSV or TSV file (``.csv.gz`` too); its first ``rows`` rows.

    Raises:
        UsageError: for a file that is missing or of another kind. DataError: for one that cannot be read, or two
            columns of one name.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise UsageError(f"evaluate: {path}: {what}; expected a .parquet, .csv or .tsv file")
    kind = path.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    try:
        if kind == "parquet":
            return pl.read_parquet(path, n_rows=rows)
        if kind in ("csv", "tsv"):
            separator = "," if kind == "csv" else "\t"
            frame = pl.read_csv(path, separator=separator, infer_schema_length=None, n_rows=rows)
            _refuse_same_names(path, frame.columns)
            return frame
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from None
    raise UsageError(f"evaluate: {path}: expected .parquet, .csv or .tsv")


def _refuse_same_names(path: Path, columns: Sequence[str]) -> None:
    """Refuse two columns of one name, of which polars renames the second."""
    for name in columns:
        first, mark, _ = name.rpartition("_duplicated_")
        if mark and first in columns:
            raise DataError(f"{path}, line 1: two columns are named {first!r}: rename or remove one")


def read_header(path: Path) -> list[str]:
    """The names of a file's columns."""
    return read_table(path, rows=0).columns


def _described(labels: Path, columns: LabelColumns) -> LabelColumns:
    """``columns`` with what ``export.json`` beside the labels says."""
    file = labels.parent / FILE_NAME
    if not file.is_file():
        return columns
    found = read_json(file)
    names = ("group", "weight", "domain")
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("tasks"), dict)
        or any(name not in found or not isinstance(found[name], str | None) for name in names)
    ):
        raise DataError(
            f"{file}: expected the description that `data split --export` writes, with the keys tasks (a map), "
            f"{', '.join(names)}; export again, or move it away and name the columns by options"
        )
    tasks = columns.tasks or tuple(found["tasks"])
    given = {name: getattr(columns, name) or found[name] for name in names}
    kinds = tuple(name for name in tasks if found["tasks"].get(name) == "regression")
    return replace(columns, tasks=tasks, regression=columns.regression or kinds, key=columns.key, **given)


def _read_labels(
    frame: pl.DataFrame, path: Path, columns: LabelColumns, files: Sequence[str | Path]
) -> tuple[str | None, pl.Series | None, Labelled]:
    """The key, its values, and the labels, of which the files of predictions have a column each."""
    headers = [read_header(Path(file)) for file in files]
    key = columns.key
    if key is None and ROW in frame.columns:
        having = [ROW in names for names in headers]
        if any(having) and not all(having):
            raise UsageError(
                f"evaluate: {path} and {files[having.index(True)]} have the column {ROW!r}, by which rows are joined, "
                f"and {files[having.index(False)]} has not: add it there (without it in any file of predictions, rows "
                "are taken in the order of the labels)"
            )
        key = ROW if any(having) else None
    named = [name for name in (key, columns.group, columns.weight, columns.domain) if name is not None]
    for name in (*named, *(columns.tasks or ())):
        if name not in frame.columns:
            raise UsageError(f"{path}: no column {name!r}; {nearest(name, frame.columns)}")
    tasks = columns.tasks or tuple(
        name for name in frame.columns if name not in (*named, ROW) and all(name in names for names in headers)
    )
    if not tasks:
        raise UsageError(
            f"{path}: no column is in all files of predictions too, so none is known as a label: name them by --tasks; "
            f"found {', '.join(frame.columns)}"
        )
    for name in columns.regression:
        if name not in tasks:
            raise UsageError(f"evaluate: --regression={name} is no task; {nearest(name, tasks)}")
    specs = tuple(TaskSpec(name, "regression" if name in columns.regression else "binary", name) for name in tasks)
    parts = {name: frame[column] for name in ("group", "weight", "domain") if (column := getattr(columns, name))}
    _refuse_texts(frame, path, tasks, key)
    labelled = Labelled(
        specs,
        task_columns(frame, tasks, str(path))[1],
        numbered_groups(parts.get("group"), frame.height),
        one_column(parts.get("weight"), frame.height, f"{path}, weights"),
        domain_numbers(parts.get("domain"), frame.height),
        None if key is None else frame[key],
    )
    return key, None if key is None else frame[key], labelled


def _refuse_texts(frame: pl.DataFrame, path: Path, tasks: Sequence[str], key: str | None) -> None:
    """Refuse a column with texts among its numbers, by the first of them.

    Raises:
        DataError: naming file, task, value and row.
    """
    for name in tasks:
        if name not in frame.columns or frame[name].dtype != pl.String:
            continue
        texts = frame[name]
        wrong = (texts.is_not_null() & texts.str.strip_chars().cast(pl.Float64, strict=False).is_null()).arg_true()
        if len(wrong):
            place = wrong[0]
            row = f"row {place:,} (counted from 0)" if key is None else f"{key} {frame[key][place]}"
            raise DataError(f"{path}, task {name!r}: expected numbers; found {texts[place]!r} in {row}")


def _read_scores(path: Path, labelled: Labelled, key: str | None, keys: pl.Series | None) -> Floats:
    """(N, T) predictions in the order of the labels."""
    frame, tasks = read_table(path), [task.name for task in labelled.tasks]
    if key is not None:
        if key not in frame.columns:
            raise UsageError(f"{path}: no column {key!r}, by which rows are joined; {nearest(key, frame.columns)}")
        assert keys is not None
        frame = _joined(frame, path, key, keys)
    elif frame.height != len(labelled.labels):
        raise DataError(
            f"{path}: expected {len(labelled.labels):,} rows, in the order of the labels; found {frame.height:,} "
            "(name a column of both files by --key to join them)"
        )
    rest = [name for name in frame.columns if name not in (key, ROW)]
    if len(tasks) == 1 and len(rest) == 1:  # then the name says nothing
        frame = frame.rename({rest[0]: tasks[0]})
    _refuse_texts(frame, path, tasks, key)
    return task_columns(frame, tasks, str(path))[1]


def _whole(keys: pl.Series) -> pl.Series:
    """Numbers as integers where all are whole (1.0 is 1, as other tools write it); else as they are."""
    if not keys.dtype.is_float():
        return keys
    integers = keys.cast(pl.Int64, strict=False)
    return integers if (integers == keys).all() and not keys.null_count() else keys


def _joined(frame: pl.DataFrame, path: Path, key: str, keys: pl.Series) -> pl.DataFrame:
    """The rows of ``frame`` in the order of ``keys``."""
    own = frame[key]
    if own.dtype.is_float() != keys.dtype.is_float():
        own, keys = _whole(own), _whole(keys)
    if own.dtype != keys.dtype:
        same = pl.Int64 if own.dtype.is_integer() and keys.dtype.is_integer() else pl.String
        own, keys = own.cast(same), keys.cast(same)
    for values, where in ((own, str(path)), (keys, "the labels")):
        twice = values.filter(values.is_duplicated())
        if len(twice):
            raise DataError(f"{where}: {key} {twice[0]!r} occurs more than once ({len(twice):,} such rows)")
    for one, other, where in ((keys, own, "no prediction"), (own, keys, "no label")):
        alone = one.filter(~one.is_in(other))
        if len(alone):
            raise DataError(f"{path}: {where} for {len(alone):,} of {len(one):,} rows (first: {key} {alone[0]!r})")
    wanted = pl.DataFrame({key: keys})
    return wanted.join(frame.with_columns(own.alias(key)), on=key, how="left", maintain_order="left")
