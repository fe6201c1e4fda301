"""The settings of a leaderboard's rows, those that tell a row from the others and from the defaults first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from recbole_dtn.config.digest import NOT_DIGESTED
from recbole_dtn.config.load import settings_class
from recbole_dtn.config.properties import flow_yaml, properties_folder, read_yaml
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.registry import MODELS

__all__ = ["Setting", "by_task", "common_settings", "defaults_of", "flat", "own_settings"]

Setting = tuple[str, str, str | None]
"""Dotted key, value and default as YAML; the default is None where the value is the default."""
FLATTENED = ("optimizer", "embedding_optimizer", "scheduler", "embedding_compression")
"""Maps whose keys are shown each on a line of its own."""


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that decide a row's numbers, as YAML by dotted key.

    >>> flat({"epochs": 3, "optimizer": {"name": "adam", "lr": 0.01}, "data_path": "dataset", "tasks": [{"name": "a"}]})
    {'epochs': '3', 'optimizer.name': 'adam', 'optimizer.lr': '0.01', 'tasks': '[{name: a}]'}
    """
    return dict(_flat(settings))


def by_task(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as YAML by dotted key, those of the tasks under their names.

    >>> by_task({"epochs": 3, "tasks": [{"name": "like", "weight": 2.0}]})
    {'epochs': '3', 'tasks.like.weight': '2.0'}
    """
    found = flat({key: value for key, value in settings.items() if key != "tasks"})
    for task in settings.get("tasks", ()):
        found |= {f"tasks.{task['name']}.{key}": flow_yaml(value) for key, value in task.items() if key != "name"}
    return found


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if key in NOT_DIGESTED or key in ("model", "dataset"):
            continue
        if key in FLATTENED and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", flow_yaml(of_inner)) for inner, of_inner in value.items())
        else:
            yield key, flow_yaml(value)


def common_settings(rows: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """The settings of one value in all rows; those that are no default of all models first.

    Args:
        rows: the settings of each row, as its records have them.
    """
    found = [flat(settings) for settings in rows]
    if not found:
        return []
    shared = {key: value for key, value in found[0].items() if all(other.get(key) == value for other in found)}
    return _marked(shared, flat(_shared_defaults()))


def own_settings(model: str, settings: Mapping[str, Any], common: Sequence[Setting]) -> list[Setting]:
    """The settings of a row that are not ``common``; those that differ from the model's defaults first.

    Args:
        model: its name; of one that is not registered (a plug-in), the defaults of its own settings are not known.
        settings: of the row. common: of all rows.
    """
    shared = {key for key, _, _ in common}
    found = {key: value for key, value in flat(settings).items() if key not in shared}
    return _marked(found, flat(defaults_of(model)))


def _marked(found: Mapping[str, str], defaults: Mapping[str, str]) -> list[Setting]:
    marked = [
        (key, value, None if defaults.get(key) == value else defaults.get(key, "")) for key, value in found.items()
    ]
    return sorted(marked, key=lambda setting: (setting[2] is None, setting[0]))


def _shared_defaults() -> dict[str, Any]:
    return _complete(Settings, read_yaml(properties_folder() / "overall.yaml"))


def _complete(options: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    """Settings with every default of nested ones, as records have them."""
    try:
        return options.model_validate(values).dump()
    except ValidationError:  # a plug-in without defaults for all of its settings
        return values


def defaults_of(model: str) -> dict[str, Any]:
    """The defaults of all models, and those of this one over them; without the data set's."""
    found: dict[str, Any] = read_yaml(properties_folder() / "overall.yaml")
    if model not in MODELS.names():
        return _complete(Settings, found)
    try:
        options = settings_class(model)
    except RecBoleDTNError:  # a plug-in whose settings are wrong must not stop a page
        return _complete(Settings, found)
    for key, info in options.model_fields.items():
        default = info.get_default(call_default_factory=True)
        if default is not PydanticUndefined:
            found[key] = to_jsonable_python(default)
    for key, value in options.shared_defaults.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = {**found[key], **value} if both else value
    return _complete(options, {**found, "model": model})
