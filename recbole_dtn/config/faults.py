"""Every fault of a typed value in one message: the key, what was expected and found, where, and the nearest name."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from recbole_dtn.config.strict import SEQUENCES, members
from recbole_dtn.config.tree import Branch, Items, Leaf, Tree, found, is_null, values
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.report.text import counted

__all__ = ["Fault", "declared", "describe", "faults_of", "read_model", "report"]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Fault:
    """One wrong value: the dotted key, what was expected and found, and where it was written."""

    key: str
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message} ({self.where})" if self.where else f"{self.key}: {self.message}"

    @property
    def top(self) -> str:
        """The key's first part: the setting."""
        return self.key.split(".")[0].split("[")[0]


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


def read_model(model: type[M], tree: Tree, *, of: str = "settings", prefix: str = "", owner: str = "") -> M:
    """A tree as a typed model.

    Args:
        model: the class. tree: what was written. of: what the message calls the values. prefix: put before each key.
        owner: what has the values as its options, in words.

    Raises:
        UsageError: one message with every fault, each with its key and where it was written.

    >>> from recbole_dtn.config.settings import OptimizerSettings
    >>> from recbole_dtn.config.tree import from_python
    >>> read_model(OptimizerSettings, from_python({"name": "adam", "lr": "fast"}, "call"))
    Traceback (most recent call last):
    recbole_dtn.errors.UsageError: 3 settings are wrong:
      lr: expected a number > 0; found 'fast' (call)
      betas: is missing; expected a list of 2 values, each a number >= 0 and < 1 (call)
      eps: is missing; expected a number > 0 (call)
    """
    try:
        return model.model_validate(values(tree))
    except ValidationError as error:
        raise report(faults_of(error, model, tree, prefix=prefix, owner=owner), of=of) from None


# ---- what a type expects -------------------------------------------------------------------------------------------

_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path", Any: "any value"}
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _strip(annotation: Any) -> tuple[Any, list[Any]]:
    """The bare type and its constraints and markers."""
    constraints: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        for item in metadata:
            constraints.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return annotation, constraints


def _is_union(base: Any) -> bool:
    return len(list(members(base))) > 1


def _marker(constraints: list[Any]) -> Any:
    """What marks a value whose class depends on what was written (:class:`~recbole_dtn.config.choice.ChoiceOf`)."""
    return next((item for item in constraints if hasattr(item, "options_class")), None)


def describe(annotation: Any) -> str:
    """What a type expects, in words.

    >>> from recbole_dtn.config.strict import Count
    >>> describe(Count | None)
    'an integer >= 1, or null'
    >>> describe(list[Literal["csv", "wandb"]])
    'a list of (one of csv, wandb)'
    """
    base, constraints = _strip(annotation)
    marker = _marker(constraints)
    if marker is not None:
        return str(marker.describe())
    origin, arguments = get_origin(base), get_args(base)
    if origin is not Literal and _is_union(base):
        bounds = tuple(item for item in constraints if any(hasattr(item, name) for name in _LIMITS))
        members_of = [member for member in arguments if member is not types.NoneType]
        words = [describe(Annotated[member, *bounds] if bounds else member) for member in members_of]
        return " or ".join(words) + (", or null" if types.NoneType in arguments else "")
    if origin is Literal:
        return f"one of {', '.join(str(option) for option in arguments)}"
    if origin in (list, Sequence):
        return _list_of(arguments[0])
    if origin is tuple:
        return f"a list of {len(arguments)} values, each {describe(arguments[0])}"
    if isinstance(base, type) and issubclass(base, BaseModel):
        return f"a map with the keys {', '.join(base.model_fields)}"
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


def _list_of(item: Any) -> str:
    marker = _marker(_strip(item)[1])
    if marker is not None:
        return f"a list of {marker.registry.kind}s, such as [{marker.name}, {marker.example}]"
    if item is Any:
        return "a list"
    words = describe(item)
    return f"a list of ({words})" if " " in words else f"a list of {words}"


# ---- from pydantic's errors to messages ----------------------------------------------------------------------------


@dataclass
class _Place:
    """A node on the path to an invalid value: key, written text, declared type, and the class of its parts."""

    key: str
    tree: Tree
    annotation: Any
    model: type[BaseModel] | None = None
    missing: bool = False
    owner: str = ""
    order: tuple[int, ...] = ()


