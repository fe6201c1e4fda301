"""Checks of a RecBole Dataset: it is refused where RecBole takes a label for an input or has changed values."""

from __future__ import annotations

from collections.abc import Mapping

from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType

from recbole_dtn.bridge.translator import observed_rows
from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError, nearest

__all__ = ["check_dataset", "check_fields", "check_labels"]


def check_dataset(dataset: Dataset) -> None:
    """The Dataset is that of the training split, not the whole one."""
    # RecBole keeps the rows of each file of a given split; the whole Dataset has their sum.
    sizes = getattr(dataset, "file_size_list", [])
    whole = any(sizes[1:]) and len(dataset.inter_feat) == sum(sizes)
    if whole or not isinstance(dataset.inter_feat, Interaction):
        raise UsageError(
            "expected the training Dataset (train_data.dataset), found the whole one: the vocabularies are those of "
            "the training split"
        )


def check_fields(settings: Settings, dataset: Dataset, config: Config) -> None:
    """Every input column is loaded, has the type of its field, and holds the values of the files."""
    # The order of the checks decides which fault a user sees first: columns, types, then values.
    _check_numbered(settings, dataset)
    for spec in settings.fields:
        for name, kind in ((spec.name, spec.type), *([(spec.weights, "float_seq")] if spec.weights else [])):
            if name not in dataset.field2type:
                raise UsageError(
                    f"field {name!r}: RecBole's Dataset has no such column; {nearest(name, dataset.field2type)} "
                    "(load_col: ~ loads every column)"
                )
            if dataset.field2type[name].value != kind:
                found = dataset.field2type[name].value
                raise UsageError(f"field {name!r}: the settings say {kind}, the atomic files :{found}")
            _refuse_changed(name, config)
        if spec.type != "float" and spec.name not in dataset.field2id_token:
            raise UsageError(f"field {spec.name!r} is in two atomic files, and RecBole leaves it without ids: drop one")
        if spec.weights in config["numerical_features"]:
            raise UsageError(f"weights {spec.weights!r} must not be among numerical_features")


def _check_numbered(settings: Settings, dataset: Dataset) -> None:
    """The domain's column is loaded; it and the group's (which may be missing: RecBole groups nothing) are tokens."""
    for key, name in (("domain_field", settings.domain_field), ("group_field", settings.group_field)):
        if name in dataset.field2type and dataset.field2type[name] != FeatureType.TOKEN:
            raise UsageError(
                f"{key} {name!r}: expected a column of type token, found :{dataset.field2type[name].value}"
            )
    if settings.domain_field is not None and settings.domain_field not in dataset.field2type:
        raise UsageError(
            f"domain_field {settings.domain_field!r}: RecBole's Dataset has no such column; "
            f"{nearest(settings.domain_field, dataset.field2type)} (load_col: ~ loads every column)"
        )


def check_labels(settings: Settings, dataset: Dataset, config: Config, labels: Mapping[str, str]) -> None:
    """No label is an input of RecBole's, and every observed label is 0 or 1."""
    for task in settings.tasks:
        name = labels[task.name]
        if name not in dataset.inter_feat:
            raise UsageError(f"label {name!r} of task {task.name!r} must be in the interactions (.inter)")
        if dataset.field2type[name] != FeatureType.FLOAT:
            raise UsageError(
                f"label {name!r} of task {task.name!r} is typed :{dataset.field2type[name].value}; RecBole would make "
                "it an input and renumber it: type it :float"
            )
        if name in config["numerical_features"] or name in {spec.name for spec in settings.fields}:
            raise UsageError(f"label {name!r} of task {task.name!r} is among the inputs (fields, numerical_features)")
        _refuse_changed(name, config)
        if task.observed_when is not None:
            _check_condition(task.observed_when, dataset)
        # Observed labels alone: RecBole replaces a missing label by the mean of the column.
        values = dataset.inter_feat[name]
        values = values[observed_rows(task.observed_when, dataset.inter_feat, len(values), values.device)]
        wrong = values[(values != 0) & (values != 1)]
        if task.kind == "binary" and len(wrong):
            raise UsageError(
                f"label {name!r} of task {task.name!r} must be 0 or 1; found {wrong[0].item():g} "
                "(RecBole replaces a missing label by the column's mean)"
            )


def _check_condition(condition: str, dataset: Dataset) -> None:
    for name in sorted(parse_condition(condition).columns()):
        if name not in dataset.inter_feat or dataset.field2type[name] != FeatureType.FLOAT:
            raise UsageError(
                f"observed_when {condition!r} reads {name!r}, which is not a :float column of RecBole's interactions; "
                + nearest(name, dataset.inter_feat.columns)
            )


def _refuse_changed(name: str, config: Config) -> None:
    """Refuse what RecBole computes over all splits: a model trained on such values cannot score raw values."""
    if config["normalize_all"]:
        raise UsageError(f"normalize_all changes {name!r}, labels included: leave it out, floats are standardised here")
    for key in ("normalize_field", "discretization"):
        if name in (config[key] or ()):
            raise UsageError(f"{key} changes {name!r}: leave it out, floats are standardised or binned here")
