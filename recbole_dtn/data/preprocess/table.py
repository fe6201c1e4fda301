"""One CSV, TSV or Parquet table of a user's own -> atomic files and the YAML of a data set."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from recbole_dtn.config.settings import Count, FieldSettings, Positive, Strict, TaskSettings
from recbole_dtn.config.tasks import parse_condition, task_columns
from recbole_dtn.config.typed import read_typed
from recbole_dtn.data.condition import to_expression
from recbole_dtn.data.preprocess.base import Preprocessor
from recbole_dtn.data.write import write_atomic, write_dataset_yaml
from recbole_dtn.errors import DataError, UsageError, nearest

__all__ = ["ReaderSpec", "Table", "TableSpec", "preprocess_table"]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


class ReaderSpec(Strict):
    """How a text table is read; a Parquet file needs nothing of it."""

    separator: str | None = None  # None: by the file's ending
    columns: list[str] | None = None  # names of the columns of a file without a header
    strip: bool = False  # remove white space around every value
    null_values: list[str] = Field(default_factory=list)  # texts that mean a missing value
    quote: str | None = '"'  # None: a quote is an ordinary character


class TableSpec(Strict):
    """A spec: how to read the table, and the data set it makes.

    ``fields`` and ``tasks`` are those of a data set's YAML; a task's ``condition`` and ``observed_when`` read the
    table's columns (text or number) and are evaluated once, here: the files hold ready labels.
    """

    reader: ReaderSpec = ReaderSpec()
    filter: str | None = None  # condition of the rows that are kept
    fill: dict[str, float] = Field(default_factory=dict)  # value of a missing number, by float column
    derive: dict[str, str] = Field(default_factory=dict)  # further 0/1 float columns, by condition
    fields: list[FieldSettings]
    tasks: list[TaskSettings]
    split: Literal["random", "time", "user_time"] = "random"
    split_ratio: tuple[Positive, Positive, Positive] | None = None
    time_field: str | None = None
    user_field: str | None = None
    group_field: str | None = None
    domain_field: str | None = None
    weight_field: str | None = None
    min_count: Count | None = None
    pooling: Literal["sum", "mean"] | None = None


class Table(Preprocessor):
    """One table of your own.

    Args:
        raw: unused. data_path, name: the data set is written into ``<data_path>/<name>/``.
        input: a ``.csv``, ``.tsv``, ``.txt`` (also ``.gz``) or ``.parquet`` file.
        spec: a YAML file, :class:`TableSpec`.
    """

    default_name = ""
    source = "your own table"

    def __init__(self, raw: Path | None, data_path: Path, *, name: str, input: Path, spec: Path) -> None:
        super().__init__(raw, data_path, name=name)
        self.input = input
        self.spec = spec

    def write(self) -> dict[str, int]:
        spec = read_typed(self.spec, TableSpec)
        plan = _Plan(spec, self.spec)
        file = f"{self.name}.inter"
        try:
            table = _scan(self.input, spec.reader)
            frames = plan.frames(table, table.collect_schema(), self.input)
            rows = write_atomic(frames, self.folder / file, plan.types)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(_reading_error(self.input, error)) from None
        write_dataset_yaml(
            self.folder / f"{self.name}.yaml", plan.dataset(), f"Made by `preprocess table` from {self.input.name}."
        )
        return {file: rows}


def preprocess_table(
    input: Path, spec: Path, name: str, data_path: Path, *, log: Callable[[str], None] = lambda text: None
) -> Path:
    """Write ``<data_path>/<name>/<name>.inter`` and ``<name>.yaml``; ``--dataset=<name>`` then trains on it.

    Raises:
        UsageError: for a spec that is wrong or names columns that are not there. DataError: for faulty rows.
    """
    return Table(None, data_path, name=name, input=input, spec=spec).run(log)


class _Plan:
    """Which columns are written, of which type, and how each is made."""

    def __init__(self, spec: TableSpec, path: Path) -> None:
        self.spec, self.path = spec, path
        self.types: dict[str, str] = {}
        self.derived: dict[str, str] = dict(spec.derive)
        self.tasks: list[dict[str, Any]] = []
        for field in spec.fields:
            self._add(field.name, field.type)
            if field.weights is not None:
                self._add(field.weights, "float_seq")
        leaks = {column for task in spec.tasks for column in task_columns(task)} | {spec.weight_field}
        for name in self.types:
            if name in leaks:
                raise UsageError(f"{path}: field {name!r} is a label (or weight) too, and cannot be an input")
        for task in spec.tasks:
            self._add_task(task)
        for name in spec.derive:
            self._add(name, "float")
        for key in ("group_field", "domain_field", "user_field"):
            self._add_extra(getattr(spec, key), "token")
        for key in ("time_field", "weight_field"):
            self._add_extra(getattr(spec, key), "float")
        for name in spec.fill:
            if self.types.get(name) != "float" or name in self.derived:
                raise UsageError(f"{path}: fill names {name!r}, which is no float column of the data set")

    def _add(self, name: str, kind: str) -> None:
        if name in self.types:
            raise UsageError(f"{self.path}: column {name!r} would be written twice (fields, tasks, derive): rename one")
        self.types[name] = kind

    def _add_extra(self, name: str | None, kind: str) -> None:
        if name is not None:
            self.types.setdefault(name, kind)

    def _add_task(self, task: TaskSettings) -> None:
        options = task.model_dump(exclude_defaults=True, exclude={"condition", "observed_when"})
        if task.condition is not None:
            self._add(task.name, "float")
            self.derived[task.name] = task.condition
            options["label"] = task.name
        else:
            self._add_extra(task.label, "float")
        if task.observed_when is not None:
            column = f"{task.name}_observed"
            self._add(column, "float")
            self.derived[column] = task.observed_when
            options["observed_when"] = f"`{column}` == 1"
        self.tasks.append(options)

    def frames(self, table: pl.LazyFrame, schema: pl.Schema, source: Path) -> pl.LazyFrame:
        """The columns to write, lazily."""
        self._check_columns(schema, source)
        if self.spec.filter is not None:
            table = table.filter(to_expression(parse_condition(self.spec.filter), schema))
        made = []
        for name in self.types:
            if name in self.derived:
                expression = to_expression(parse_condition(self.derived[name]), schema).cast(pl.Float64)
                made.append(self._masked(name, expression))
            elif name in self.spec.fill:
                number = pl.col(name).replace("", None) if schema[name] == pl.String else pl.col(name)
                made.append(number.cast(pl.Float64).fill_nan(None).fill_null(self.spec.fill[name]).alias(name))
            else:
                made.append(self._masked(name, pl.col(name)))
        return table.select(made)

    def _masked(self, name: str, expression: pl.Expr) -> pl.Expr:
        """A label is 0 where nothing of it is observed, and an undecided ``observed_when`` is false."""
        if name.endswith("_observed") and name.removesuffix("_observed") in {task["name"] for task in self.tasks}:
            return expression.fill_null(0.0).alias(name)
        hidden = [task for task in self.tasks if task["label"] == name and "observed_when" in task]
        return (expression.fill_null(0.0) if hidden else expression).alias(name)

    def _check_columns(self, schema: pl.Schema, source: Path) -> None:
        conditions = [*self.derived.values(), *([self.spec.filter] if self.spec.filter is not None else [])]
        read = [name for name in self.types if name not in self.derived]
        read += [column for text in conditions for column in sorted(parse_condition(text).columns())]
        for name in read:
            if name not in schema:
                raise UsageError(f"{self.path}: {source.name} has no column {name!r}; {nearest(name, list(schema))}")

    def dataset(self) -> dict[str, Any]:
        """The data set's YAML."""
        spec = self.spec
        kept = ("split", "split_ratio", "time_field", "user_field", "group_field", "domain_field", "weight_field")
        values = {key: getattr(spec, key) for key in (*kept, "min_count", "pooling")}
        return {
            "fields": [field.model_dump(exclude_unset=True) for field in spec.fields],
            "tasks": self.tasks,
            **{
                key: list(value) if isinstance(value, tuple) else value
                for key, value in values.items()
                if value is not None
            },
        }


