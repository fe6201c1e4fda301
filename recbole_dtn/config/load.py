"""From defaults, files and the command line to one frozen, typed Settings, with the source of each value.

Later wins: overall < model < data set < config_files in order < command line. Maps merge, lists replace. Nothing here
imports torch, recbole or polars, except the plug-in files that ``plugins`` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model
from pydantic_core import PydanticUndefined

from recbole_dtn.config.checks import check_values
from recbole_dtn.config.choice import KINDS
from recbole_dtn.config.datasets import dataset_layer
from recbole_dtn.config.digest import settings_digest, settings_yaml
from recbole_dtn.config.faults import Fault, describe, faults_of, report
from recbole_dtn.config.layers import command_line, config_layers, ours
from recbole_dtn.config.preprocess import option_model
from recbole_dtn.config.properties import properties_folder, read_tree
from recbole_dtn.config.recbole_names import ALIASES
from recbole_dtn.config.schema import field_of
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.strict import Strict, members
from recbole_dtn.config.suggest import suggest
from recbole_dtn.config.tree import NAMED, Branch, Items, Tree, from_python, merge, places, plain, show, values
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.plugins import check_named
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.shipped import builtin_index

__all__ = [
    "Resolved",
    "resolve",
    "restore",
    "settings_class",
    "settings_digest",
    "settings_yaml",
]

COMMAND_WORDS = ("config_files", "dry_run", "split_seeds", "resume", "trust", "debug", "help", "version")
_HEAD_FIELDS: dict[str, Any] = {
    key: (Settings.model_fields[key].annotation, None) for key in ("model", "dataset", "plugins", "data_path")
}
HEAD = create_model("Head", __base__=Strict, **_HEAD_FIELDS)
"""Settings that decide which other files and classes are read."""


@dataclass(frozen=True)
class Resolved:
    """Settings, and for each dotted key where its value was written (``a.yaml:12``, ``command line``)."""

    settings: Settings
    sources: Mapping[str, str]


def resolve(
    overrides: Sequence[str] | Mapping[str, Any] = (), *, config_files: Sequence[str | Path] = (), trust: bool = False
) -> Resolved:
    """Settings of one run.

    Args:
        overrides: words of a command line (``--key=value``, ``--key value``, ``--flag``), or a mapping of values.
        config_files: YAML files that come before those the overrides name.
        trust: whether plug-in files that only a configuration file names are run; ``--trust`` among the overrides says
            so too.

    Raises:
        UsageError: one message with every fault found, each with its source and the nearest valid names.

    >>> resolved = resolve(["--model=MMoE", "--dataset=ml-100k", "--learning_rate=1e-2"])
    >>> resolved.settings.optimizer.lr, resolved.sources["optimizer.lr"], resolved.sources["epochs"]
    (0.01, 'command line', 'overall.yaml')
    """
    faults: list[Fault] = []
    line = command_line(overrides, faults)
    trust = _trusted(line.pop("trust", None), faults) or trust
    files = [ours(layer, faults) for layer in config_layers(line.pop("config_files", None), config_files, faults)]
    line = ours(line, faults)
    base = read_tree(properties_folder() / "overall.yaml", name="overall.yaml", lines=False)
    given = Branch("")
    for layer in (*files, line):
        given = merge(given, layer)
    asked = merge(base, given)
    head = _head(asked)
    if "plugins" not in line:
        _check_plugins(head.get("plugins", []), asked["plugins"], faults, trust)
    plugins = _load_plugins(head.get("plugins", []), asked["plugins"], faults)
    model, defaults_of_model = _model_layer(head.get("model"), asked["model"], faults)
    defaults = merge(base, ours(defaults_of_model, faults))
    layer = dataset_layer(head.get("dataset"), head.get("data_path"), merge(defaults, given), faults)
    merged = merge(merge(defaults, ours(layer, faults)), given)
    if "plugins" in head:  # else it is of the wrong type, which is found below
        merged["plugins"] = from_python(plugins, merged["plugins"].where)
    faults.extend(_unknown_keys(merged, model))
    settings = _build(merged, model or Settings, defaults, faults)
    if faults or settings is None:
        written = list(merged)
        faults.sort(key=lambda fault: written.index(fault.top) if fault.top in written else -1)
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
        raise report(faults_of(error, model, from_python(values, "recorded settings"))) from error


def settings_class(name: str) -> type[Settings]:
    """The settings class of a registered model; of a built-in one as the index has it, without importing the model.

    Raises:
        UsageError: for an unknown model, or a ``settings_class`` that is not a subclass of :class:`Settings`.
    """
    if MODELS.entry(name).options is not None:
        return _indexed_settings(name)
    found = getattr(MODELS.load(name), "settings_class", None) or Settings
    if not (isinstance(found, type) and issubclass(found, Settings)):
        raise UsageError(f"model {name!r}: settings_class must be a subclass of recbole_dtn.config.settings.Settings")
    shared = Settings.model_fields
    for key, info in found.model_fields.items():
        if key in shared and list(members(info.annotation)) != list(members(shared[key].annotation)):
            raise UsageError(
                f"model {name!r}: {found.__name__}.{key} is another kind of value than the shared setting {key} "
                f"({describe(shared[key].annotation)}); choose another name"
            )
        if key not in shared and hasattr(Settings, key):
            raise UsageError(f"model {name!r}: {found.__name__}.{key} has a name that is reserved; choose another one")
    return found


@cache
def _indexed_settings(name: str) -> type[Settings]:
    """The settings class of a built-in model, made from the index."""
    entry = MODELS.entry(name)
    fields: dict[str, Any] = {key: field_of(schema, KINDS) for key, schema in (entry.options or {}).items()}
    made = create_model(f"{name}Settings", __base__=Settings, **fields)
    made.presets = entry.attributes.get("presets", {})
    made.shared_defaults = entry.attributes.get("shared_defaults", {})
    return made


def _head(tree: Branch) -> dict[str, Any]:
    """The settings of :data:`HEAD` that are of the right type; faults are found again, later, with all."""
    found = {key: values(tree[key]) for key in HEAD.model_fields}
    try:
        HEAD.model_validate(found)
    except ValidationError as error:
        for fault in error.errors():
            found.pop(str(fault["loc"][0]), None)
    return {key: value for key, value in HEAD.model_validate(found) if value is not None}


def _trusted(given: Tree | None, faults: list[Fault]) -> bool:
    """Whether the command line has ``--trust``."""
    value = None if given is None else plain(given)
    if value not in (None, True, False):
        assert given is not None
        faults.append(Fault("trust", f"expected true or false; found {show(given)}", given.where))
    return value is True


def _check_plugins(paths: Sequence[str], written: Tree, faults: list[Fault], trust: bool) -> None:
    """Refuse plug-in files that only a configuration file names.

    Raises:
        UsageError: at once: without its plug-ins most of a file's names are unknown, which would be faults too.
    """
    try:
        check_named(paths, written.where, trust=trust)
    except UsageError as error:
        raise report([*faults, str(error)]) from None


def _load_plugins(paths: Sequence[str], written: Tree, faults: list[Fault]) -> list[str]:
    """Load the plug-in files; their absolute paths, so that the settings mean the same in any folder."""
    try:
        return load_plugins(paths)
    except UsageError as error:
        faults.append(Fault("plugins", str(error).removeprefix("plugins: "), written.where))
        return list(paths)


def _model_layer(name: str | None, tree: Tree, faults: list[Fault]) -> tuple[type[Settings] | None, Branch]:
    """The model's settings class, and the defaults of its own keys."""
    if name is None:
        return None, Branch("")
    try:
        model = settings_class(name)
    except UsageError as error:
        faults.append(Fault("model", str(error), tree.where))
        return None, Branch("")
    where = f"model/{name}.yaml" if MODELS.entry(name).options is not None else f"defaults of {model.__name__}"
    layer = Branch(where)
    for key, info in model.model_fields.items():
        default = info.get_default(call_default_factory=True)
        if default is not PydanticUndefined:
            layer[key] = from_python(default, where)
    shared = from_python(model.shared_defaults, where)
    assert isinstance(shared, Branch)
    return model, merge(layer, shared)


