"""Formulas over the scores of a row, such as ``click * buy ** 0.5``.

The grammar::

    sum     = product (("+" | "-") product)*
    product = sign (("*" | "/") sign)*
    sign    = ("+" | "-") sign | power
    power   = atom ["**" sign]
    atom    = number | name | function "(" sum ("," sum)* ")" | "(" sum ")"

A name is a word of letters, digits, ``_`` or ``.``, or any text between backquotes. As in
Python, ``-a ** 2`` is ``-(a ** 2)``. Nothing is evaluated but what the grammar has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dtn.errors import UsageError, nearest

__all__ = ["FUNCTIONS", "Formula", "parse_formula"]

Floats = NDArray[np.float64]
Work = Callable[[Mapping[str, Floats]], Any]
"""Values by name to the value of a part of a formula."""
NESTING = 50
"""Parts of a formula that are open at once: a bound on the recursion."""
LENGTH = 1_000
"""Longest formula, in characters: a bound on the recursion of its evaluation."""

FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (np.abs, 1, 1),
    "exp": (np.exp, 1, 1),
    "log": (np.log, 1, 1),
    "log1p": (np.log1p, 1, 1),
    "max": (lambda *values: np.maximum.reduce(np.broadcast_arrays(*values)), 2, 20),
    "min": (lambda *values: np.minimum.reduce(np.broadcast_arrays(*values)), 2, 20),
    "sqrt": (np.sqrt, 1, 1),
}
"""Function by name, with the fewest and most arguments."""
OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
}
TOKENS = re.compile(
    r"""(?P<number>(?>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.]))
      | (?P<operator>\*\*|[+\-*/])
      | (?P<mark>[(),])
      | (?P<name>`[^`]+`|(?!\d)\w+(?:\.\w+)*)
      | (?P<space>\s+)
      | (?P<unknown>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Formula:
    """A parsed formula.

    Attributes:
        source: its text. names: the values that it reads, in the order of their first use.
    """

    source: str
    names: tuple[str, ...]
    _work: Work

    def __call__(self, values: Mapping[str, Floats]) -> Floats:
        """The value in each row; not finite where it is undefined, such as the logarithm of 0.

        Args:
            values: arrays of one shape by name.

        >>> formula = parse_formula("click * max(buy, 0.5) - 1")
        >>> formula({"click": np.array([0.5, 1.0]), "buy": np.array([0.2, 0.75])}).tolist()
        [-0.75, -0.25]
        """
        shape = np.broadcast_shapes(*(np.shape(array) for array in values.values()))
        with np.errstate(all="ignore"):
            found = self._work({name: np.asarray(values[name], np.float64) for name in self.names})
        return np.array(np.broadcast_to(found, shape), np.float64)

    def check(self, known: Mapping[str, Any] | tuple[str, ...] | list[str], what: str) -> None:
        """Refuse a name that is not among ``known``, which a message calls ``what``.

        Raises:
            UsageError: naming it, and the nearest.
        """
        for name in self.names:
            if name not in known:
                raise UsageError(f"formula {self.source!r}: {name!r} is no {what}; {nearest(name, known)}")


def parse_formula(source: str) -> Formula:
    """Parse a formula.

    Raises:
        UsageError: with the position (from 1) of what could not be read.

    >>> parse_formula("click * `add to cart` ** 0.5").names
    ('click', 'add to cart')
    >>> parse_formula("click *")
    Traceback (most recent call last):
    recbole_dtn.errors.UsageError: formula 'click *', position 8: expected a number, a name or '(', found the end
    """
    if len(source) > LENGTH:
        raise UsageError(f"formula: expected at most {LENGTH:,} characters; found {len(source):,}")
    parser = _Parser(source)
    work = parser.sum()
    parser.expect("end", "an operator or the end")
    if not parser.names:
        raise UsageError(f"formula {source!r}: it reads no score, so that all rows are alike")
    return Formula(source, tuple(parser.names), work)


class _Parser:
    """Recursive descent, one method per rule of the grammar."""

    def __init__(self, source: str) -> None:
        self.source = source
        found = [(str(match.lastgroup), match[0], match.start()) for match in TOKENS.finditer(source)]
        self.tokens = [token for token in found if token[0] != "space"]
        self.tokens.append(("end", "", len(source)))
        self.at, self.opened = 0, 0
        self.names: list[str] = []

    def take(self, *texts: str) -> str | None:
        """The next token, where its text is one of these."""
        kind, text, _ = self.tokens[self.at]
        if kind in ("operator", "mark") and text in texts:
            self.at += 1
            return text
        return None

    def expect(self, wanted: str, words: str) -> None:
        """Step over a mark, or be at the end."""
        kind, text, _ = self.tokens[self.at]
        if wanted not in (kind, text):
            raise self.fault(words)
        self.at += 1

    def fault(self, expected: str) -> UsageError:
        _, text, position = self.tokens[self.at]
        found = repr(text) if text else "the end"
        hint = "; powers are written **" if text == "^" else ""
        return UsageError(f"formula {self.source!r}, position {position + 1}: expected {expected}, found {found}{hint}")

    def sum(self) -> Work:
        found = self.product()
        while operator := self.take("+", "-"):
            found = _joined(OPERATORS[operator], found, self.product())
        return found

    def product(self) -> Work:
        found = self.sign()
        while operator := self.take("*", "/"):
            found = _joined(OPERATORS[operator], found, self.sign())
        return found

    def sign(self) -> Work:
        # Every rule that nests passes here: signs, powers, parentheses and arguments.
        self.opened += 1
        if self.opened > NESTING:
            raise self.fault(f"at most {NESTING} nested parentheses, signs and powers")
        operator = self.take("+", "-")
        if operator is None:
            found = self.power()
        else:
            inner = self.sign()
            found = inner if operator == "+" else _applied(np.negative, [inner])
        self.opened -= 1
        return found

    def power(self) -> Work:
        base = self.atom()
        return _joined(np.power, base, self.sign()) if self.take("**") else base

    def atom(self) -> Work:
        kind, text, _ = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            value = float(text)
            return lambda values: value
        if kind == "name":
            self.at += 1
            if self.take("("):
                return self.call(text)
            name = text.strip("`")
            if name not in self.names:
                self.names.append(name)
            return lambda values: values[name]
        if self.take("("):
            found = self.sum()
            self.expect(")", "an operator or ')'")
            return found
        raise self.fault("a number, a name or '('")

    def call(self, name: str) -> Work:
        if name not in FUNCTIONS:
            raise UsageError(f"formula {self.source!r}: unknown function {name!r}; {nearest(name, FUNCTIONS)}")
        function, fewest, most = FUNCTIONS[name]
        arguments = [self.sum()]
        while self.take(","):
            arguments.append(self.sum())
        self.expect(")", "',' or ')'")
        if not fewest <= len(arguments) <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise UsageError(f"formula {self.source!r}: {name} takes {wanted} values; found {len(arguments)}")
        return _applied(function, arguments)


def _joined(function: Callable[[Any, Any], Any], first: Work, second: Work) -> Work:
    return lambda values: function(first(values), second(values))


def _applied(function: Callable[..., Any], arguments: list[Work]) -> Work:
    return lambda values: function(*(argument(values) for argument in arguments))
