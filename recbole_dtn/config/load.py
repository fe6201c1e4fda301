"""From defaults, files and the command line to one frozen, typed Settings, with the source of each value.

Later wins: overall < model < data set < config_files in order < command line. Maps merge, lists replace. Nothing here
imports torch, recbole or polars, but for the plug-in files that ``plugins`` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from recbole_dtn.config.checks import check_values
from recbole_dtn.config.datasets import dataset_layer
from recbole_dtn.config.digest import settings_digest, settings_yaml
from recbole_dtn.config.layers import builtin_models, command_line, config_layers, merge, ours, place, places
from recbole_dtn.config.options import interaction_options, typed_interactions
from recbole_dtn.config.preprocess import option_kinds, typed_preprocess
from recbole_dtn.config.properties import properties_folder, read_tree, shipped
from recbole_dtn.config.recbole_names import ALIASES
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.suggest import suggest
from recbole_dtn.config.tree import Branch, Tree, from_python, plain
from recbole_dtn.config.typed import Fault, declared, describe, report, typed
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import MODELS, load_plugins

__all__ = [
    "Resolved",
    "interaction_options",
    "resolve",
    "restore",
    "settings_class",
    "settings_digest",
    "settings_yaml",
]

COMMAND_WORDS = ("config_files", "dry_run", "debug", "help", "version")


@dataclass(frozen=True)
class Resolved:
    """Settings, and for each dotted key where its value was written (``a.yaml:12``, ``command line``)."""

    settings: Settings
    sources: Mapping[str, str]


def resolve(overrides: Sequence[str] | Mapping[str, Any] = (), *, config_files: Sequence[str | Path] = ()) -> Resolved:
    """Settings of one run.

    Args:
        overrides: words of a command line (``--key=value``, ``--key value``, ``--flag``), or a mapping of values.
        config_files: YAML files that come before those the overrides name.

    Raises:
        UsageError: one message with every fault found, each with its source and the nearest valid names.

    >>> resolved = resolve(["--model=MMoE", "--dataset=ml-100k", "--learning_rate=1e-2"])
    >>> resolved.settings.optimizer.lr, resolved.sources["optimizer.lr"], resolved.sources["epochs"]
    (0.01, 'command line', 'overall.yaml')
    """
    faults: list[Fault] = []
    line = command_line(overrides, faults)
    files = [ours(layer, faults) for layer in config_layers(line.pop("config_files", None), config_files, faults)]
    line = ours(line, faults)
    base = read_tree(properties_folder() / "overall.yaml", name="overall.yaml", lines=False)
    given = Branch("")
    for layer in (*files, line):
        given = merge(given, layer)
    head = _head(merge(base, given), faults)
    try:
        load_plugins(head.get("plugins", []))
    except UsageError as error:
        faults.append(Fault("plugins", str(error).removeprefix("plugins: "), merge(base, given)["plugins"].where))
    model, model_tree = _model_layer(head.get("model"), merge(base, given)["model"], faults)
    defaults = merge(base, ours(model_tree, faults))
    layer = dataset_layer(head.get("dataset"), head.get("data_path"), merge(defaults, given), faults)
    merged = merge(merge(defaults, ours(layer, faults)), given)
    values = _values(merged, model or Settings, known_model=model is not None, faults=faults)
    settings = _build(values, model or Settings, merged, defaults, faults)
    if faults or settings is None:
        raise report(faults)
    return Resolved(settings, places(merged))


def restore(values: Mapping[str, Any]) -> Settings:
    """Settings that :meth:`Settings.dump` wrote, as they were: no file is looked for and no default filled in.

    The plug-ins that ``values["plugins"]`` names must be loaded.

    Raises:
        UsageError: for an unknown model, or a key that this version does not know or lacks.
    """
    model = settings_class(str(values.get("model")))
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise report(
            Fault(".".join(map(str, e["loc"])), e["msg"], "recorded settings") for e in error.errors()
        ) from error


def _head(tree: Branch, faults: list[Fault]) -> dict[str, Any]:
    """The settings that decide which other files and classes are read; faults are found again, later, with all."""
    kinds = declared(Settings)
    values = {}
    for key in ("model", "dataset", "plugins", "data_path"):
        found: list[Fault] = []
        value = typed(tree[key], kinds[key], key, found)
        if not found:
            values[key] = value
    return values


def settings_class(name: str) -> type[Settings]:
    """The settings class of a registered model.

    Raises:
        UsageError: for an unknown model.
    """
    found = MODELS.options(name)
    if found is None:
        found = getattr(MODELS.load(name), "settings_class", None) or Settings
    if not (isinstance(found, type) and issubclass(found, Settings)):
        raise UsageError(f"model {name!r}: settings_class must be a subclass of recbole_dtn.config.settings.Settings")
    return found


def _model_layer(name: str | None, tree: Tree, faults: list[Fault]) -> tuple[type[Settings] | None, Branch]:
    """The model's settings class, and the defaults of its own keys: its shipped YAML, or the class's own defaults."""
    if name is None:
        return None, Branch("")
    try:
        model = settings_class(name)
    except UsageError as error:
        faults.append(Fault("model", str(error), tree.where))
        return None, Branch("")
    where = f"defaults of {model.__name__}"
    layer = Branch(where)
    for key, info in model.model_fields.items():
        default = info.get_default(call_default_factory=True)
        if default is not PydanticUndefined:
            layer[key] = from_python(default, where)
    file = shipped("model", name)
    return model, merge(layer, read_tree(file, name=f"model/{name}.yaml", lines=False)) if file else layer


def _values(merged: Branch, model: type[Settings], *, known_model: bool, faults: list[Fault]) -> dict[str, Any]:
    """Typed values of the known keys; an unknown key is a fault."""
    kinds = declared(model)
    owners = {
        key: [name for name, cls in builtin_models().items() if key in cls.model_fields]
        for key in merged
        if key not in kinds
    }
    values: dict[str, Any] = {}
    for key, tree in merged.items():
        if key == "interactions" and key in kinds:
            values[key] = typed_interactions(tree, faults)
        elif key == "preprocess" and isinstance(tree, Branch):
            values[key] = typed_preprocess(tree, plain(merged["preprocessor"]), faults)
        elif key in kinds:
            values[key] = typed(tree, kinds[key], key, faults)
        elif owners[key] and known_model:
            message = f"is a setting of {', '.join(owners[key])}, not of {merged['model'].value}"  # type: ignore[union-attr]
            faults.append(Fault(key, message, tree.where))
        elif not owners[key]:
            whole = f"{key}.{next(iter(tree))}" if isinstance(tree, Branch) and tree else key
            faults.append(Fault(key, f"unknown setting; {suggest(whole, _all_keys(model, merged))}", tree.where))
    for key in kinds.keys() - merged.keys():
        faults.append(Fault(key, f"is missing; expected {describe(kinds[key])}", f"needed by {model.__name__}"))
    return values


def _all_keys(model: type[Settings], merged: Branch) -> list[str]:
    """Every name that a setting may be given under, dotted keys and the preprocessor's options included."""
    nested = [
        f"{key}.{inner}"
        for key, info in model.model_fields.items()
        for inner in getattr(info.annotation, "model_fields", {})
    ]
    nested += [f"preprocess.{option}" for option in option_kinds(plain(merged["preprocessor"]))]
    return [*model.model_fields, *nested, *ALIASES, *COMMAND_WORDS]


def _build(
    values: dict[str, Any], model: type[Settings], merged: Branch, defaults: Branch, faults: list[Fault]
) -> Settings | None:
    """The settings, checked as a whole; where a key is faulty its default stands in, so that the rest is checked."""
    faulty = {fault.key.split(".")[0].split("[")[0] for fault in faults}
    spare: list[Fault] = []
    whole = {
        key: typed(defaults[key], kind, key, spare) if key in faulty and key in defaults else values.get(key)
        for key, kind in declared(model).items()
    }
    try:
        settings = model.model_validate(whole)
    except ValidationError as error:
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"]) or "settings"
            top = key.split(".")[0]
            if top not in faulty:
                faults.append(Fault(key, fault["msg"], place(merged, fault["loc"])))
        return None
    faults.extend(check_values(settings, merged, faulty))
    return settings
