"""Missing and wrong numbers of a table, named by row of the input before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from recbole_dtn.config.tasks import parse_condition
from recbole_dtn.data.preprocess.plan import ROW, Plan
from recbole_dtn.errors import DataError

__all__ = ["check_numbers"]


def check_numbers(
    plan: Plan, rows: pl.LazyFrame, schema: pl.Schema, source: Path, log: Callable[[str], None] = lambda text: None
) -> None:
    """Check every float column in one pass over the rows that are kept.

    Raises:
        DataError: for a text that is no finite number, a missing number or label, and a label that is not 0 or 1; with
            the input, the row in it (from 1, below a header), how many there are, and what to write in the spec.
    """
    made = plan.columns(schema)
    counts: list[pl.Expr] = []
    floats = [name for name, kind in plan.types.items() if kind == "float" and name not in plan.masks]
    for name in floats:
        absent, wrong = _faults(plan, name, made[name], schema)
        for kind, mask in (("absent", absent), ("wrong", wrong)):
            counts.append(mask.sum().alias(f"{kind} {name}"))
            counts.append(pl.when(mask).then(pl.col(ROW)).min().alias(f"{kind} row {name}"))
    if not counts:
        return
    found = rows.select(counts).collect(engine="streaming").row(0, named=True)
    for name in floats:
        for kind in ("wrong", "absent"):
            count, row = found[f"{kind} {name}"], found[f"{kind} row {name}"]
            if not count:
                continue
            # Not a line: a quoted value may hold line breaks.
            where = f"{source}, data row {row}"
            if kind == "absent" and name in plan.gaps:
                log(
                    f"warning: {where}: column {name!r} has no number ({count:,} such rows); they stay "
                    "empty cells, absent values to our models; stock RecBole reads the column's mean there"
                )
                continue
            shown = rows.filter(pl.col(ROW) == row).collect().row(0, named=True)
            others = "" if count == 1 else f" ({count:,} such rows)"
            say = _wrong if kind == "wrong" else _absent
            raise DataError(f"{where}: {say(plan, name, shown, others)}")


def _faults(plan: Plan, name: str, made: pl.Expr, schema: pl.Schema) -> tuple[pl.Expr, pl.Expr]:
    """Where a column is missing, and where it holds what it may not hold."""
    if name in plan.derived:
        return made.is_null(), pl.lit(value=False)
    raw = pl.col(name)
    empty = raw.is_null()
    if schema[name] == pl.String:
        empty = empty | (raw == "") | raw.cast(pl.Float64, strict=False).is_nan().fill_null(value=False)
    elif schema[name].is_float():
        empty = empty | raw.is_nan()
    empty = empty.fill_null(value=True)
    found = plan.number(name, schema)
    wrong = found.is_null() | ~found.is_finite()
    if plan.is_binary(name):
        wrong = wrong | ((found != 0) & (found != 1))
    return made.is_null() & empty, ~empty & plan.observed(name, schema) & wrong.fill_null(value=True)


def _wrong(plan: Plan, name: str, shown: dict[str, Any], others: str) -> str:
    found = shown[name]
    if name in plan.labels:
        task = plan.labels[name][0]
        expected = "0 or 1 (or true, false)" if task.kind == "binary" else "a finite number"
        example = repr(found) if isinstance(found, str) else f"{found:g}"
        hint = f"; say what counts as 1, such as condition: {name} == {example}" if task.kind == "binary" else ""
        return f"the label of task {task.name!r}, column {name!r}: expected {expected}, found {found!r}{others}{hint}"
    hint = f"; if that means missing: reader: {{null_values: [{found!r}]}}" if isinstance(found, str) else ""
    return f"column {name!r}: expected a finite number, found {found!r}{others}{hint}"


def _absent(plan: Plan, name: str, shown: dict[str, Any], others: str) -> str:
    if name in plan.derived:
        columns = sorted(parse_condition(plan.derived[name]).columns())
        values = ", ".join(f"{column} = {_value(shown[column])}" for column in columns)
        what = f"the label of task {name!r}" if name in plan.labels else f"the derived column {name!r}"
        where = f"{what} ({plan.derived[name]}) is undecided{others}, since a value is missing or no number: {values}"
    elif name in plan.labels:
        where = f"the label of task {plan.labels[name][0].name!r}, column {name!r}, is missing{others}"
    elif name in {field.name for field in plan.spec.fields}:
        return (
            f"column {name!r}: expected a finite number, found a missing value{others}; stock RecBole would put the "
            f"column's mean there. In the spec's entry of {name!r}, write fill: NUMBER to put a number there, or "
            "missing: keep to leave the cells empty (absent values to our models)"
        )
    else:
        return (
            f"column {name!r}: expected a finite number, found a missing value{others}. In the spec, write "
            f"fill: {{{name}: NUMBER}}, or drop such rows with filter: CONDITION"
        )
    observe = "" if name not in plan.labels else "observed_when: CONDITION in the task where it is not known, or "
    return f"{where}. In the spec, write {observe}filter: CONDITION to drop such rows (a condition undecided is false)"


def _value(value: Any) -> str:
    return "missing" if value is None or value == "" else repr(value)
