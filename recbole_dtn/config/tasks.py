"""Conditions that derive labels (``rating >= 4 and is_click == 1``), and what can be checked before data is read.

The grammar, parsed by hand (never ``eval``)::

    any        = all ("or" all)*
    all        = negation ("and" negation)*
    negation   = "not" negation | "(" any ")" | comparison
    comparison = column ("==" | "!=" | ">=" | "<=" | ">" | "<") value  |  column ["not"] "in" "[" value ("," value)* "]"
    value      = number | 'text' | "text"

A column is a word of letters, digits, ``_``, ``.`` or ``-``, or any text between backquotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from recbole_dtn.config.preprocess import outcome_columns
from recbole_dtn.config.settings import FieldSettings, Settings, TaskSettings
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.schema import topological_order

__all__ = [
    "AllOf",
    "AnyOf",
    "Comparison",
    "Condition",
    "Membership",
    "Negation",
    "check_fields_and_tasks",
    "label_columns",
    "parse_condition",
    "task_columns",
]

Value = float | str
OPERATORS = ("==", "!=", ">=", "<=", ">", "<")
TOKENS = re.compile(
    r"""\s*(?:
        (?P<operator>==|!=|>=|<=|>|<)
      | (?P<mark>[()\[\],])
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<text>'[^']*'|"[^"]*")
      | `(?P<quoted>[^`]+)`
      | (?P<word>[^\W]\w*(?:[.\-]\w+)*)
    )""",
    re.VERBOSE,
)


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
class AllOf:
    """``part and part ...``."""

    parts: tuple[Condition, ...]

    def columns(self) -> frozenset[str]:
        """The columns it reads."""
        return frozenset().union(*(part.columns() for part in self.parts))


@dataclass(frozen=True)
class AnyOf:
    """``part or part ...``."""

    parts: tuple[Condition, ...]

    def columns(self) -> frozenset[str]:
        """The columns it reads."""
        return frozenset().union(*(part.columns() for part in self.parts))


Condition = Comparison | Membership | Negation | AllOf | AnyOf


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = list(self._tokens())
        self.next = 0

    def _tokens(self) -> Iterator[_Token]:
        position = 0
        while self.source[position:].strip():
            match = TOKENS.match(self.source, position)
            if match is None:
                start = position + len(self.source[position:]) - len(self.source[position:].lstrip())
                self.fail(start, "a column, a number, a quoted text or an operator", self.source[start])
            kind = str(match.lastgroup)
            text, start = match[kind], match.start(kind)
            if kind == "word" and text in ("and", "or", "not", "in"):
                kind = "keyword"
            yield _Token(kind, text, start)
            position = match.end()
        yield _Token("end", "", len(self.source))

    def fail(self, position: int, expected: str, found: str) -> NoReturn:
        shown = f"{found!r}" if found else "the end"
        hint = "; equality is written ==" if found == "=" else ""
        raise UsageError(
            f"condition {self.source!r}, position {position + 1}: expected {expected}, found {shown}{hint}"
        )

    def peek(self, text: str) -> bool:
        token = self.tokens[self.next]
        return token.kind in ("keyword", "mark") and token.text == text

    def take(self, text: str) -> bool:
        if self.peek(text):
            self.next += 1
            return True
        return False

    def need(self, text: str) -> None:
        if not self.take(text):
            token = self.tokens[self.next]
            self.fail(token.position, repr(text), token.text)

    def condition(self) -> Condition:
        found = self.any_of()
        token = self.tokens[self.next]
        if token.kind != "end":
            self.fail(token.position, "'and', 'or' or the end", token.text)
        return found

    def any_of(self) -> Condition:
        parts = [self.all_of()]
        while self.take("or"):
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def all_of(self) -> Condition:
        parts = [self.negation()]
        while self.take("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def negation(self) -> Condition:
        if self.take("not"):
            return Negation(self.negation())
        if self.take("("):
            inner = self.any_of()
            self.need(")")
            return inner
        return self.comparison()

    def comparison(self) -> Condition:
        token = self.tokens[self.next]
        if token.kind not in ("word", "quoted"):
            self.fail(token.position, "a column", token.text)
        self.next += 1
        if self.take("in"):
            return self.membership(token.text)
        if self.peek("not") and self.tokens[self.next + 1].text == "in":
            self.next += 2
            return Negation(self.membership(token.text))
        operator = self.tokens[self.next]
        if operator.kind != "operator":
            self.fail(operator.position, f"one of {' '.join(OPERATORS)} or 'in'", operator.text)
        self.next += 1
        position, value = self.tokens[self.next].position, self.value()
        if isinstance(value, str) and operator.text not in ("==", "!="):
            self.fail(position, f"a number after {operator.text} (texts have no order)", value)
        return Comparison(token.text, operator.text, value)

    def membership(self, column: str) -> Membership:
        self.need("[")
        position, values = self.tokens[self.next].position, [self.value()]
        while self.take(","):
            values.append(self.value())
        self.need("]")
        if len({type(value) for value in values}) > 1:
            self.fail(position, "a list of numbers only or of texts only", "both")
        return Membership(column, tuple(values))

    def value(self) -> Value:
        token = self.tokens[self.next]
        if token.kind not in ("number", "text"):
            self.fail(token.position, "a number or a quoted text", token.text)
        self.next += 1
        return float(token.text) if token.kind == "number" else token.text[1:-1]


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
    return _Parser(source).condition()


def task_columns(task: TaskSettings) -> frozenset[str]:
    """Every column that a task's label, condition or ``observed_when`` reads."""
    found = {task.label} if task.condition is None else parse_condition(task.condition).columns() | {task.label}
    if task.observed_when is not None:
        found = found | parse_condition(task.observed_when).columns()
    return frozenset(found)


def label_columns(settings: Settings) -> dict[str, str]:
    """Columns that may not be inputs, each with the reason in words."""
    found: dict[str, str] = {}
    for task in settings.tasks:
        for column in sorted(task_columns(task)):
            found.setdefault(column, f"task {task.name!r} is made from it")
    if settings.weight_field is not None:
        found.setdefault(settings.weight_field, "it is the weight_field")
    for column in outcome_columns(settings.preprocessor):
        found.setdefault(column, "it is known only after the row was shown")
    return found


def check_fields_and_tasks(settings: Settings) -> None:
    """Refuse what can be known to be wrong before any data is read.

    Raises:
        UsageError: no fields or tasks, a duplicate, an unknown ``after`` or a cycle, a condition that does not parse,
            an option on a field type that has none, a missing ``time_field`` or ``user_field``, and a label column
            among the inputs.
    """
    where = f"dataset {settings.dataset!r}"
    if not settings.fields:
        raise UsageError(f"{where}: fields is empty; list the input columns, such as fields: [{{name: user_id}}]")
    if not settings.tasks:
        raise UsageError(f"{where}: tasks is empty; name at least one, such as tasks: [{{name: click, label: click}}]")
    _refuse_duplicates("fields", [spec.name for spec in settings.fields])
    _refuse_duplicates("tasks", [task.name for task in settings.tasks])
    for task in settings.tasks:
        try:
            task_columns(task)
        except UsageError as error:
            raise UsageError(f"task {task.name!r}: {error}") from None
        if task.kind == "regression" and task.condition is not None:
            raise UsageError(
                f"task {task.name!r}: a regression has no condition; its label is the column {task.label!r}"
            )
    topological_order({task.name: tuple(task.after) for task in settings.tasks})
    _check_field_options(settings)
    _check_split(settings)
    forbidden = label_columns(settings)
    inputs = [spec.name for spec in settings.fields] + [spec.weights for spec in settings.fields if spec.weights]
    for name in inputs:
        if name in forbidden:
            raise UsageError(f"field {name!r} cannot be an input: {forbidden[name]}; remove it from fields")


def _refuse_duplicates(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{key}: {name!r} is listed twice; keep one")
        if not name or any(character in name for character in ":\t\r\n"):
            raise UsageError(f"{key}: {name!r} is not a name (empty, or it holds a colon, tab or line break)")
        seen.add(name)


# What a resolved settings.yaml spells out for every field, so that it is no fault of a token's.
_BINS, _CLIP = (FieldSettings.model_fields[key].default for key in ("bins", "clip"))


def _check_field_options(settings: Settings) -> None:
    for spec in settings.fields:
        if spec.type != "float" and (spec.encoding != "standardise" or spec.bins != _BINS or spec.clip != _CLIP):
            raise UsageError(f"field {spec.name!r}: encoding, bins and clip are for type float, not {spec.type}")
        if spec.encoding == "bins" and spec.clip != _CLIP:
            raise UsageError(f"field {spec.name!r}: clip needs encoding: standardise")
        if spec.type == "float" and spec.encoding == "standardise" and spec.bins != _BINS:
            raise UsageError(f"field {spec.name!r}: bins needs encoding: bins")
        if spec.type == "float" and spec.min_count is not None:
            raise UsageError(f"field {spec.name!r}: min_count is for tokens, not for type float")
        if spec.type != "token_seq" and (spec.pooling is not None or spec.weights is not None):
            raise UsageError(f"field {spec.name!r}: pooling and weights are for type token_seq, not {spec.type}")


def _check_split(settings: Settings) -> None:
    if settings.split in ("time", "user_time") and settings.time_field is None:
        raise UsageError(f"split: {settings.split} needs time_field, the column that orders the rows")
    if settings.split == "user_time" and settings.user_field is None:
        known = nearest("user_id", [spec.name for spec in settings.fields])
        raise UsageError(f"split: user_time needs user_field, the column of users ({known})")
