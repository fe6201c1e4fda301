"""Conditions that derive labels, such as ``rating >= 4 and is_click == 1``.

The grammar::

    any        = all ("or" all)*
    all        = negation ("and" negation)*
    negation   = "not" negation | "(" any ")" | comparison
    comparison = column ("==" | "!=" | ">=" | "<=" | ">" | "<") value  |  column ["not"] "in" "[" value ("," value)* "]"
    value      = number | 'text' | "text"

A column is a word of letters, digits, ``_``, ``.`` or ``-``, or any text between backquotes.

Apart from columns and values, the grammar is Python's. A placeholder name replaces each column and value, and
``ast.parse`` builds the tree. Nothing is evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from recbole_dtn.errors import UsageError

__all__ = ["AllOf", "AnyOf", "Comparison", "Condition", "Membership", "Negation", "parse_condition"]

Value = float | str
NESTING = 100  # parentheses and "not" that are open at once; Python's parser stops at 200 parentheses
OPERATORS = {ast.Eq: "==", ast.NotEq: "!=", ast.GtE: ">=", ast.LtE: "<=", ast.Gt: ">", ast.Lt: "<"}
ORDERS = (">=", "<=", ">", "<")
# The atomic group (?>...) reads digits once: without it, a word that begins with many of them costs quadratic time.
TOKENS = re.compile(
    r"""(?P<operator>==|!=|>=|<=|>|<)
      | (?P<mark>[()\[\],]|(?:and|or|not|in)(?![.\-]?\w))
      | (?P<number>(?>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.]))
      | (?P<text>'[^']*'|"[^"]*")
      | (?P<column>`[^`]+`|\w+(?:[.\-]\w+)*)
      | (?P<unknown>\S)
      | (?P<end>\Z)
    """,
    re.VERBOSE,
)
# For each state: what is expected there, and the state after each token that may follow. Python's parser cannot refuse
# all that is refused here: its tree does not show the parentheses of `(a) == (1)` nor the last comma of `[1, ]`.
STATES: dict[str, tuple[str, dict[str, str]]] = {
    "condition": ("a column", {"column": "column", "not": "condition", "(": "condition"}),
    "column": (f"one of {' '.join(OPERATORS.values())} or 'in'", {"operator": "value", "in": "in", "not": "not"}),
    "not": ("'in'", {"in": "in"}),
    "value": ("a number or a quoted text", {"number": "done", "text": "done"}),
    "in": ("'['", {"[": "item"}),
    "item": ("a number or a quoted text", {"number": "items", "text": "items"}),
    "items": ("',' or ']'", {",": "item", "]": "done"}),
    "inside": ("'and', 'or' or ')'", {"and": "condition", "or": "condition", ")": "done"}),
    "done": ("'and', 'or' or the end", {"and": "condition", "or": "condition", "end": "end"}),
}


@dataclass(frozen=True)
class Comparison:
    """``column operator value``."""

    column: str
    operator: str
    value: Value

    def columns(self) -> frozenset[str]:
        """The columns it reads."""
        return frozenset({self.column})


@dataclass(frozen=True)
class Membership:
    """``column in [values]``; all values are numbers, or all are texts."""

    column: str
    values: tuple[Value, ...]

    def columns(self) -> frozenset[str]:
        """The columns it reads."""
        return frozenset({self.column})


@dataclass(frozen=True)
class Negation:
    """``not inner``."""

    inner: Condition

    def columns(self) -> frozenset[str]:
        """The columns it reads."""
        return self.inner.columns()


@dataclass(frozen=True)
class _Parts:
    parts: tuple[Condition, ...]

    def columns(self) -> frozenset[str]:
        """The columns it reads."""
        return frozenset().union(*(part.columns() for part in self.parts))


class AllOf(_Parts):
    """``part and part ...``."""


class AnyOf(_Parts):
    """``part or part ...``."""


Condition = Comparison | Membership | Negation | AllOf | AnyOf


def parse_condition(source: str) -> Condition:
    """Parse one condition.

    Raises:
        UsageError: with the position (from 1) of what could not be read.

    >>> parse_condition("rating >= 4")
    Comparison(column='rating', operator='>=', value=4.0)
    >>> sorted(parse_condition("long_view == 1 and not is_click in [0, 2]").columns())
    ['is_click', 'long_view']
    >>> parse_condition("rating = 5")
    Traceback (most recent call last):
    recbole_dtn.errors.UsageError: condition 'rating = 5', position 8: expected a column, a number, a quoted text or \
an operator, found '='; equality is written ==
    """
    state, opened, python = "condition", list[str](), list[str]()
    leaves: dict[str, Value] = {}  # the column or value behind each placeholder
    for match in TOKENS.finditer(source):
        kind = str(match.lastgroup)
        text, position = match[0], match.start()
        symbol = text if kind == "mark" else kind
        expected, follows = STATES[state]
        if kind == "unknown":
            raise _fault(source, position, "a column, a number, a quoted text or an operator", text)
        if symbol not in follows:
            raise _fault(source, position, expected, text)
        if kind == "text" and python[-1] in ORDERS:
            raise _fault(source, position, f"a number after {python[-1]} (texts have no order)", text)
        state = follows[symbol]
        if symbol == "(" or (symbol == "not" and state == "condition"):
            opened.append(symbol)
            if len(opened) > NESTING:
                raise _fault(source, position, f"at most {NESTING} nested parentheses and 'not'", text)
        elif symbol == ")":
            opened.pop()
        if state == "done":  # a comparison or a parenthesis has ended, and every "not" directly before it
            while opened and opened[-1] == "not":
                opened.pop()
            state = "inside" if opened else "done"
        if kind in ("column", "number", "text"):
            name = f"_{position}"
            leaves[name] = float(text) if kind == "number" else text[1:-1] if kind == "text" else text.strip("`")
            if python[-1:] == [","] and type(leaves[name]) is not type(leaves[python[-2]]):
                raise _fault(source, int(python[-2][1:]), "a list of numbers only or of texts only", "both")
            text = name
        python.append(text)
    return _condition(ast.parse(" ".join(python), mode="eval").body, leaves)


