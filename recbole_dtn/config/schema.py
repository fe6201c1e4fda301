"""Types of options as JSON schemas, and back: how the index describes a method without importing its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import Field, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

__all__ = ["field_of", "schema_of"]

LIMITS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
LENGTHS = {"minItems": "min_length", "maxItems": "max_length", "minLength": "min_length"}
SCALARS = {"integer": int, "number": float, "string": str, "boolean": bool, "null": None}


def schema_of(info: FieldInfo) -> dict[str, Any]:
    """The JSON schema of a field, with ``default`` (unless it is required) and ``description``.

    >>> schema_of(FieldInfo(annotation=int, default=2, description="layers"))
    {'type': 'integer', 'default': 2, 'description': 'layers'}
    """
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    schema = TypeAdapter(kind).json_schema()
    default = info.get_default(call_default_factory=True)
    if default is not PydanticUndefined:
        schema["default"] = to_jsonable_python(default)
    if info.description:
        schema["description"] = info.description
    return schema


def field_of(schema: Mapping[str, Any], methods: Mapping[str, Any]) -> tuple[Any, FieldInfo]:
    """The type and the field that :func:`schema_of` described, as ``pydantic.create_model`` takes them.

    Args:
        schema: of one option. methods: kind of method -> the type of a setting that chooses one.

    >>> annotation, field = field_of({"type": "integer", "minimum": 1, "default": 2}, {})
    >>> field.default, annotation
    (2, typing.Annotated[int, FieldInfo(annotation=NoneType, required=True, metadata=[Ge(ge=1)])])
    """
    default = schema.get("default", PydanticUndefined)
    return _type(schema, methods), FieldInfo(default=default, description=schema.get("description"))


def _type(schema: Mapping[str, Any], methods: Mapping[str, Any]) -> Any:
    limits = {name: schema[key] for key, name in {**LIMITS, **LENGTHS}.items() if key in schema}
    if "method" in schema:
        return methods[schema["method"]]
    if "anyOf" in schema:
        return Union[tuple(_type(member, methods) for member in schema["anyOf"])]  # noqa: UP007
    if "enum" in schema or "const" in schema:
        return Literal[tuple(schema.get("enum", [schema.get("const")]))]
    kind = schema.get("type")
    if kind is None:
        return Any
    if kind == "array":
        if "prefixItems" in schema:
            return tuple[tuple(_type(member, methods) for member in schema["prefixItems"])]  # type: ignore[misc]
        base: Any = list[_type(schema.get("items", {}), methods)]  # type: ignore[misc]
    elif kind == "object":
        inner = schema.get("additionalProperties", {})
        base = dict[str, _type(inner if isinstance(inner, Mapping) else {}, methods)]  # type: ignore[misc]
    else:
        base = SCALARS[kind]
    return Annotated[base, Field(**limits)] if limits else base
