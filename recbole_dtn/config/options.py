"""Options of an interaction: the shipped defaults or a plug-in's own, and what was given, typed."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

from recbole_dtn.config.properties import read_tree, shipped
from recbole_dtn.config.settings import Strict
from recbole_dtn.config.tree import Branch, Items, Leaf, Tree, found, from_python, is_null, plain
from recbole_dtn.config.typed import Fault, declared, describe, report, typed
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import INTERACTIONS

__all__ = ["interaction_options", "keyword_options", "options_class", "typed_interactions"]


def interaction_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of one interaction: its defaults, with what was given in their place.

    Args:
        name: a registered interaction. given: the options that differ; a ``name`` among them is passed over.

    Raises:
        UsageError: for an unknown interaction or option, a wrong type or a value out of range.

    >>> interaction_options("gdcn", {"layers": 3})
    {'layers': 3, 'structure': 'stacked', 'hidden': [], 'low_rank': None}
    """
    faults: list[Fault] = []
    tree = Branch("")
    tree.update({key: from_python(value, "") for key, value in given.items() if key != "name"})
    options = _all_options(name, tree, name, faults)
    if faults:
        raise report(faults, of="options")
    return options


def typed_interactions(tree: Tree, faults: list[Fault], key: str = "interactions") -> list[dict[str, Any]]:
    """A list of modules as ``[{name, ...given options}]``; repeats are kept.

    An item is a name, or a map with ``name`` and options.
    """
    if isinstance(tree, Leaf) and tree.loose and not is_null(tree):
        names = Items(tree.where)
        names.extend(Leaf(part.strip(), tree.where, loose=True) for part in str(tree.value).split(","))
        tree = names
    if not isinstance(tree, Items) or not tree:
        expected = "expected a list of interactions, such as [gdcn, {name: masknet, blocks: 3}]"
        faults.append(Fault(key, f"{expected}; {found(tree)}", tree.where))
        return []
    return [_one(item, f"{key}[{position}]", faults) for position, item in enumerate(tree)]


def _one(item: Tree, key: str, faults: list[Fault]) -> dict[str, Any]:
    given = Branch(item.where)
    name: Any = plain(item)
    if isinstance(item, Branch):
        given.update({option: value for option, value in item.items() if option != "name"})
        name = plain(item["name"]) if "name" in item else None
    if not isinstance(name, str):
        expected = "expected a name, or a map with a name such as {name: masknet, blocks: 3}"
        faults.append(Fault(key, f"{expected}; {found(item)}", item.where))
        return {}
    try:
        INTERACTIONS.entry(name)
    except UsageError as error:
        faults.append(Fault(key, str(error), item.where))
        return {"name": name}
    options = _all_options(name, given, key, faults)
    return {"name": name, **{option: options.get(option) for option in given}}


def options_class(name: str) -> type[BaseModel]:
    """The typed options of an interaction; a plug-in's are its constructor's keyword-only arguments."""
    own: type[BaseModel] | None = INTERACTIONS.options(name)
    return own if own is not None else keyword_options(INTERACTIONS.load(name))


def keyword_options(target: Any, *, leave_out: Collection[str] = ()) -> type[BaseModel]:
    """The keyword-only arguments of a class's constructor as a typed model: hints, ranges and defaults."""
    constructor = target.__init__
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except NameError:  # a hint that only a type checker sees
        hints = {}
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(constructor).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.name in leave_out:
            continue
        required = parameter.default is inspect.Parameter.empty
        guess = Any if required or parameter.default is None else type(parameter.default)
        fields[parameter.name] = (hints.get(parameter.name, guess), ... if required else parameter.default)
    return create_model(f"{target.__name__}Options", __base__=Strict, **fields)


def _all_options(name: str, given: Branch, key: str, faults: list[Fault]) -> dict[str, Any]:
    """Defaults and given options, typed; a faulty one keeps its default."""
    model = options_class(name)
    kinds = declared(model)
    file = shipped("interaction", name)
    written = read_tree(file, name=f"interaction/{name}.yaml", lines=False) if file else Branch("")
    values: dict[str, Any] = {}
    before = len(faults)
    for option, tree in {**written, **given}.items():
        if option not in kinds:
            message = f"{name} has no such option; {nearest(option, kinds)}"
            faults.append(Fault(f"{key}.{option}", message, tree.where))
        else:
            values[option] = typed(tree, kinds[option], f"{key}.{option}", faults)
    for option, info in model.model_fields.items():
        if info.is_required() and option not in values:
            message = f"{name} needs this option; expected {describe(kinds[option])}"
            faults.append(Fault(f"{key}.{option}", message, given.where))
    if len(faults) > before:
        return values
    try:
        return model.model_validate(values).model_dump()
    except ValidationError as error:
        for fault in error.errors():
            place = ".".join([key, *(str(part) for part in fault["loc"])])
            faults.append(Fault(place, fault["msg"], given.where))
        return values
