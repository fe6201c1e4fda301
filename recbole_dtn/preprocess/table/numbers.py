"""Missing and invalid numbers of a table: such rows are rejected, with a message about what to write in the spec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.preprocess.lines import LINE
from recbole_dtn.preprocess.rejects import Tally
from recbole_dtn.preprocess.table.plan import Plan
from recbole_dtn.preprocess.table.scan import TableBlock

__all__ = ["Numbers"]


class Numbers:
    """Computes the columns of a plan from blocks of rows, and rejects rows with an invalid number.

    Args:
        plan: what is written. schema: of the blocks. tally: counts the rows.
    """

    def __init__(self, plan: Plan, schema: pl.Schema, tally: Tally) -> None:
        self.plan, self.tally = plan, tally
        self._numbers = plan.numbers(schema)
        self._made = plan.columns(schema)
        self._kept = plan.kept(schema)
        floats = [name for name, kind in plan.types.items() if kind == "float" and name not in plan.masks]
        self._faults = {name: self._masks(name, schema) for name in floats}
        # One Boolean per column and block. The masks of every kind of fault are computed only for columns where it is
        # true.
        self._doubts = [self._doubt(name).any().alias(name) for name in floats]
        for field in plan.spec.fields:
            if field.weights is not None:
                self._faults[field.weights] = self._list_masks(field.name, field.weights, schema)
                self._doubts.append(pl.any_horizontal(*self._faults[field.weights].values()).any().alias(field.weights))
        self._gaps: dict[str, tuple[str, int]] = {}

    def made(self, block: TableBlock) -> pl.DataFrame:
        """The columns of the rows that are kept.

        Raises:
            TooManyRejectedError: when strict, or when too many rows are rejected by now.
        """
        frame = block.frame
        if self._kept is not None:
            rows = frame.height
            # Before anything is checked: a row that the filter drops may be faulty.
            frame = frame.filter(self._kept)
            rule = f"filter: {self.plan.spec.filter}"
            self.tally.dropped[rule] += rows - frame.height
        frame = frame.with_columns(self._numbers)
        # Made before faulty rows are taken out: rows of ``made`` and ``frame`` correspond.
        made = frame.select(self._made.values())
        doubts = frame.select(self._doubts).row(0, named=True) if self._doubts and frame.height else {}
        doubtful = [name for name, doubt in doubts.items() if doubt]
        if doubtful:
            made = made.filter(self._good(block, frame, doubtful))
        self.tally.written += made.height
        return made

    def warn(self, log: Callable[[str], None]) -> None:
        """Log the columns whose missing numbers stay empty cells, as the spec asks."""
        for name, (where, count) in self._gaps.items():
            log(
                f"warning: {where}: column {name!r} has no number ({count:,} such rows); they stay empty cells, absent "
                "values to our models; stock RecBole reads the column's mean there"
            )

    def _good(self, block: TableBlock, frame: pl.DataFrame, doubtful: Sequence[str]) -> pl.Series:
        """Reject faulty rows, each for its first fault; returns the mask of good rows."""
        good = np.ones(frame.height, bool)
        for name in doubtful:
            masks = frame.select(mask.alias(kind) for kind, mask in self._faults[name].items())
            for kind in masks.columns:
                # A row is rejected once, for the first fault in the order of the columns.
                found = masks[kind].to_numpy() & good
                if not found.any():
                    continue
                if kind == "absent" and name in self.plan.gaps:
                    where = f"{block.file}, {self.tally.unit} {frame[LINE][int(np.argmax(found))]}"
                    first, count = self._gaps.get(name, (where, 0))
                    # missing: keep: the rows stay, and the first place is remembered for one warning.
                    self._gaps[name] = first, count + int(found.sum())
                    continue
                good &= ~found
                self._reject(block, frame[np.flatnonzero(found).tolist()], kind, name)
        return pl.Series(good)

    def _reject(self, block: TableBlock, rows: pl.DataFrame, kind: str, name: str) -> None:
        reason, example = SAY[kind](self.plan, name, rows.row(0, named=True))
        lines = rows[LINE].to_list()
        self.tally.reject(block.file, lines, reason, block.texts(lines), example=example)

    def _doubt(self, name: str) -> pl.Expr:
        """Rows that may be faulty in a column: a cheaper test than :meth:`_masks`."""
        if name in self.plan.derived:
            return self._made[name].is_null()
        found = self.plan.number(name)
        # Null is a doubt too: it may be missing, or no number.
        if self.plan.is_binary(name):
            return ~((found == 0) | (found == 1)).fill_null(value=False)
        sound = found.is_finite() & (found >= 0) if name == self.plan.spec.weight_field else found.is_finite()
        return ~sound.fill_null(value=False)

    def _list_masks(self, values: str, weights: str, schema: pl.Schema) -> dict[str, pl.Expr]:
        """Rows whose list weights are not numbers, or not as many as the values."""
        some = pl.element().filter(pl.element().is_not_null() & (pl.element().cast(pl.String) != ""))
        lists = {}
        for name in (values, weights):
            column = pl.col(name)
            split = column.str.split(self.plan.separators[name]) if schema[name] == pl.String else column
            lists[name] = split.list.eval(some)
        finite = pl.element().cast(pl.Float64, strict=False).is_finite().fill_null(value=False)
        sizes = [lists[name].list.len().fill_null(0) for name in (values, weights)]
        return {
            "list": (~lists[weights].list.eval(finite).list.all()).fill_null(value=False),
            "uneven": sizes[0] != sizes[1],
        }

    def _masks(self, name: str, schema: pl.Schema) -> dict[str, pl.Expr]:
        """Rows where a column has an invalid value, and rows where it is missing."""
        plan = self.plan
        made = self._made[name]
        if name in plan.derived:
            return {"absent": made.is_null()}
        raw = pl.col(name)
        empty = raw.is_null()
        if schema[name] == pl.String:
            # Texts that parse_numbers reads as missing.
            empty = empty | raw.str.strip_chars().str.to_lowercase().is_in(["", "nan"])
        elif schema[name].is_float():
            empty = empty | raw.is_nan()
        empty = empty.fill_null(value=True)
        found = plan.number(name)
        wrong = found.is_null() | ~found.is_finite()
        if plan.is_binary(name):
            wrong = wrong | ((found != 0) & (found != 1))
        if name == plan.spec.weight_field:
            wrong = wrong | (found < 0)
        # Where no task observes a label, an invalid one is no fault.
        observed = plan.observed(name, schema)
        return {"wrong": ~empty & observed & wrong.fill_null(value=True), "absent": made.is_null() & empty}


def _wrong(plan: Plan, name: str, shown: dict[str, Any]) -> tuple[str, str]:
    """The reason, and what is to be said about the first row."""
    found = shown[name]
    if name in plan.labels:
        task = plan.labels[name][0]
        expected = "0 or 1 (or true, false)" if task.kind == "binary" else "a finite number"
        example = repr(found) if isinstance(found, str) else f"{found:g}"
        hint = f"; say what counts as 1, such as condition: {name} == {example}" if task.kind == "binary" else ""
        reason = f"the label of task {task.name!r}, column {name!r}: expected {expected}"
        return reason, f"{reason}, found {found!r}{hint}"
    hint = f"; if that means missing: reader: {{null_values: [{found!r}]}}" if isinstance(found, str) else ""
    weight = name == plan.spec.weight_field
    reason = f"column {name!r}: expected a {'weight, a finite number from 0 up' if weight else 'finite number'}"
    return reason, f"{reason}, found {found!r}{hint}"


def _absent(plan: Plan, name: str, shown: dict[str, Any]) -> tuple[str, str]:
    """The reason, and what is to be said about the first row."""
    if name in plan.derived:
        columns = sorted(parse_condition(plan.derived[name]).columns())
        values = ", ".join(f"{column} = {_value(shown[column])}" for column in columns)
        what = f"the label of task {name!r}" if name in plan.labels else f"the derived column {name!r}"
        reason = f"{what} ({plan.derived[name]}) is undecided"
        where = f"{reason}, since a value is missing or no number: {values}"
    elif name in plan.labels:
        where = reason = f"the label of task {plan.labels[name][0].name!r}, column {name!r}, is missing"
    else:
        reason = f"column {name!r}: expected a finite number, found a missing value"
        if name in {field.name for field in plan.spec.fields}:
            return reason, (
                f"{reason}; stock RecBole would put the column's mean there. In the spec's entry of {name!r}, write "
                "fill: NUMBER to put a number there, or missing: keep to leave the cells empty (absent values to our "
                "models)"
            )
        return reason, (
            f"{reason}. In the spec, write fill: {{{name}: NUMBER}}, or drop such rows with filter: CONDITION"
        )
    observe = "" if name not in plan.labels else "observed_when: CONDITION in the task where it is not known, or "
    return reason, (
        f"{where}. In the spec, write {observe}filter: CONDITION to drop such rows (a condition undecided is false)"
    )


def _list(plan: Plan, name: str, shown: dict[str, Any]) -> tuple[str, str]:
    reason = f"column {name!r}: expected a list of finite numbers"
    return reason, f"{reason}, found {_value(shown[name])}"


def _uneven(plan: Plan, name: str, shown: dict[str, Any]) -> tuple[str, str]:
    (values,) = (field.name for field in plan.spec.fields if field.weights == name)
    reason = f"column {name!r}: expected as many weights as column {values!r} has values"
    return reason, f"{reason}, found {_value(shown[name])} for {_value(shown[values])}"


SAY = {"wrong": _wrong, "absent": _absent, "list": _list, "uneven": _uneven}


def _value(value: Any) -> str:
    return "missing" if value is None or value == "" else repr(value)
