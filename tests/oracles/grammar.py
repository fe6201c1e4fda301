"""Conditions and formulas in plain Python, a value at a time, written apart from the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.oracles.atomic import NUMBER

__all__ = ["RefusedError", "condition", "formula"]

Value = float | str | None
WORDS = re.compile(r"""'[^']*'|"[^"]*"|`[^`]+`|==|!=|>=|<=|[><()\[\],]|[^\s()\[\],<>=!'"`]+""")
LEAVES = re.compile(r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))|(?P<name>`[^`]+`|(?!\d)\w+(?:\.\w+)*)")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, "<": lambda a, b: a < b,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "exp": np.exp, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt,
    "max": lambda *values: _fold(np.maximum, values), "min": lambda *values: _fold(np.minimum, values),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power,
}  # fmt: skip


class RefusedError(Exception):
    """A text that a number column cannot equal."""


def condition(source: str, row: Mapping[str, Value]) -> bool | None:
    """A condition that was accepted, in one row; None where a missing value leaves it undecided.

    Raises:
        RefusedError: for a text that is compared with a number and is none.
    """
    words = WORDS.findall(source)
    found, rest = _any(words, row)
    assert not rest, rest
    return found


def _any(words: list[str], row: Mapping[str, Value]) -> tuple[bool | None, list[str]]:
    found, words = _all(words, row)
    while words[:1] == ["or"]:
        other, words = _all(words[1:], row)
        found = True if found or other else None if None in (found, other) else False
    return found, words


def _all(words: list[str], row: Mapping[str, Value]) -> tuple[bool | None, list[str]]:
    found, words = _negation(words, row)
    while words[:1] == ["and"]:
        other, words = _negation(words[1:], row)
        found = False if False in (found, other) else None if None in (found, other) else True
    return found, words


def _negation(words: list[str], row: Mapping[str, Value]) -> tuple[bool | None, list[str]]:
    if words[0] == "not":
        found, words = _negation(words[1:], row)
        return (None if found is None else not found), words
    if words[0] == "(":
        found, words = _any(words[1:], row)
        assert words[0] == ")", words
        return found, words[1:]
    value = row[words[0].strip("`")]
    turned = words[1] == "not"
    operator, *words = words[1 + turned :]
    if operator != "in":
        return _compared(value, operator, words[0]), words[1:]
    end = words.index("]")
    found = [_compared(value, "==", word) for word in words[1:end] if word != ","]
    either = True if True in found else None if None in found else False
    return (not either if turned and either is not None else either), words[end + 1 :]


def _compared(value: Value, operator: str, word: str) -> bool | None:
    quoted = word[0] in "'\""
    if quoted and isinstance(value, str):
        return COMPARE[operator](value, word[1:-1])
    if quoted and (value is None or isinstance(value, float)):
        if value is None:  # a text column has a missing text, and a number column a missing number
            return None
        if not NUMBER.fullmatch(word[1:-1].strip()):
            raise RefusedError(word)
    number = float(word[1:-1] if quoted else word)
    if isinstance(value, str):
        text = value.strip(" ")
        value = float(text) if NUMBER.fullmatch(text) and abs(float(text)) != float("inf") else None
    return None if value is None else COMPARE[operator](value, number)


def formula(source: str, values: Mapping[str, Any]) -> Any:
    """A formula that was accepted, by Python's own parser."""
    leaves: dict[str, Any] = {}

    def leaf(match: re.Match[str]) -> str:
        text = match[0]
        if text in FUNCTIONS and re.match(r"\s*\(", source[match.end() :]):
            return text
        name = f"leaf{len(leaves)}"
        leaves[name] = float(text) if match["number"] else values[text.strip("`")]
        return name

    plain = re.sub(r"\s", " ", LEAVES.sub(leaf, source))
    with np.errstate(all="ignore"):
        return _evaluated(ast.parse(f"({plain})", mode="eval").body, leaves)


def _evaluated(node: ast.expr, leaves: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(name):
            return leaves[name]
        case ast.UnaryOp(ast.USub(), inner):
            return np.negative(_evaluated(inner, leaves))
        case ast.UnaryOp(ast.UAdd(), inner):
            return _evaluated(inner, leaves)
        case ast.BinOp(left, operator, right):
            return OPERATORS[type(operator)](_evaluated(left, leaves), _evaluated(right, leaves))
        case ast.Call(ast.Name(name), arguments, []):
            return FUNCTIONS[name](*(_evaluated(argument, leaves) for argument in arguments))
    raise AssertionError(ast.dump(node))


def _fold(function: Callable[[Any, Any], Any], values: tuple[Any, ...]) -> Any:
    found = values[0]
    for value in values[1:]:
        found = function(found, value)
    return found
