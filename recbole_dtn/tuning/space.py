"""What is tuned: the settings of all models and those of each, read from YAML, as a search space for one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from recbole_dtn.config.layers import config_file
from recbole_dtn.config.load import Resolved
from recbole_dtn.config.properties import flow_yaml, read_yaml
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.strict import Strict
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import MODELS

__all__ = [
    "ALL",
    "SHIPPED_SPACE",
    "Choices",
    "Dimension",
    "Range",
    "Space",
    "extremes",
    "named_values",
    "read_space",
    "space_of_run",
]

ALL = "all"
"""The section of a space that every model has, but those that are fitted directly."""
SHIPPED_SPACE = "tuning/space.yaml"
EVERY_TASK = "tasks.*."
"""A key that stands for one of each task but the first; the weights of tasks are relative to that."""
COMMAND_LINE = "command line"


class Range(Strict):
    """Numbers from ``low`` to ``high``, both included; whole ones where the setting's value is one."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"expected low < high, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range begins above 0, found {self.low:g}; or name the values as choices")
        return self


class Choices(Strict):
    """Values of any kind."""

    choices: Annotated[list[Any], Field(min_length=1)]


@dataclass(frozen=True)
class Dimension:
    """One setting that is tuned.

    Attributes:
        key: dotted name of the setting. default: its value in trial 0, which the space always contains.
        low, high, log, whole: of a range; ``choices``, each as YAML, otherwise.
    """

    key: str
    default: Any
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    def word(self, value: Any) -> str:
        """The setting with a value of this dimension, as a word of a command line.

        >>> Dimension("optimizer.lr", 0.01, 0.001, 0.1, True).word(0.05), Dimension("a", "1", choices=("1",)).word("1")
        ('--optimizer.lr=0.05', '--a=1')
        """
        return f"--{self.key}={value if self.choices else flow_yaml(value)}"

    def rounded(self, value: Any) -> Any:
        """A number with four significant digits, inside of the range; anything else as it is.

        >>> Dimension("optimizer.lr", 0.01, 0.001, 0.1, True).rounded(0.0123456)
        0.01235
        """
        return min(max(float(f"{value:.4g}"), self.low), self.high) if isinstance(value, float) else value


Space = Mapping[str, Mapping[str, Range | Choices]]
"""Ranges and choices by setting, for ``all`` and for models by name."""


def read_space(given: str | Mapping[str, Any]) -> Space:
    """A space from a file, or from a map as it stands in a leaderboard's file.

    Args:
        given: path of a YAML file, or of a shipped one such as ``tuning/space.yaml``; or the map itself.

    Raises:
        UsageError: for an unknown model, or an entry that is neither a range nor a list of choices.

    >>> read_space({"all": {"dropout": {"choices": [0.0, 0.2]}}})
    {'all': {'dropout': Choices(choices=[0.0, 0.2])}}
    """
    if isinstance(given, str):
        path = config_file(given)
        name, sections = str(path), read_yaml(path)
    else:
        name, sections = "space", dict(given)
    found: dict[str, dict[str, Range | Choices]] = {}
    for section, entries in sections.items():
        known = [ALL, *MODELS.names()]
        if section not in known:
            raise UsageError(f"{name}: {section}: expected {ALL} or a model; {nearest(str(section), known)}")
        if not isinstance(entries, Mapping):
            raise UsageError(f"{name}: {section}: expected a map of settings, found {flow_yaml(entries)}")
        found[section] = {key: _entry(f"{name}: {section}.{key}", entry) for key, entry in entries.items()}
    return found


def _entry(where: str, given: Any) -> Range | Choices:
    kind = Choices if isinstance(given, Mapping) and "choices" in given else Range
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}; expected a range "
            f"such as {{low: 0.001, high: 0.1, log: true}} or {{choices: [...]}}, found {flow_yaml(given)}"
        ) from None


def space_of_run(space: Space, resolved: Resolved, words: Sequence[str] = ()) -> list[Dimension]:
    """The dimensions of one run: those of all models first, so that these draw the same values for every model.

    Args:
        space: of all models. resolved: settings of the run, with their sources. words: that gave them.

    A setting that the command line (or a row of a leaderboard) has set is not tuned. The value that a setting has
    belongs to its dimension: a range is widened to it, and it becomes one of the choices.

    Raises:
        UsageError: for a setting that the model does not have, or a log range that would have to begin at 0.
    """
    settings = resolved.settings
    direct = bool(MODELS.attributes(settings.model).get("fits_directly"))
    sections = [*([] if direct else [ALL]), settings.model]
    entries = {key: entry for section in sections for key, entry in space.get(section, {}).items()}
    found = []
    for written, entry in entries.items():
        for key in _keys(written, settings):
            if not _is_set(key, {**resolved.sources, **dict.fromkeys(_named(words), COMMAND_LINE)}):
                found.append(_dimension(key, entry, _value(key, settings)))
    return found


