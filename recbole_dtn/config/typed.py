"""From text to the declared type, with every fault found and none raised on the way."""

from __future__ import annotations

import os
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from recbole_dtn.config.tree import Branch, Items, Leaf, Tree, found, is_null, parse_text, plain
from recbole_dtn.errors import UsageError, nearest

__all__ = ["Fault", "declared", "describe", "read_typed", "report", "typed"]

M = TypeVar("M", bound=BaseModel)

_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
BOOLEAN_WORDS = _TRUE | _FALSE


@dataclass(frozen=True)
class Fault:
    """One wrong value: the dotted key, what was expected and found, and where it was written."""

    key: str
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message} ({self.where})" if self.where else f"{self.key}: {self.message}"


class _MismatchError(Exception):
    """The value is not of the type; the caller says what was expected."""


def report(faults: Iterable[Fault | str], *, of: str = "settings") -> UsageError:
    """One error that lists every fault, one per line and each once."""
    lines = list(dict.fromkeys(str(fault) for fault in faults))
    if len(lines) == 1:
        return UsageError(lines[0])
    return UsageError("\n".join([f"{len(lines)} {of} are wrong:", *(f"  {line}" for line in lines)]))


def declared(model: type[BaseModel]) -> dict[str, Any]:
    """Name -> annotation of each field, ranges included."""
    return {
        name: Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        for name, info in model.model_fields.items()
    }


def _strip(annotation: Any) -> tuple[Any, list[Any]]:
    """The bare type and its constraints."""
    constraints: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        for item in metadata:
            constraints.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return annotation, constraints


def _is_union(base: Any) -> bool:
    return get_origin(base) in (Union, types.UnionType)


def _model_class(base: Any) -> type[BaseModel] | None:
    return base if isinstance(base, type) and issubclass(base, BaseModel) else None


_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path", Any: "any value"}
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def describe(annotation: Any) -> str:
    """What a type expects, in words.

    >>> from recbole_dtn.config.settings import Count
    >>> describe(Count | None)
    'an integer >= 1, or null'
    >>> describe(list[Literal["csv", "wandb"]])
    'a list of (one of csv, wandb)'
    """
    base, constraints = _strip(annotation)
    origin, arguments = get_origin(base), get_args(base)
    if _is_union(base):
        words = [describe(member) for member in arguments if member is not types.NoneType]
        return " or ".join(words) + (", or null" if types.NoneType in arguments else "")
    if origin is Literal:
        return f"one of {', '.join(str(option) for option in arguments)}"
    if origin is list:
        item = describe(arguments[0])
        return f"a list of ({item})" if " " in item else f"a list of {item}"
    if origin is tuple:
        return f"a list of {len(arguments)} values, each {describe(arguments[0])}"
    part = _model_class(base)
    if part is not None:
        return f"a map with the keys {', '.join(part.model_fields)}"
    if origin is dict:
        return "a map"
    words_of_type = _NAMES.get(base, getattr(base, "__name__", str(base)))
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in constraints
        for name, sign in _LIMITS.items()
        if getattr(limit, name, None) is not None
    ]
    return f"{words_of_type} {' and '.join(limits)}" if limits else words_of_type


def typed(tree: Tree, annotation: Any, key: str, faults: list[Fault]) -> Any:
    """The value as its declared type; faults are appended and leave the value as it was written.

    Args:
        tree: what was written. annotation: the declared type, ranges included.
        key: dotted key, for the faults.
    """
    base, constraints = _strip(annotation)
    before = len(faults)
    try:
        value = _convert(tree, base, annotation, key, faults)
        if len(faults) == before and constraints:
            TypeAdapter(annotation).validate_python(value)
        return value
    except (_MismatchError, ValidationError):
        hint = _nearest_option(tree, base) or _part_option(tree, base, key)
        faults.append(Fault(key, f"expected {describe(annotation)}; {found(tree)}{hint}", tree.where))
        return plain(tree)


def _nearest_option(tree: Tree, base: Any) -> str:
    if get_origin(base) is not Literal or not isinstance(tree, Leaf):
        return ""
    hint = nearest(str(tree.value), [str(option) for option in get_args(base)])
    return f": {hint.split(' (known')[0]}" if hint.startswith("did you mean") else ""


def _part_option(tree: Tree, base: Any, key: str) -> str:
    """What to write where one value was given for a map: its first key."""
    part = next(filter(None, map(_model_class, get_args(base) if _is_union(base) else [base])), None)
    if part is None or not isinstance(tree, Leaf) or is_null(tree):
        return ""
    return f": did you mean {key}.{next(iter(part.model_fields))}={tree.value}?"


def _convert(tree: Tree, base: Any, annotation: Any, key: str, faults: list[Fault]) -> Any:
    origin, arguments = get_origin(base), get_args(base)
    if base is Any:
        return plain(tree)
    if _is_union(base):
        return _union(tree, arguments, key, faults)
    if origin is Literal:
        return _literal(tree, arguments)
    if origin in (list, tuple):
        return _sequence(tree, origin, arguments, key, faults)
    if origin is dict or base is dict:
        if not isinstance(tree, Branch):
            raise _MismatchError
        item = arguments[1] if arguments else Any
        return {name: typed(value, item, f"{key}.{name}", faults) for name, value in tree.items()}
    if model := _model_class(base):
        return _fields(tree, model, key, faults)
    if base in (bool, int, float, str, Path):
        return _scalar(tree, base)
    return TypeAdapter(annotation).validate_python(plain(tree))


