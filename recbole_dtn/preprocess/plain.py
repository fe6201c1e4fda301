"""The rows of our splits as plain tables with raw values, for any other tool."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.building import WRITING, locked_folder
from recbole_dtn.data.escape import unescape
from recbole_dtn.data.sources import PARTS, Sources
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.preprocess.prepare import PreparedData, Split, open_sources, prepare
from recbole_dtn.report.files import check_place, why_not_written

__all__ = ["FILE_NAME", "ROW", "export_splits"]

FILE_NAME = "export.json"
ROW = "row"
"""Column with the number of each row in the data set, by which predictions come back."""
Format = Literal["parquet", "csv"]


def export_splits(
    settings: Settings,
    folder: Path,
    *,
    form: Format = "parquet",
    log: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
) -> Path:
    """Write the splits of a data set as Parquet or CSV, and ``export.json``, which describes them.

    There are ``train``, ``valid`` and ``test``. A table has the column ``row``, the inputs with their raw values (of
    side tables too; those of a multi-valued field as a list, in a CSV with spaces between), the columns of the group,
    the domain and the sample weight, and a column per task with its label, null where it is not observed.
    ``LoadedRun.predict`` reads such a table.

    Args:
        settings: of the data set. folder: gets the files. form: of the files. log: told what was written.
        overwrite: replace the files of an earlier export, those of another ``form`` too.

    Raises:
        UsageError: for a task named like a column, and files that are there, without ``overwrite``.
        DataError: as :func:`prepare`, and where nothing can be written; the folder is then as it was.
    """
    files = {part: folder / f"{part}.{form}" for part in PARTS}
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; expected a folder that gets the tables, or a new one")
    check_place(folder, str(folder))
    there = [file for file in (*files.values(), folder / FILE_NAME) if file.exists()]
    if there and not overwrite:
        raise UsageError(f"{there[0]} exists: choose another folder, or give --overwrite")
    prepared = prepare(settings, log=log)
    sources = open_sources(settings)
    columns = _columns(settings)
    _refuse(prepared.schema.task_names, columns)
    text = json.dumps(_description(settings, prepared, form), indent=2, ensure_ascii=False)
    with _staged(folder) as work:
        for part, file in files.items():
            frame = _frame(prepared.splits[part], sources, columns, prepared.schema.task_names)
            _write(frame, work / file.name, form)
        (work / FILE_NAME).write_text(text + "\n", encoding="utf-8")
    for part, file in files.items():
        log(f"wrote {file} ({prepared.splits[part].rows:,} rows)")
    return folder


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """``with _staged(folder) as work``: the files of ``work`` move into ``folder`` when all are written.

    Tables of an earlier export in another form are removed then. A failure leaves ``folder`` as it was, or absent.

    Raises:
        DataError: where nothing can be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked_folder(folder, WRITING) as held:
            work = held / "files"
            work.mkdir()
            yield work
            if (folder / FILE_NAME).exists():  # without it, these are files of somebody else
                for part, form in product(PARTS, get_args(Format)):
                    (folder / f"{part}.{form}").unlink(missing_ok=True)
            # The description comes last: files without it are no export.
            for file in sorted(work.iterdir(), key=lambda path: path.name == FILE_NAME):
                os.replace(file, folder / file.name)
    except (OSError, pl.exceptions.PolarsError) as error:
        told = why_not_written(error, folder if folder.is_dir() else Path("."))
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise DataError(f"{folder}: cannot be written {told}; choose another folder for --export") from None


def _write(frame: pl.DataFrame, file: Path, form: Format) -> None:
    if form == "parquet":
        frame.write_parquet(file)
        return
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists).write_csv(file)


def _columns(settings: Settings) -> list[str]:
    """The inputs with their weights, then group, domain and sample weight, each once."""
    inputs = [column for spec in settings.fields for column in (spec.name, spec.weights)]
    rest = [settings.group_field, settings.domain_field, settings.weight_field]
    return list(dict.fromkeys(name for name in (*inputs, *rest) if name is not None))


def _refuse(tasks: tuple[str, ...], columns: list[str]) -> None:
    for name in (*tasks, ROW):
        if name in columns:
            what = "the number of each row" if name == ROW else f"the label of task {name!r}"
            raise UsageError(f"{name!r} names both an input and {what}: rename the column")


def _frame(split: Split, sources: Sources, columns: list[str], tasks: tuple[str, ...]) -> pl.DataFrame:
    rows = split.row_numbers()
    owners = {name: sources.owner(name, wanted_by="export") for name in columns}
    keys = [side.key for side in sources.sides if side.kind in owners.values()]
    own = list(dict.fromkeys([*(name for name in columns if owners[name] == "inter"), *keys]))
    frame = pl.concat([pl.DataFrame(schema={}), *_taken(sources, own, rows)], how="diagonal")
    for side in sources.sides:
        wanted = [name for name in columns if owners[name] == side.kind and name != side.key]
        if wanted:
            table = pl.concat([batch.frame for batch in side.table.batches([side.key, *wanted])])
            frame = frame.join(table, on=side.key, how="left", maintain_order="left")
    raw = [_raw(frame[name], sources.table(owners[name]).type_of(name)) for name in columns]
    stretch = slice(split.start, split.start + split.rows)
    labels, observed = split.store.labels[stretch], split.store.observed[stretch]
    answers = [
        pl.Series(name, labels[:, place].astype(np.float64)).set(pl.Series(~observed[:, place]), None)
        for place, name in enumerate(tasks)
    ]
    return pl.DataFrame([pl.Series(ROW, rows), *raw, *answers])


def _taken(sources: Sources, columns: list[str], rows: NDArray[np.int64]) -> Iterator[pl.DataFrame]:
    """The rows with the given numbers, which ascend."""
    before = 0
    if not columns:
        yield pl.DataFrame({ROW: rows})
        return
    for batch in sources.inter.batches(columns):
        first, last = np.searchsorted(rows, [before, before + batch.frame.height])
        yield batch.frame[(rows[first:last] - before).tolist()]
        before += batch.frame.height


def _raw(values: pl.Series, kind: str) -> pl.Series:
    """Values as the user had them, before the atomic file's escapes."""
    if kind == "float":
        return values
    if kind == "float_seq":
        return values.str.split(" ").list.eval(pl.element().cast(pl.Float64, strict=False))
    texts = values.str.split(" ") if kind == "token_seq" else values
    flat = texts.explode() if kind == "token_seq" else texts
    hostile = flat.filter(flat.str.contains("%", literal=True).fill_null(False)).unique()
    if not len(hostile):
        return texts
    plain = pl.Series([unescape(text) for text in hostile], dtype=pl.String)
    if kind == "token":
        return texts.replace(hostile, plain)
    return texts.list.eval(pl.element().replace(hostile, plain))


def _description(settings: Settings, prepared: PreparedData, form: str) -> dict[str, Any]:
    return {
        "dataset": settings.dataset,
        "data_fingerprint": prepared.fingerprint,
        "format": form,
        "row": ROW,
        "inputs": [spec.name for spec in settings.fields],
        "tasks": {task.name: task.kind for task in prepared.schema.tasks},
        "group": settings.group_field,
        "domain": settings.domain_field,
        "weight": settings.weight_field,
        "rows": {part: split.rows for part, split in prepared.splits.items()},
    }
