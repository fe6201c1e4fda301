"""What ``preprocess table`` writes: its columns, the type of each and how it is made, and the data set's YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.properties import read_tree
from recbole_dtn.config.settings import TaskSettings
from recbole_dtn.config.tasks import task_columns
from recbole_dtn.data.condition import to_expression
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.preprocess.table.spec import SpecField, TableSpec

__all__ = ["Plan", "parse_numbers"]

NUMBER = "\x00number "  # no column of a data set can have such a name
READING = {"fill", "missing", "list_separator"}


def parse_numbers(texts: pl.Series, *, words: bool = False) -> pl.Series:
    """Texts as ``Float64``; null where they are missing or no number. With ``words``, true is 1 and false is 0.

    >>> parse_numbers(pl.Series(["1", " 2.5 ", "x", "nan", "True", None]), words=True).to_list()
    [1.0, 2.5, None, None, 1.0, None]
    """
    numbers = texts.cast(pl.Float64, strict=False)
    if numbers.null_count() > texts.null_count():
        # Slower, for the blocks that need it: spaces around numbers, and words for 1 and 0.
        stripped = texts.str.strip_chars()
        if words:
            spelled = {"true": "1", "false": "0"}
            lowered = stripped.str.to_lowercase()
            stripped = lowered.replace(spelled).zip_with(lowered.is_in(list(spelled)).fill_null(False), stripped)
        numbers = stripped.cast(pl.Float64, strict=False)
    return numbers.fill_nan(None)


class Plan:
    """Which columns are written, of which type, and how each is made."""

    def __init__(self, spec: TableSpec, path: Path) -> None:
        self.spec, self.path = spec, path
        # Columns of the atomic file in their order: fields, labels and masks of the tasks, derived ones, then those of
        # keys and weights.
        self.types: dict[str, str] = {}
        # Conditions by the column that they make (0/1), the labels and masks of the tasks among them.
        self.derived: dict[str, str] = dict(spec.derive)
        self.fill: dict[str, float] = dict(spec.fill)
        self.gaps: list[str] = []
        self.separators: dict[str, str] = {}
        self.labels: dict[str, list[TaskSettings]] = {}
        self.masks: set[str] = set()
        self.tasks: list[dict[str, Any]] = []
        self._check_split()
        for field in spec.fields:
            self._add_field(field)
        self._check_conditions()
        leaks = {column for task in spec.tasks for column in task_columns(task)} | {spec.weight_field}
        part = spec.split_field
        if part is not None and (part in self.types or part in leaks):
            raise UsageError(f"{path}: split_field {part!r} says which part a row is in: no field or task may read it")
        # At this point ``types`` has the inputs alone.
        for name in self.types:
            if name in leaks:
                raise UsageError(f"{path}: field {name!r} is a label (or weight) too, and cannot be an input")
        for task in spec.tasks:
            self._add_task(task)
        for name in spec.derive:
            self._add(name, "float")
        for key in ("group_field", "domain_field", "user_field", "split_field"):
            self._add_extra(getattr(spec, key), "token")
        for key in ("time_field", "weight_field"):
            self._add_extra(getattr(spec, key), "float")
        for name in spec.fill:
            if self.types.get(name) != "float" or name in self.derived:
                raise UsageError(f"{path}: fill names {name!r}, which is not a float column of the data set")
        if spec.weight_field is not None and self.fill.get(spec.weight_field, 0) < 0:
            raise UsageError(f"{path}: fill puts a negative number into weight_field {spec.weight_field!r}")

    def _check_split(self) -> None:
        """A split by time needs the column of the time, one within users that of the user, one by column that."""
        needs = {"time": ["time_field"], "user_time": ["time_field", "user_field"], "column": ["split_field"]}
        wanted = needs.get(self.spec.split, [])
        missing = [key for key in wanted if getattr(self.spec, key) is None]
        if missing:
            where = read_tree(self.path)["split"].where
            lines = " and ".join(f"{key}: COLUMN" for key in missing)
            raise UsageError(f"split: {self.spec.split} needs {' and '.join(missing)}; write {lines} ({where})")

    def _check_conditions(self) -> None:
        spec = self.spec
        conditions = {"filter": spec.filter, **{f"derive.{name}": text for name, text in spec.derive.items()}}
        for task in spec.tasks:
            conditions[f"task {task.name!r}, condition"] = task.condition
            conditions[f"task {task.name!r}, observed_when"] = task.observed_when
        for key, text in conditions.items():
            try:
                parse_condition(text) if text is not None else None
            except UsageError as error:
                raise UsageError(f"{self.path}: {key}: {error}") from None

    def _add(self, name: str, kind: str) -> None:
        if name in self.types:
            raise UsageError(f"{self.path}: column {name!r} would be written twice (fields, tasks, derive): rename one")
        self.types[name] = kind

    def _add_extra(self, name: str | None, kind: str) -> None:
        if name is not None:
            # A field may be the group, domain or user column too: it keeps the field's type.
            self.types.setdefault(name, kind)

    def _add_task(self, task: TaskSettings) -> None:
        options = task.model_dump(exclude_defaults=True, exclude={"condition", "observed_when"})
        if task.condition is not None:
            self._add(task.name, "float")
            self.derived[task.name] = task.condition
            options["label"] = task.name
        else:
            self._add_extra(task.label, "float")
        self.labels.setdefault(options["label"], []).append(task)
        if task.observed_when is not None:
            column = f"{task.name}_observed"
            self._add(column, "float")
            self.derived[column] = task.observed_when
            # A mask is never missing: an undecided condition is not observed.
            self.masks.add(column)
            options["observed_when"] = f"`{column}` == 1"
        self.tasks.append(options)

    def _add_field(self, field: SpecField) -> None:
        self._add(field.name, field.type)
        if field.weights is not None:
            self._add(field.weights, "float_seq")
        where = f"{self.path}: field {field.name!r}"
        if field.type != "float" and (field.fill is not None or field.missing == "keep"):
            raise UsageError(f"{where}: fill and missing are for type float, not {field.type}")
        if field.type != "token_seq" and field.list_separator != " ":
            raise UsageError(f"{where}: list_separator is for type token_seq, not {field.type}")
        if field.count_parts is not None:
            raise UsageError(f"{where}: count_parts needs a given split, which a table has not: leave it out")
        if not field.list_separator:
            raise UsageError(f"{where}: list_separator is empty; write what separates the values, such as '|'")
        if field.fill is not None:
            if field.name in self.fill:
                raise UsageError(f"{where}: has a value to fill in its entry and under fill: too; keep one")
            self.fill[field.name] = field.fill
        if field.missing == "keep":
            if field.name in self.fill:
                raise UsageError(f"{where}: missing: keep and a value to fill cannot both hold; keep one")
            self.gaps.append(field.name)
        self.separators |= {name: field.list_separator for name in (field.name, field.weights) if name is not None}

    def wanted(self, schema: pl.Schema, source: str) -> list[str]:
        """The columns of the input that are read, in its order.

        Raises:
            UsageError: for one that is not there.
        """
        conditions = [*self.derived.values(), *([self.spec.filter] if self.spec.filter is not None else [])]
        read = [name for name in self.types if name not in self.derived]
        read += [column for text in conditions for column in sorted(parse_condition(text).columns())]
        for name in read:
            if name not in schema:
                near, shape = nearest(name, list(schema)), _shape_hint(list(schema))
                hint = near if shape is None else f"{near} {shape}" if near.startswith("did you") else shape
                raise UsageError(f"{self.path}: {source} has no column {name!r}; {hint}")
        for name in read:
            kind = schema[name]
            if self.types.get(name) == "float" and (kind.is_nested() or kind == pl.Binary):
                raise UsageError(
                    f"{self.path}: column {name!r} of {source} is {kind}; expected numbers, or texts of them"
                )
        return [name for name in schema if name in read]

    def kept(self, schema: pl.Schema) -> pl.Expr | None:
        """Which rows the filter keeps (an undecided one is not); None: all."""
        if self.spec.filter is None:
            return None
        return self._condition(self.spec.filter, schema).fill_null(value=False)

    def numbers(self, schema: pl.Schema) -> list[pl.Expr]:
        """Columns that :meth:`number` names: the float columns that are read, as ``Float64``."""
        floats = [name for name, kind in self.types.items() if kind == "float" and name not in self.derived]
        return [self._parsed(name, schema).alias(f"{NUMBER}{name}") for name in floats]

    def number(self, name: str) -> pl.Expr:
        """A float column that is read, as numbers; null where it is missing or no number."""
        return pl.col(f"{NUMBER}{name}")

    def _parsed(self, name: str, schema: pl.Schema) -> pl.Expr:
        column = pl.col(name)
        if schema[name] == pl.String:
            words = self.is_binary(name)
            return column.map_batches(lambda texts: parse_numbers(texts, words=words), return_dtype=pl.Float64)
        return column.cast(pl.Float64, strict=False).fill_nan(None)

    def columns(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        """How each column is made; floats as numbers, null where missing or no number."""
        return {name: self._column(name, kind, schema).alias(name) for name, kind in self.types.items()}

    def _column(self, name: str, kind: str, schema: pl.Schema) -> pl.Expr:
        if name in self.masks:
            # Other conditions stay null where they are undecided, which rejects the row.
            return self._condition(self.derived[name], schema).fill_null(False).cast(pl.Float64)
        if name in self.derived:
            made = self._condition(self.derived[name], schema).cast(pl.Float64)
        elif kind == "float":
            made = self.number(name)
        elif kind.endswith("_seq") and schema[name] == pl.String and self.separators[name] != " ":
            return pl.col(name).str.split(self.separators[name])
        else:
            return pl.col(name)
        if name in self.fill:
            return made.fill_null(self.fill[name])
        hidden = self._hidden(name, schema)
        # A missing label that no task observes is written as 0: float columns have no empty cells.
        return made if hidden is None else pl.when(hidden).then(made.fill_null(0.0)).otherwise(made)

    def is_binary(self, name: str) -> bool:
        """Whether a column is the label of a binary task."""
        return any(task.kind == "binary" for task in self.labels.get(name, []))

    def _hidden(self, name: str, schema: pl.Schema) -> pl.Expr | None:
        """Where no task observes a label, so that its value does not matter; None for no such row."""
        tasks = self.labels.get(name)
        if not tasks or any(task.observed_when is None for task in tasks):
            return None
        return pl.all_horizontal(
            ~self._condition(task.observed_when, schema).fill_null(False)
            for task in tasks
            if task.observed_when is not None
        )

    def observed(self, name: str, schema: pl.Schema) -> pl.Expr:
        """Where some task observes a label."""
        hidden = self._hidden(name, schema)
        return pl.lit(value=True) if hidden is None else ~hidden

    def _condition(self, text: str, schema: pl.Schema) -> pl.Expr:
        return to_expression(parse_condition(text), schema)

    def dataset(self) -> dict[str, Any]:
        """The data set's YAML."""
        spec = self.spec
        split = ("split", "split_field", "split_ratio")
        kept = ("time_field", "user_field", "group_field", "domain_field", "weight_field", "min_count", "pooling")
        values = {key: getattr(spec, key) for key in (*split, *kept)}
        return {
            "fields": [field.model_dump(exclude_unset=True, exclude=READING) for field in spec.fields],
            "tasks": self.tasks,
            **{
                key: list(value) if isinstance(value, tuple) else value
                for key, value in values.items()
                if value is not None
            },
        }


def _shape_hint(columns: list[str]) -> str | None:
    """A hint when the first line looks like a wrong separator or a missing header; None otherwise.

    >>> print(_shape_hint(["user;item"]))
    the first line is one column, 'user;item': if ";" parts its columns, write reader: {separator: ";"} in the spec
    >>> print(_shape_hint(["u1", "3.5"]))
    the first line (u1, 3.5) has numbers: if the file has no header, write reader: {columns: [a name per column]} \
in the spec
    """
    first = columns[0] if len(columns) == 1 else ""
    for character, spelled in ((";", ";"), ("\t", "\\t"), ("|", "|"), (",", ",")):
        if character in first:
            return (
                f'the first line is one column, {first!r}: if "{spelled}" parts its columns, write reader: '
                f'{{separator: "{spelled}"}} in the spec'
            )
    values = [re.sub(r"#\d+$", "", name) for name in columns]  # a second 0 is called 0#2
    if any(parse_numbers(pl.Series(values, dtype=pl.String)).is_not_null()):
        shown = ", ".join([*values[:5], *(["..."] if len(values) > 5 else [])])
        return (
            f"the first line ({shown}) has numbers: if the file has no header, write reader: {{columns: [a name per "
            "column]} in the spec"
        )
    return None
