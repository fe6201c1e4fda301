"""Check columns against a data set's settings: fields, labels, conditions, times, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.settings import Settings, TaskSettings
from recbole_dtn.config.tasks import task_columns
from recbole_dtn.data.atomic import FileFault, Header, missing_mask, parse_floats
from recbole_dtn.data.condition import to_expression
from recbole_dtn.data.sources import PARTS, Side, Sources, needed_columns
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.inspect.validate.rows import Rows, rows_of

__all__ = ["Meaning", "meaning_of"]

LABEL_TYPE = (
    "must be :float: stock RecBole renumbers a :token label, and makes a second one an input (or give the task a "
    "condition)"
)
FLOAT32_MAX = float(np.finfo(np.float32).max)


def meaning_of(settings: Settings, sources: Sources) -> tuple[Meaning, list[FileFault]]:
    """The checks of a data set's rows, and what is wrong with its columns as a whole."""
    faults: list[FileFault] = []
    owners: dict[str, str] = {}
    for column, why in needed_columns(settings).items():
        try:
            owners[column] = sources.owner(column, wanted_by=why)
        except DataError as error:
            faults.append(FileFault(str(sources.folder), 0, str(error).removeprefix(f"{sources.folder}: ")))
    meaning = Meaning(settings, sources, owners)
    faults += meaning.column_faults()
    return meaning, faults