def _fault(source: str, position: int, expected: str, found: str) -> UsageError:
    shown = f"{found!r}" if found else "the end"
    hint = "; equality is written ==" if found == "=" else ""
    return UsageError(f"condition {source!r}, position {position + 1}: expected {expected}, found {shown}{hint}")


def _condition(node: ast.expr, leaves: Mapping[str, Value]) -> Condition:
    """The condition of ``node``; a kind of node that is not listed is refused."""
    match node:
        case ast.BoolOp(ast.And(), parts):
            return AllOf(tuple(_condition(part, leaves) for part in parts))
        case ast.BoolOp(ast.Or(), parts):
            return AnyOf(tuple(_condition(part, leaves) for part in parts))
        case ast.UnaryOp(ast.Not(), inner):
            return Negation(_condition(inner, leaves))
        case ast.Compare(column, [ast.In()], [ast.List(items)]):
            return Membership(str(_leaf(column, leaves)), tuple(_leaf(item, leaves) for item in items))
        case ast.Compare(column, [ast.NotIn()], [ast.List(items)]):
            return Negation(Membership(str(_leaf(column, leaves)), tuple(_leaf(item, leaves) for item in items)))
        case ast.Compare(column, [operator], [value]) if type(operator) in OPERATORS:
            return Comparison(str(_leaf(column, leaves)), OPERATORS[type(operator)], _leaf(value, leaves))
    raise UsageError(f"{type(node).__name__} is not allowed in a condition")


def _leaf(node: ast.expr, leaves: Mapping[str, Value]) -> Value:
    if isinstance(node, ast.Name):
        return leaves[node.id]
    raise UsageError(f"{type(node).__name__} is not allowed in a condition")