def _union(tree: Tree, members: tuple[Any, ...], key: str, faults: list[Fault]) -> Any:
    """The first member that fits, text last; where none does, the faults of the one member of the same shape."""
    if types.NoneType in members and is_null(tree):
        return None
    others = sorted((m for m in members if m is not types.NoneType), key=lambda member: _strip(member)[0] is str)
    attempts: list[tuple[Any, list[Fault]]] = []
    for member in others:
        wrong: list[Fault] = []
        value = typed(tree, member, key, wrong)
        if not wrong:
            return value
        attempts.append((member, wrong))
    deeper = [wrong for _, wrong in attempts if any(fault.key != key for fault in wrong)]
    if len(deeper) == 1:
        faults.extend(deeper[0])
        return plain(tree)
    raise _MismatchError


def _literal(tree: Tree, options: tuple[Any, ...]) -> Any:
    if not isinstance(tree, Leaf):
        raise _MismatchError
    for option in options:
        if option is None and is_null(tree):
            return None
        try:
            if _scalar(tree, type(option)) == option:
                return option
        except _MismatchError:
            continue
    raise _MismatchError


def _sequence(tree: Tree, origin: Any, arguments: tuple[Any, ...], key: str, faults: list[Fault]) -> list[Any]:
    if isinstance(tree, Leaf) and tree.loose and not is_null(tree):
        parts = Items(tree.where)
        parts.extend(Leaf(part.strip(), tree.where, loose=True) for part in str(tree.value).split(","))
        tree = parts
    if not isinstance(tree, Items):
        raise _MismatchError
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        if len(tree) != len(arguments):
            raise _MismatchError
        kinds = list(arguments)
    else:
        kinds = [arguments[0] if arguments else Any] * len(tree)
    return [typed(item, kind, f"{key}[{i}]", faults) for i, (item, kind) in enumerate(zip(tree, kinds, strict=True))]


def _fields(tree: Tree, model: type[BaseModel], key: str, faults: list[Fault]) -> dict[str, Any]:
    if not isinstance(tree, Branch):
        raise _MismatchError
    kinds = declared(model)
    prefix = f"{key}." if key else ""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if name in kinds:
            values[name] = typed(value, kinds[name], f"{prefix}{name}", faults)
        else:
            faults.append(Fault(f"{prefix}{name}", f"unknown key; {nearest(name, kinds)}", value.where))
    for name, info in model.model_fields.items():
        if name not in tree and info.is_required():
            faults.append(Fault(f"{prefix}{name}", f"is missing; expected {describe(kinds[name])}", tree.where))
    return values


def _scalar(tree: Tree, kind: Any) -> Any:
    """A bool, int, float, str or Path; text is parsed, a Python value must already be of the kind."""
    if not isinstance(tree, Leaf) or is_null(tree):
        raise _MismatchError
    value = tree.value
    if kind in (str, Path):
        if isinstance(value, bool) or not isinstance(value, str | Integral | Real | os.PathLike):
            raise _MismatchError
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        return text if kind is str else Path(text)
    if isinstance(value, str):
        return _parse(value.strip(), kind)
    if isinstance(value, bool) != (kind is bool):
        raise _MismatchError
    if kind is bool:
        return value
    if kind is int and isinstance(value, Integral):
        return int(value)
    if kind is float and isinstance(value, Real) and abs(float(value)) < float("inf"):
        return float(value)
    raise _MismatchError


def _parse(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in BOOLEAN_WORDS:
            raise _MismatchError
        return text.lower() in _TRUE
    try:
        number = kind(text)
    except ValueError:
        raise _MismatchError from None
    if not abs(number) < float("inf"):
        raise _MismatchError
    return number


def read_typed(path: Path, model: type[M], *, defaults: Mapping[str, Any] | None = None) -> M:
    """Read a YAML file as a typed model.

    Args:
        path: the file. model: the class. defaults: values of keys that the file leaves out.

    Raises:
        UsageError: one message with every fault, each with key, file and line.
    """
    from recbole_dtn.config.properties import read_tree
    from recbole_dtn.config.tree import from_python

    written = read_tree(path)
    tree = Branch(written.where)
    tree.update({key: from_python(value, "default") for key, value in (defaults or {}).items()})
    tree.update(written)
    faults: list[Fault] = []
    values = _fields(tree, model, "", faults)
    if faults:
        raise report(faults, of=f"values in {path}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise report(Fault(".".join(map(str, e["loc"])), e["msg"], str(path)) for e in error.errors()) from error


def command_line_tree(text: str) -> Tree:
    """A value on the command line: YAML flow syntax when it begins with [ or {, else one scalar."""
    if text[:1] in ("[", "{"):
        return parse_text(text, "command line", lines=False, loose=True)
    return Leaf(text, "command line", loose=True)