def _scan(path: Path, reader: ReaderSpec) -> pl.LazyFrame:
    """The table, lazily; a text table as texts."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffix = (path.suffixes[-2:] or [""])[0] if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        return pl.scan_parquet(path)
    if reader.separator is None and suffix not in SEPARATORS:
        raise UsageError(
            f"{path}: unknown kind of file {suffix!r}: expected .csv, .tsv, .txt (or with .gz) or .parquet; for "
            "another text table set reader: {separator: ...} in the spec"
        )
    separator = SEPARATORS[suffix] if reader.separator is None else reader.separator
    padded, separator = len(separator) > 1, separator.strip(" ") or separator[:1]
    if len(separator) != 1:
        raise UsageError(f"reader: separator must be one character, spaces around it aside; found {reader.separator!r}")
    options: dict[str, Any] = {"separator": separator, "quote_char": reader.quote, "infer_schema": False}
    if reader.columns is not None:
        _check_width(path, reader.columns, options)
        options |= {"has_header": False, "new_columns": reader.columns}
    table = pl.scan_csv(path, **options)
    if reader.strip or padded:
        table = table.with_columns(pl.all().str.strip_chars())
    if reader.null_values:
        table = table.with_columns(pl.all().replace(reader.null_values, None))
    return table


def _check_width(path: Path, columns: Sequence[str], options: dict[str, Any]) -> None:
    first = pl.read_csv(path, has_header=False, n_rows=1, **options)
    if first.width != len(columns):
        raise DataError(
            f"{path}, line 1: expected {len(columns)} columns as in reader.columns, found {first.width} (separator "
            f"{options['separator']!r})"
        )


def _reading_error(path: Path, error: Exception) -> str:
    """What Polars could not read, with the line where the text is not UTF-8."""
    if path.suffix != ".parquet" and "utf-8" in str(error).lower():
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as wrong:
                    return (
                        f"{path}, line {number}: not UTF-8 at byte {wrong.start} of the line; convert the file to UTF-8"
                    )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{path}: cannot be read as a table: {first}"