def _keys(written: str, settings: Settings) -> Iterator[str]:
    """The dotted keys that an entry stands for."""
    if written.startswith(EVERY_TASK):
        yield from (f"tasks.{task.name}.{written.removeprefix(EVERY_TASK)}" for task in settings.tasks[1:])
    else:
        yield written


def _named(words: Sequence[str]) -> Iterator[str]:
    """The keys of words; what is changed inside a list (``tasks.buy.weight``) has no source of its own.

    >>> list(_named(["--tasks={buy: {after: [click]}}", "--experts=[gdcn]"]))
    ['tasks.buy.after', 'experts']
    """
    for word in words:
        key, _, value = word.removeprefix("--").partition("=")
        try:
            yield from _leaves(key, yaml.safe_load(value))
        except (yaml.YAMLError, ValueError):  # text
            yield key


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The keys that a map sets; those beside them stay as they were."""
    if isinstance(value, Mapping):
        for inner, of_inner in value.items():
            yield from _leaves(f"{key}.{inner}", of_inner)
    else:
        yield key


def _is_set(key: str, sources: Mapping[str, str]) -> bool:
    """Whether a key, or what it is a part of, was written on the command line."""
    parts = key.split(".")
    return any(sources.get(".".join(parts[:length])) == COMMAND_LINE for length in range(1, len(parts) + 1))


def _value(key: str, settings: Settings) -> Any:
    """The value of a dotted key."""
    top, *rest = key.split(".")
    values = settings.dump()
    try:
        if top == "tasks":
            name, *rest = rest
            found: Any = next(task for task in values["tasks"] if task["name"] == name)
        else:
            found = values[top]
        for part in rest:
            found = found[part]
    except (KeyError, TypeError, StopIteration):
        own = type(settings).model_fields
        raise UsageError(f"space: {settings.model} has no setting {key!r}; {nearest(top, list(own))}") from None
    return found


def _dimension(key: str, entry: Range | Choices, value: Any) -> Dimension:
    if isinstance(entry, Choices):
        own = flow_yaml(value)
        choices = tuple(dict.fromkeys(map(flow_yaml, entry.choices)))
        return Dimension(key, own, choices=choices if own in choices else (*choices, own))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"space: {key} is {flow_yaml(value)}, no number: name its values as choices")
    if entry.log and value <= 0:
        raise UsageError(
            f"space: {key} is {value:g}, which a log range cannot hold: name its values as choices, or set it"
        )
    low, high = min(entry.low, value), max(entry.high, value)
    whole = isinstance(value, int)
    return Dimension(key, value, low, high, entry.log, whole)


def named_values(dimensions: Sequence[Dimension], named: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial that has these settings, and the defaults of those that are not named.

    Args:
        dimensions: of a run. named: values by dotted key; keys of which the run has no dimension are left out.

    Raises:
        UsageError: for a value that is not in the space.

    >>> lr = Dimension("optimizer.lr", 0.004, 0.001, 0.1, True)
    >>> named_values([lr, Dimension("dropout", "0.0", choices=("0.0", "0.2"))], {"dropout": 0.2, "experts": 4})
    {'optimizer.lr': 0.004, 'dropout': '0.2'}
    """
    return {one.key: _named_value(one, named[one.key]) if one.key in named else one.default for one in dimensions}


def _named_value(one: Dimension, value: Any) -> Any:
    if one.choices:
        if flow_yaml(value) in one.choices:
            return flow_yaml(value)
        raise UsageError(f"{one.key}: expected one of {', '.join(one.choices)}, found {flow_yaml(value)}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and one.low <= value <= one.high and (float(value).is_integer() or not one.whole):
        return int(value) if one.whole else float(value)
    kind = "whole number" if one.whole else "number"
    raise UsageError(f"{one.key}: expected a {kind} from {one.low:g} to {one.high:g}, found {flow_yaml(value)}")


def extremes(dimensions: Sequence[Dimension]) -> Iterator[list[str]]:
    """Words with the ends of every range and with every choice, so that each value that may come can be checked."""
    ends: list[list[Any]] = [list(one.choices) or [_number(one, one.low), _number(one, one.high)] for one in dimensions]
    for place in range(max(map(len, ends), default=0)):
        yield [one.word(values[min(place, len(values) - 1)]) for one, values in zip(dimensions, ends, strict=True)]


def _number(dimension: Dimension, value: float) -> float | int:
    return int(value) if dimension.whole else value