def faults_of(
    error: ValidationError, model: type[BaseModel], tree: Tree, *, prefix: str = "", owner: str = ""
) -> list[Fault]:
    """The faults that pydantic found, in our words.

    Args:
        error: from validating ``values(tree)``. model: the class. tree: what was written. prefix: put before each key.
        owner: what has the values as its options, in words.
    """
    found_at: list[tuple[_Place, dict[str, Any]]] = []
    for one in error.errors(include_url=False):
        found_at.append((_walk(_Place(prefix, tree, model, model, owner=owner), one["loc"]), dict(one)))
    # Each member of a union has its errors: those of the member that has the written form are kept.
    found_at.sort(key=lambda pair: pair[0].order)
    deepest = {place.key for place, _ in found_at}
    faults = []
    for place, details in found_at:
        within = any(key != place.key and key.startswith((f"{place.key}.", f"{place.key}[")) for key in deepest)
        if within and isinstance(place.tree, Branch | Items):
            continue
        faults.append(Fault(place.key or "settings", _message(place, details), place.tree.where))
    return list(dict.fromkeys(faults))


def _walk(place: _Place, loc: tuple[int | str, ...]) -> _Place:
    """Follow an error's location; parts that name a union's member are passed over."""
    for part in loc:
        step = _step(place, part)
        if step is not None:
            step.order = (*place.order, _position(place.tree, part))
            place = step
    return place


def _position(tree: Tree, part: int | str) -> int:
    """Position of a part within a value; missing parts sort last."""
    if isinstance(tree, Branch):
        return list(tree).index(str(part)) if part in tree else len(tree)
    return part if isinstance(part, int) else 0


def _step(place: _Place, part: int | str) -> _Place | None:
    if isinstance(part, int):
        for kind in members(place.annotation):
            arguments = get_args(kind)
            if get_origin(kind) in SEQUENCES and arguments:
                item = arguments[min(part, len(arguments) - 1)]
                if isinstance(place.tree, Items) and part >= len(place.tree):
                    return None
                inside = place.tree[part] if isinstance(place.tree, Items) else place.tree
                return _at(f"{place.key}[{part}]", inside, item, place)
        return None
    key = f"{place.key}.{part}" if place.key and not place.key.endswith("--") else f"{place.key}{part}"
    inner = place.tree.get(part) if isinstance(place.tree, Branch) else None
    if place.model is not None and (part in place.model.model_fields or inner is not None):
        info = place.model.model_fields.get(part)
        annotation = declared(place.model)[part] if info is not None else None
        if inner is None:
            return _Place(key, place.tree, annotation, missing=True, model=place.model, owner=place.owner)
        return _at(key, inner, annotation, place) if info else _Place(key, inner, None, place.model, owner=place.owner)
    mapped = [kind for kind in members(place.annotation) if get_origin(kind) is dict]
    if mapped and inner is not None:
        return _at(key, inner, get_args(mapped[0])[1], place)
    return None


def _at(key: str, tree: Tree, annotation: Any, parent: _Place) -> _Place:
    """A place with the class of its parts: a nested model, or the options of the method that ``tree`` names."""
    for kind in [annotation, *get_args(_strip(annotation)[0])]:  # a union's members with their markers
        bare, constraints = _strip(kind)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            return _Place(key, tree, annotation, bare)
        marker = _marker(constraints)
        if marker is not None:
            name = tree.get("name") if isinstance(tree, Branch) else None
            owner = str(name.value) if isinstance(name, Leaf) else ""
            return _Place(key, tree, annotation, marker.options_class(tree, parent.tree), owner=owner)
    return _Place(key, tree, annotation)


def _message(place: _Place, error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden" and place.model is not None:
        known = nearest(place.key.rpartition(".")[2].removeprefix("--"), place.model.model_fields)
        return f"{place.owner} has no such option; {known}" if place.owner else f"unknown key; {known}"
    if place.missing:
        what = f"{place.owner} needs this option" if place.owner else "is missing"
        return f"{what}; expected {describe(place.annotation)}"
    if kind in ("value_error", "usage"):
        return str(error["msg"]).removeprefix("Value error, ")
    least = error.get("ctx", {}).get("min_length") if kind == "too_short" else None
    more = f", with at least {counted(least, 'value')}" if least else ""
    return f"expected {describe(place.annotation)}{more}; {found(place.tree)}{_hint(place)}"


def _hint(place: _Place) -> str:
    """The nearest valid word, or where one value was given for a map the first key of the map."""
    if not isinstance(place.tree, Leaf) or is_null(place.tree):
        return ""
    literals = [get_args(kind) for kind in members(place.annotation) if get_origin(kind) is Literal]
    options = [str(option) for literal in literals for option in literal]
    if options:
        hint = nearest(str(place.tree.value), options)
        return f": {hint.split(' (known')[0]}" if hint.startswith("did you mean") else ""
    if place.model is not None and not _marker(_strip(place.annotation)[1]) and place.model.model_fields:
        return f": did you mean {place.key}.{next(iter(place.model.model_fields))}={place.tree.value}?"
    return ""
