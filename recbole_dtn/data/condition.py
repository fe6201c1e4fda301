"""A parsed condition as a Polars expression."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import polars as pl

from recbole_dtn.config.conditions import AllOf, AnyOf, Comparison, Condition, Membership, Negation
from recbole_dtn.errors import UsageError

__all__ = ["to_expression"]

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def to_expression(condition: Condition, dtypes: Mapping[str, pl.DataType]) -> pl.Expr:
    """Boolean expression of ``condition``; null where a missing value makes the result unknown.

    ``dtypes`` are the types of the frame it will run on. A number compared with a text column compares the text's
    numeric value (``is_click == 1`` holds for ``"1"`` and ``"1.0"``); a quoted text compared with a number column is
    read as a number.

    >>> from recbole_dtn.config.conditions import parse_condition
    >>> frame = pl.DataFrame({"rating": [3.0, 5.0, None]})
    >>> frame.select(y=to_expression(parse_condition("rating >= 4"), frame.schema))["y"].to_list()
    [False, True, None]
    """
    match condition:
        case Negation(inner):
            return ~to_expression(inner, dtypes)
        case AllOf(parts):
            # Three-valued logic, as in SQL: false and null is false, true and null is null.
            return pl.all_horizontal([to_expression(part, dtypes) for part in parts])
        case AnyOf(parts):
            return pl.any_horizontal([to_expression(part, dtypes) for part in parts])
        case Membership(column, values):
            if dtypes[column] != pl.String:
                values = tuple(_number(column, value) if isinstance(value, str) else value for value in values)
            # Not an "or" of comparisons: of 2,000 nested ones Polars takes more than 4 GB.
            return _operand(column, values[0], dtypes[column]).is_in(list(values))
        case Comparison(column, operator, value):
            if isinstance(value, str) and dtypes[column] != pl.String:
                value = _number(column, value)
            return _compare(_operand(column, value, dtypes[column]), operator, value)


def _number(column: str, text: str) -> float:
    if not NUMBER.fullmatch(text.strip(" ")) or not math.isfinite(float(text)):
        raise UsageError(f"condition: column {column!r} holds numbers; it cannot equal the text {text!r}")
    return float(text)


def _operand(column: str, value: float | str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(value, str):
        return pl.col(column)
    if dtype == pl.String:
        number = pl.col(column).str.strip_chars(" ").cast(pl.Float64, strict=False)
        # "nan" and "inf" are texts, not numbers; Polars would compare NaN as the largest number.
        return pl.when(number.is_finite()).then(number)
    # NaN is a missing number. Polars compares it as the largest one; null makes the result unknown.
    return pl.col(column).cast(pl.Float64).fill_nan(None)


def _compare(operand: pl.Expr, operator: str, value: float | str) -> pl.Expr:
    match operator:
        case "==":
            return operand == value
        case "!=":
            return operand != value
        case ">=":
            return operand >= value
        case "<=":
            return operand <= value
        case ">":
            return operand > value
        case _:
            return operand < value
