"""What is known of a method beyond its summary: equation, options, and size; for ``list --details`` and docs/."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, create_model

from recbole_dtn.cli.docstrings import body_of, inline, to_terminal
from recbole_dtn.cli.help_text import aligned, wrapped
from recbole_dtn.config.choice import KINDS, keyword_options, options_class
from recbole_dtn.config.faults import declared, describe
from recbole_dtn.config.load import settings_class
from recbole_dtn.config.properties import option_help
from recbole_dtn.config.schema import field_of
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.strict import Strict
from recbole_dtn.registry import BUILT_IN, MODELS, PREPROCESSORS, Registry, resolve
from recbole_dtn.shipped import builtin_details

__all__ = [
    "FIELDS", "OUTPUT", "SIZES", "TASKS", "VALUES", "WIDTH", "Details", "Option", "details", "indexed_options",
    "shown", "size_words",
]  # fmt: skip

FIELDS, VALUES, WIDTH, OUTPUT, TASKS = 8, 100, 16, 64, 2
SIZES = {
    "interaction": f"{FIELDS} fields of {VALUES} values each, embeddings of {WIDTH} numbers, {OUTPUT} outputs",
    "model": f"{TASKS} tasks, {FIELDS} fields of {VALUES} values each, embeddings of {WIDTH} numbers",
    "balancer": f"{TASKS} tasks",
}
"""The size at which methods of a kind are counted, with their default options."""


@dataclass(frozen=True)
class Option:
    """One option: its default as YAML (empty where there is none), what is expected, and what it means."""

    name: str
    default: str
    expected: str
    meaning: str


@dataclass(frozen=True)
class Details:
    """A method: its entry, the text of its docstring, its options and its sizes (empty where none are known)."""

    name: str
    summary: str
    paper: str
    origin: str
    text: str
    options: tuple[Option, ...]
    sizes: Mapping[str, int]


def details(registry: Registry, name: str) -> Details:
    """The details of a registered method: of a built-in one from the index, of any other from its class."""
    entry = registry.entry(name)
    if entry.origin == BUILT_IN:
        found = builtin_details().get(registry.kind, {}).get(name, {})
        text, sizes = found.get("text", ""), found.get("sizes") or {}
        options = indexed_options(entry.options, entry.options_class)
        return Details(name, entry.summary, entry.paper, entry.origin, text, options, sizes)
    target = registry.load(name)
    origin = entry.origin
    entry = registry.declared.get(f"{target.__module__}:{target.__qualname__}", entry)  # has the summary and the paper
    from recbole_dtn.cli.sizes import measured

    model = _options_of(registry, name, target)
    options = _options(model, _own(model))
    return Details(name, entry.summary, entry.paper, origin, body_of(target.__doc__), options,
                   measured(registry, name) or {})  # fmt: skip


def indexed_options(schemas: Mapping[str, Any] | None, declared_class: Any = None) -> tuple[Option, ...]:
    """Options as the index describes them: JSON schemas by name, or a class that declares them."""
    if schemas is None:
        model: type[BaseModel] = resolve(declared_class) if declared_class is not None else Strict
        return _options(model, model.model_fields)
    fields: dict[str, Any] = {key: field_of(schema, KINDS) for key, schema in schemas.items()}
    return _options(create_model("Indexed", __base__=Strict, **fields), fields)


def _options_of(registry: Registry, name: str, target: Any) -> type[BaseModel]:
    if registry is MODELS:
        return settings_class(name)
    if registry is PREPROCESSORS and registry.entry(name).options_class is None:
        return keyword_options(target, leave_out=("name",))
    return options_class(registry, name)


def _own(model: type[BaseModel]) -> list[str]:
    """Options that are not settings of every model."""
    shared = Settings.model_fields if issubclass(model, Settings) else {}
    return [key for key in model.model_fields if key not in shared]


def _options(model: type[BaseModel], names: Iterable[str]) -> tuple[Option, ...]:
    kinds = declared(model)
    return tuple(
        Option(key.key, key.default, describe(kinds[key.key]), key.comment) for key in option_help(model, names)
    )


def size_words(sizes: Mapping[str, int], kind: str) -> str:
    """The sizes in a sentence, empty where none are known.

    >>> size_words({"parameters": 1200, "flops": 2048}, "interaction").partition(" (")[0]
    '1,200 parameters, 2,048 FLOPs per row'
    """
    words = {"parameters": "parameters", "tables": "in tables", "flops": "FLOPs per row"}
    found = [f"{sizes[key]:,} {word}" for key, word in words.items() if key in sizes]
    return f"{', '.join(found)} ({SIZES[kind]})" if found else ""


def shown(kind: str, found: Details) -> list[str]:
    """The lines of one method in a terminal."""
    source = "; ".join(filter(None, [found.paper, found.origin]))
    lines = [found.name, *wrapped(f"{inline(found.summary)} ({source}).", 2)]
    lines += to_terminal(found.text)
    size = size_words(found.sizes, kind)
    if size:
        lines += ["", *wrapped(size, 2)]
    if found.options:
        lines.append("")
    for option in found.options:
        head = f"  {option.name}: {option.default}" if option.default else f"  {option.name}"
        lines += aligned(head, f"{option.expected}: {option.meaning}" if option.meaning else option.expected, 30)
    return lines
