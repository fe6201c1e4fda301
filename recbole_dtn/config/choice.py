"""A setting that names a registered method: the name and the options, typed by what the method declares."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from recbole_dtn.config.metric_names import metric_name
from recbole_dtn.config.schema import field_of
from recbole_dtn.config.strict import Strict
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import BALANCERS, INTERACTIONS, LOSSES, METRICS, Registry, resolve

__all__ = [
    "Balancer", "Choice", "ChoiceOf", "Interaction", "Loss", "Metric", "choose", "keyword_options", "options_class",
]  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A registered method and every one of its options, defaults included."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> dict[str, Any]:
        """``{name, **options}``, as YAML has it."""
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class ChoiceOf:
    """Marks a setting as a :class:`Choice` of one registry. A name and a map are shown where a value is wrong."""

    registry: Registry
    name: str
    example: str

    def describe(self) -> str:
        """What is expected, in words."""
        return f"a name, or a map with a name such as {self.example}"

    def read(self, value: Any) -> Choice:
        """A name, or a map of name and options, as a choice.

        Raises:
            PydanticCustomError: for an unknown name. ValidationError: for a wrong option.
        """
        if isinstance(value, Choice):
            value = value.dump()
        if isinstance(value, str):
            value = {"name": value}
        name = value.get("name") if isinstance(value, Mapping) else None
        if not isinstance(name, str):
            raise PydanticCustomError("choice", "expected a name")
        try:
            registered, implied = self.taken_apart(name)
            model = options_class(self.registry, registered)
        except UsageError as error:
            raise PydanticCustomError("usage", "{told}", {"told": str(error)}) from None
        given = {key: item for key, item in value.items() if key != "name"}
        for key, item in implied.items():
            if given.setdefault(key, item) != item:
                told = f"{name!r} says {key}: {item}; leave {key} out, or write the name {registered!r}"
                raise PydanticCustomError("usage", "{told}", {"told": told})
        options = model.model_validate(given)
        return Choice(name, {key: getattr(options, key) for key in model.model_fields})

    def taken_apart(self, name: str) -> tuple[str, dict[str, Any]]:
        """The registered name in ``name``, and the options that the rest of it implies."""
        return name, {}

    def options_class(self, tree: Any, parent: Any) -> type[BaseModel] | None:
        """The class whose fields the keys of ``tree`` are, for messages; None where the name is unknown."""
        try:
            registered, _ = self.taken_apart(str(getattr(tree.get("name"), "value", "")))
            return options_class(self.registry, registered)
        except (UsageError, AttributeError):
            return None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(Choice.dump)
        return core_schema.no_info_plain_validator_function(self.read, serialization=dump)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"method": self.registry.kind}


class MetricChoice(ChoiceOf):
    """:class:`ChoiceOf` a metric, whose name may hold a depth and a part."""

    def taken_apart(self, name: str) -> tuple[str, dict[str, Any]]:
        found = metric_name(name)
        return found.base, found.options


Interaction = Annotated[Choice, ChoiceOf(INTERACTIONS, "gdcn", "{name: masknet, blocks: 3}")]
Balancer = Annotated[Choice, ChoiceOf(BALANCERS, "fixed", "{name: gradnorm, alpha: 1}")]
Metric = Annotated[Choice, MetricChoice(METRICS, "auc", "{name: gauc, weights: equal}")]
Loss = Annotated[Choice, ChoiceOf(LOSSES, "bce", "{name: bce}")]
KINDS: dict[str, Any] = {"interaction": Interaction, "balancer": Balancer, "metric": Metric, "loss": Loss}
"""Kind of method -> the type of a setting that chooses one."""


def choose(registry: Registry, spec: Any) -> Choice:
    """A choice from a name, a map with ``name`` and options, or a choice.

    Raises:
        UsageError: for an unknown method or option, a wrong type or a value out of range.

    >>> choose(INTERACTIONS, {"name": "gdcn", "layers": 3}).options["layers"]
    3
    """
    from recbole_dtn.config.faults import read_model
    from recbole_dtn.config.tree import from_python

    kind = KINDS[registry.kind]
    fields: dict[str, Any] = {registry.kind: (kind, ...)}
    one: Any = create_model("One", __base__=Strict, **fields)
    found: Choice = getattr(read_model(one, from_python({registry.kind: spec}, "")), registry.kind)
    return found


def options_class(registry: Registry, name: str) -> type[Strict]:
    """The typed options of a method: from the index, from a class it declares, or from its constructor.

    Raises:
        UsageError: for an unknown method.
    """
    entry = registry.entry(name)
    if entry.options_class is not None:
        declared: type[Strict] = resolve(entry.options_class)
        return declared
    if entry.options is not None:
        return _indexed_options(registry, name)
    return keyword_options(registry.load(name))


@cache
def _indexed_options(registry: Registry, name: str) -> type[Strict]:
    """The typed options of a built-in method, made from the index."""
    described = registry.entry(name).options or {}
    fields: dict[str, Any] = {key: field_of(schema, KINDS) for key, schema in described.items()}
    return create_model(f"{name}Options", __base__=Strict, **fields)


def keyword_options(target: Any, *, leave_out: Collection[str] = ()) -> type[Strict]:
    """The keyword-only arguments of a class's constructor as a typed model: hints, ranges, defaults, descriptions."""
    constructor = target.__init__
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except NameError:  # a hint that only a type checker sees
        hints = {}
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(constructor).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.name in leave_out:
            continue
        if hasattr(Strict, parameter.name) or parameter.name.startswith(("_", "model_")) or parameter.name == "name":
            raise UsageError(
                f"{target.__name__}: the option {parameter.name!r} has a name that is reserved; choose another one"
            )
        required = parameter.default is inspect.Parameter.empty
        guess = Any if required or parameter.default is None else type(parameter.default)
        hint = hints.get(parameter.name, guess)
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        fields[parameter.name] = (hint, FieldInfo() if required else default)
    return create_model(f"{target.__name__}Options", __base__=Strict, **fields)