@dataclass
class Meaning:
    """Checks of rows.

    Attributes:
        owners: the table of each column that is there. unusable: columns of a type that cannot be read as needed.
        refused: tasks whose condition does not fit the types of its columns.
    """

    settings: Settings
    sources: Sources
    owners: dict[str, str]
    unusable: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    _side_columns: dict[str, pl.DataFrame] = field(default_factory=dict)

    # ---- columns --------------------------------------------------------------------------------------------------

    def column_faults(self) -> Iterator[FileFault]:
        """Columns of another type than the settings say; they are left out of the checks of rows."""
        for spec in self.settings.fields:
            yield from self._typed(spec.name, (spec.type,), f"the data set's field says {spec.type}")
            if spec.weights is not None:
                yield from self._typed(spec.weights, ("float_seq",), f"weights of {spec.name!r} must be float_seq")
                if self._table(spec.name) != self._table(spec.weights) and self._table(spec.weights) is not None:
                    yield self._first_line(spec.weights, f"weights of {spec.name!r} must be in the same file")
                    self.unusable.add(spec.weights)
        for task in self.settings.tasks:
            if task.condition is None:
                yield from self._typed(task.label, ("float",), f"the label of task {task.name!r} {LABEL_TYPE}")
            for name in sorted(task_columns(task)):
                yield from self._typed(name, ("token", "float"), f"task {task.name!r} needs one value a row")
        for key in ("time_field", "weight_field", "domain_field", "group_field", "split_field"):
            name = getattr(self.settings, key)
            if name is not None:
                wanted = ("token", "float") if key in ("time_field", "weight_field") else ("token",)
                yield from self._typed(name, wanted, f"{key} must be {' or '.join(wanted)}")

    def _table(self, column: str) -> str | None:
        return self.owners.get(column)

    def _typed(self, column: str, types: tuple[str, ...], why: str) -> Iterator[FileFault]:
        kind = self._table(column)
        if kind is None or column in self.unusable:
            return
        found = self.sources.table(kind).type_of(column)
        if found not in types:
            self.unusable.add(column)
            yield self._first_line(column, f"is of type {found}; {why}")

    def _first_line(self, column: str, reason: str) -> FileFault:
        kind = self.owners[column]
        return FileFault(str(self.sources.table(kind).paths[0]), 1, f"column {column!r} {reason}")

    def _usable(self, column: str) -> bool:
        return column in self.owners and column not in self.unusable

    # ---- rows -----------------------------------------------------------------------------------------------------

    def faults(self, rows: Rows) -> Iterator[FileFault]:
        """Faults of the rows of one block of any file."""
        kind = self._kind(rows.header)
        if kind is None:
            return
        yield from self._fields(rows, kind)
        if kind != "inter":
            return
        for task in self.settings.tasks:
            if all(self._usable(column) for column in task_columns(task)):
                yield from self._labels(rows, task)
        yield from self._numbers_of_rows(rows)
        yield from self._parts_of_rows(rows)
        domain = self.settings.domain_field
        if domain is not None and self._usable(domain):
            for row in self._column(rows, domain).is_null().arg_true():
                yield rows.fault(row, f"domain_field {domain!r} is missing")

    def _kind(self, header: Header) -> str | None:
        for kind in ("inter", *(side.kind for side in self.sources.sides)):
            if header.path in self.sources.table(kind).paths:
                return kind
        return None

    def _fields(self, rows: Rows, kind: str) -> Iterator[FileFault]:
        for spec in self.settings.fields:
            if self._table(spec.name) != kind or not self._usable(spec.name):
                continue
            if spec.type == "float":
                numbers = parse_floats(rows.frame[spec.name])
                large = numbers.is_finite().fill_null(False) & (numbers.abs() > FLOAT32_MAX).fill_null(False)
                for row in large.arg_true():
                    reason = f"column {spec.name!r}: expected a number that float32 can hold"
                    yield rows.fault(row, f"{reason}, found {rows.frame[spec.name][row]!r}", kind=reason)
            if spec.weights is not None and self._usable(spec.weights):
                yield from _lengths(rows, spec.name, spec.weights)

    def _labels(self, rows: Rows, task: TaskSettings) -> Iterator[FileFault]:
        columns = {name: self._column(rows, name) for name in sorted(task_columns(task))}
        told = np.zeros(len(rows.lines), np.bool_)  # numbers that cannot be read are faults of their own
        for name in columns:
            told |= self._no_number(rows, name)
        frame = pl.DataFrame(columns)
        try:
            seen = _condition(task.observed_when, frame)
            decided = _condition(task.condition, frame) if task.condition is not None else None
        except UsageError as error:
            if task.name not in self.refused:
                self.refused.add(task.name)
                yield FileFault(str(self.sources.folder), 0, f"task {task.name!r}: {error}")
            return
        # As encoding does it: an undecided observed_when is not observed.
        observed = seen.fill_null(False).to_numpy() & ~told
        if decided is not None:
            wrong, expected = decided.is_null().to_numpy(), f"({task.condition}) is undecided"
        else:
            texts = columns[task.label]
            numbers = texts if texts.dtype == pl.Float64 else parse_floats(texts)
            right = numbers.is_in([0.0, 1.0]) if task.kind == "binary" else numbers.is_finite()
            wrong = ~right.fill_null(False).to_numpy()
            expected = f"must be {'0 or 1' if task.kind == 'binary' else 'a finite number'}"
        if not (observed & wrong).any():
            return
        kind = f"the label of task {task.name!r} {expected}"
        for row in np.flatnonzero(observed & wrong):
            values = frame.row(int(row), named=True)
            shown = ", ".join(
                f"{name} = {'missing' if value is None else repr(value)}" for name, value in values.items()
            )
            yield rows.fault(int(row), f"{kind}, found {shown}", kind=kind)

    def _numbers_of_rows(self, rows: Rows) -> Iterator[FileFault]:
        """Times that order the rows, and weights of rows."""
        settings = self.settings
        for key, name in (("time_field", settings.time_field), ("weight_field", settings.weight_field)):
            needed = key == "weight_field" or settings.split in ("time", "user_time")
            if name is None or not needed or not self._usable(name):
                continue
            column = self._column(rows, name)
            numbers = column if column.dtype == pl.Float64 else parse_floats(column)
            right = numbers.is_finite() & ((numbers >= 0) if key == "weight_field" else True)
            wrong = ~right.fill_null(False).to_numpy() & ~self._no_number(rows, name)
            expected = "a number from 0 up" if key == "weight_field" else "a number, which orders the rows"
            for row in np.flatnonzero(wrong):
                found = "a missing value" if column[int(row)] is None else repr(column[int(row)])
                kind = f"{key} {name!r}: expected {expected}"
                yield rows.fault(int(row), f"{kind}, found {found}", kind=kind)

    def _parts_of_rows(self, rows: Rows) -> Iterator[FileFault]:
        """Values of ``split_field`` that name no part."""
        name = self.settings.split_field
        if self.settings.split != "column" or name is None or not self._usable(name):
            return
        column = self._column(rows, name)
        for row in (~column.is_in(PARTS).fill_null(False)).arg_true():
            found = "a missing value" if column[int(row)] is None else repr(column[int(row)])
            kind = f"split_field {name!r}: expected {', '.join(PARTS)}"
            yield rows.fault(int(row), f"{kind}, found {found}", kind=kind)

    # ---- columns of interactions ------------------------------------------------------------------------------------

    def _column(self, rows: Rows, name: str) -> pl.Series:
        """A column by interaction, as a condition reads it: null where it is missing."""
        kind = self.owners[name]
        if kind == "inter":
            return _as_read(rows.frame[name], self.sources.inter.type_of(name)).alias(name)
        side = next(side for side in self.sources.sides if side.kind == kind)
        values = self._of_side(side)
        # Left, in the order of the rows: null where the side table has no row.
        joined = rows.frame.select(side.key).join(values, on=side.key, how="left", maintain_order="left")
        return joined[name]

    def _no_number(self, rows: Rows, name: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Rows whose text in a number column of the interactions is not a finite number."""
        if self.owners[name] != "inter" or self.sources.inter.type_of(name) != "float":
            return np.zeros(len(rows.lines), np.bool_)
        texts = rows.frame[name]
        present = texts.is_not_null() & ~missing_mask(texts)
        return (present & _as_read(texts, "float").is_null()).to_numpy()

    def _of_side(self, side: Side) -> pl.DataFrame:
        """The columns of a side table that labels or rows need, a row per key."""
        if side.kind not in self._side_columns:
            wanted = {name for task in self.settings.tasks for name in task_columns(task)}
            keys = ("time_field", "weight_field", "domain_field")
            wanted |= {name for key in keys if (name := getattr(self.settings, key)) is not None}
            names = sorted(name for name in wanted if self._table(name) == side.kind and self._usable(name))
            (header,) = side.table.headers
            frames = [rows.frame for rows in rows_of(header, [side.key, *names])]
            schema = dict.fromkeys([side.key, *names], pl.String)
            # A repeated key is a fault of its own; the first row stands for it here.
            whole = pl.concat([pl.DataFrame(schema=schema), *frames]).unique(
                side.key, keep="first", maintain_order=True
            )
            read = [_as_read(whole[name], header.type_of(name)).alias(name) for name in names]
            self._side_columns[side.kind] = whole.select(side.key).with_columns(read)
        return self._side_columns[side.kind]


def _as_read(texts: pl.Series, kind: str) -> pl.Series:
    """Text or numbers, null where missing (or no finite number)."""
    if kind == "float":
        return parse_floats(texts)
    return pl.select(pl.when(~missing_mask(texts)).then(texts)).to_series()


def _condition(source: str | None, frame: pl.DataFrame) -> pl.Series:
    if source is None:
        return pl.repeat(True, frame.height, eager=True)
    return frame.select(found=to_expression(parse_condition(source), frame.schema)).to_series()


def _lengths(rows: Rows, name: str, weights: str) -> Iterator[FileFault]:
    first, second = (_list_lengths(rows.frame[column]) for column in (name, weights))
    for row in np.flatnonzero(first != second):
        reason = f"{name!r} has {first[row]} values, its weights {weights!r} have {second[row]}"
        yield rows.fault(int(row), reason, kind=f"{name!r} and its weights {weights!r} differ in length")


def _list_lengths(texts: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    lists = texts.str.split(" ").list.filter(pl.element() != "")
    return lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()
