"""Options of the preprocessors: what a data set's YAML says under ``preprocess:``, typed.

The values of a protocol are in ``properties/dataset/``; a default below is the meaning of a key left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ValidationError

from recbole_dtn.config.datasets import dataset_values, protocols
from recbole_dtn.config.settings import Strict
from recbole_dtn.config.tree import Branch, from_python, plain
from recbole_dtn.config.typed import Fault, declared, report, typed
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import PREPROCESSORS

__all__ = [
    "PreprocessOptions",
    "option_kinds",
    "option_words",
    "outcome_columns",
    "preprocess_options",
    "typed_preprocess",
]


class PreprocessOptions(Strict):
    """What every preprocessor with protocols knows."""

    outcomes: ClassVar[tuple[str, ...]] = ()
    """Columns of the atomic files that are known only after a row was shown: none is ever an input."""

    protocol: str = "default"  # its name, as --protocol takes it


def typed_preprocess(tree: Branch, preprocessor: Any, faults: list[Fault]) -> dict[str, Any]:
    """The options that were given, as their declared types; those of a preprocessor without declared ones as written.

    Args:
        tree: what was written under ``preprocess``. preprocessor: its name, or None. faults: appended to.
    """
    model = _options_class(preprocessor)
    if model is None:
        values: dict[str, Any] = plain(tree)
        return values
    found: dict[str, Any] = typed(tree, model, "preprocess", faults)
    return found


def preprocess_options(preprocessor: str, given: Mapping[str, Any]) -> PreprocessOptions:
    """The options of a preprocessor, defaults filled in.

    Raises:
        UsageError: for an unknown option, a wrong type or a value out of range.
    """
    model = _options_class(preprocessor) or PreprocessOptions
    faults: list[Fault] = []
    tree = from_python(dict(given), "")
    assert isinstance(tree, Branch)
    values = typed(tree, model, "preprocess", faults)
    if faults:
        raise report(faults, of=f"options of {preprocessor}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise report(
            Fault(".".join(["preprocess", *map(str, fault["loc"])]), fault["msg"].removeprefix("Value error, "), "")
            for fault in error.errors()
        ) from error


def outcome_columns(preprocessor: str | None) -> tuple[str, ...]:
    """Columns that a preprocessor writes and that are no inputs, whatever the tasks are.

    >>> "play_time_ms" in outcome_columns("kuairand"), outcome_columns(None)
    (True, ())
    """
    model = _options_class(preprocessor)
    return () if model is None else model.outcomes


def option_kinds(preprocessor: Any) -> dict[str, Any]:
    """Names and types of a preprocessor's options; none where there is no preprocessor or it declares none."""
    model = _options_class(preprocessor)
    return {} if model is None else declared(model)


def option_words(preprocessor: str, options: PreprocessOptions) -> list[str]:
    """What ``preprocess <set>`` has to be told to get these options: the protocol, and what differs from it.

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


def _options_class(preprocessor: Any) -> type[PreprocessOptions] | None:
    if not isinstance(preprocessor, str):
        return None
    try:
        found: type[PreprocessOptions] | None = PREPROCESSORS.options(preprocessor)
    except UsageError:
        return None  # said elsewhere
    return found
