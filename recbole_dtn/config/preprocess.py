"""Options of the preprocessors: what a data set's YAML says under ``preprocess:``, typed.

The values of a protocol are in ``properties/dataset/``; a default below is the meaning of a key left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic_core import PydanticCustomError

from recbole_dtn.config.choice import keyword_options
from recbole_dtn.config.datasets import dataset_values, protocols
from recbole_dtn.config.faults import read_model
from recbole_dtn.config.strict import Strict
from recbole_dtn.config.tree import from_python, plain
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import BUILT_IN, PREPROCESSORS, resolve

__all__ = [
    "PreprocessOptions",
    "PreprocessorOptions",
    "option_model",
    "option_words",
    "outcome_columns",
    "preprocess_options",
    "read_options",
]


class PreprocessOptions(Strict):
    """What every preprocessor with protocols knows."""

    outcomes: ClassVar[tuple[str, ...]] = ()
    """Columns of the atomic files that are known only after a row was shown: none is ever an input."""

    protocol: str = "default"  # its name, as --protocol takes it


def read_options(preprocessor: Any, given: Any) -> Any:
    """The options of a preprocessor, defaults filled in; plain values where it declares none.

    Raises:
        ValidationError: for an unknown option, a wrong type or a value out of range.
    """
    if isinstance(given, Strict):
        return given
    model = option_model(preprocessor)
    if model is None and not isinstance(given, Mapping):
        raise PydanticCustomError("preprocess", "expected a map")
    return plain(from_python(given, "")) if model is None else model.model_validate(given)


class PreprocessorOptions:
    """Marks the setting whose class the setting ``preprocessor`` beside it decides."""

    def describe(self) -> str:
        """What is expected, in words."""
        return "a map"

    def options_class(self, tree: Any, parent: Any) -> type[Strict] | None:
        """The class whose fields the keys are, for messages."""
        return option_model(getattr(parent.get("preprocessor"), "value", None))


def preprocess_options(preprocessor: str, given: Any) -> PreprocessOptions:
    """The options of a preprocessor, defaults filled in.

    Raises:
        UsageError: for an unknown option, a wrong type or a value out of range.
    """
    if isinstance(given, PreprocessOptions):
        return given
    found = option_model(preprocessor)
    model = found if found is not None and issubclass(found, PreprocessOptions) else PreprocessOptions
    return read_model(model, from_python(dict(given), ""), of=f"options of {preprocessor}", prefix="preprocess")


def outcome_columns(preprocessor: str | None) -> tuple[str, ...]:
    """Columns that a preprocessor writes and that are not inputs, whatever the tasks are.

    >>> "play_time_ms" in outcome_columns("kuairand"), outcome_columns(None)
    (True, ())
    """
    outcomes: tuple[str, ...] = getattr(option_model(preprocessor), "outcomes", ())
    return outcomes


def option_words(preprocessor: str, options: PreprocessOptions) -> list[str]:
    """The arguments of ``preprocess <set>`` that give these options: the protocol, and options that differ from it.

    >>> option_words("kuairand", preprocess_options("kuairand", {"version": "pure", "tasks": ["is_click", "is_like"]}))
    ['--version=pure', '--tasks=is_click,is_like']
    """
    known = protocols(preprocessor)
    base = dataset_values(known[options.protocol], None).get("preprocess") if options.protocol in known else None
    usual = preprocess_options(preprocessor, base or {"protocol": options.protocol}).model_dump(mode="json")
    words = [] if options.protocol == next(iter(known), None) else [f"--protocol={options.protocol}"]
    differing = {key: value for key, value in options.model_dump(mode="json").items() if value != usual[key]}
    return words + [f"--{key}={shlex.quote(_spelled(value))}" for key, value in differing.items()]


def _spelled(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "[]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def option_model(preprocessor: Any) -> type[Strict] | None:
    """The class of a preprocessor's options; None where there is no such preprocessor or it declares none.

    The options of a plug-in without such a class are the keyword-only arguments of its constructor.
    """
    if not isinstance(preprocessor, str):
        return None
    try:
        entry = PREPROCESSORS.entry(preprocessor)
    except UsageError:
        return None  # check_values reports an unknown name
    if entry.options_class is None and entry.origin != BUILT_IN:
        return keyword_options(PREPROCESSORS.load(preprocessor), leave_out=("name",))
    found: type[Strict] | None = resolve(entry.options_class)
    return found