def _unknown_keys(merged: Branch, model: type[Settings] | None) -> Iterator[Fault]:
    """Settings that no model has, or only another model has, and entries of lists that were to be changed by name."""
    kinds = (model or Settings).model_fields
    models = builtin_index()["model"]
    for key, tree in merged.items():
        owners = [name for name, described in models.items() if key in described["options"]]
        if key not in kinds and owners and model is not None:
            name = plain(merged["model"])
            yield Fault(key, f"is a setting of {', '.join(owners)}, not of {name}", tree.where)
        elif key not in kinds and not owners:
            whole = f"{key}.{next(iter(tree))}" if isinstance(tree, Branch) and tree else key
            told = f"unknown setting; {suggest(whole, _all_keys(model or Settings, merged))}"
            if whole in COMMAND_WORDS:
                told = "is no setting: training takes it on its command line, this command or a file does not"
            yield Fault(key, told, tree.where)
        if key in NAMED and isinstance(tree, Items):
            names = [values(entry).get("name") for entry in tree if isinstance(entry, Branch)]
            for name, where in tree.unknown.items():
                if name in names:
                    told = f"expected a map of what changes, such as {{weight: 2}} or {key}.{name}.weight=2"
                    yield Fault(f"{key}.{name}", told, where)
                    continue
                yield Fault(f"{key}.{name}", f"no entry of {key} has this name; {nearest(name, names)}", where)


def _all_keys(model: type[Settings], merged: Branch) -> list[str]:
    """Every name that a setting may be given under, dotted keys and the preprocessor's options included."""
    nested = [
        f"{key}.{inner}"
        for key, info in model.model_fields.items()
        for inner in getattr(info.annotation, "model_fields", {})
    ]
    options = option_model(plain(merged["preprocessor"]))
    nested += [f"preprocess.{option}" for option in getattr(options, "model_fields", ())]
    return [*model.model_fields, *nested, *ALIASES, *COMMAND_WORDS]


def _build(merged: Branch, model: type[Settings], defaults: Branch, faults: list[Fault]) -> Settings | None:
    """Build and check the settings.

    An invalid key is replaced by its default, so that the remaining checks still run.
    """
    tree = Branch(merged.where)
    tree.update({key: merged[key] for key in model.model_fields if key in merged})
    faulty = {fault.top for fault in faults}
    settings: Settings | None = None
    for _ in range(2):
        for key in faulty & defaults.keys():
            tree[key] = defaults[key]
        try:
            settings = model.model_validate(values(tree))
            break
        except ValidationError as error:
            found = [fault for fault in faults_of(error, model, tree) if fault.top not in faulty]
            needed = f"needed by {model.__name__}"
            faults.extend(fault if fault.top in tree else replace(fault, where=needed) for fault in found)
            faulty |= {fault.top for fault in found}
    if settings is not None:
        faults.extend(check_values(settings, merged, faulty))
    return settings
