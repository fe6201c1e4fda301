"""The base of every typed value: frozen, no unknown key, and text read as YAML and a command line write it."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["SEQUENCES", "Count", "NonNegative", "Positive", "Rate", "Strict", "Widths", "members"]

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Widths = list[Count]
SEQUENCES = (list, tuple, Sequence)
"""Origins of types that are written as a list."""


def members(annotation: Any) -> Iterator[Any]:
    """The types that a value may have: the members of a union, each without its ``Annotated``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


class Strict(BaseModel):
    """Frozen; an unknown key, NaN and infinity are errors.

    Values may be text, as YAML and the command line have them: pydantic turns it into the declared type. A setting
    declared as text keeps its text (``007``). If a list is declared and text is not, ``a,b`` is read as a list, and
    ``a`` as a list of one value unless a single number is allowed too.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, coerce_numbers_to_str=True
    )

    @model_validator(mode="before")
    @classmethod
    def _read_values(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        kinds = cls.model_fields
        return {key: _read(value, kinds[key].annotation) if key in kinds else value for key, value in values.items()}


def _read(value: Any, annotation: Any) -> Any:
    """What pydantic is given in place of a value that it would read otherwise than a user means it."""
    kinds = list(members(annotation))
    if isinstance(value, bool):
        # pydantic takes true for the number 1: an object of no declared type is refused
        return value if {bool, Any} & set(kinds) else object()
    if not isinstance(value, str | int | float):
        return value
    options = [option for kind in kinds if get_origin(kind) is Literal for option in get_args(kind)]
    for option in options:
        if str(option) == str(value):
            return option
    if not isinstance(value, str):
        return value
    one = "," not in value and {int, float} & set(kinds)  # a number where a number or a list is declared
    if any(get_origin(kind) in SEQUENCES for kind in kinds) and str not in kinds and value and not one:
        return [part.strip() for part in value.split(",")]
    return value
