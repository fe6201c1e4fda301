"""Settings, vocabularies and schema from the pair (Config, training Dataset) that RecBole constructs a model with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.utils import FeatureType
from torch import Tensor

from recbole_dtn.bridge.checks import check_dataset, check_fields, check_labels
from recbole_dtn.bridge.keys import MEANS_ANOTHER, SETTINGS_KEY, label_column, refuse_unknown
from recbole_dtn.bridge.translator import Translator, observed_rows, plain_float
from recbole_dtn.config.load import resolve, settings_class
from recbole_dtn.config.recbole_names import ALIASES
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.schemas import make_schema
from recbole_dtn.data.targets import target_statistics
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import UsageError
from recbole_dtn.plugins import check_named
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["translate"]


def translate(model_class: type, config: Any, dataset: Any) -> Translator:
    """The translator of a model that RecBole constructs with its pair ``(config, dataset)``.

    Args:
        model_class: the model's class. config: RecBole's Config; settings that it does not carry come from the shipped
            defaults. dataset: the training Dataset (``train_data.dataset``), which the vocabularies are built from.

    Raises:
        UsageError: for a missing column, a label that RecBole would read as an input, a key that neither side knows,
            or a Dataset that is not the training split.
    """
    if not isinstance(config, Config) or not isinstance(dataset, Dataset):
        raise UsageError(
            f"{model_class.__name__} is built from (Settings, DataSchema) or RecBole's (Config, training Dataset); "
            f"got ({type(config).__name__}, {type(dataset).__name__})"
        )
    # Settings, checks, then vocabularies: each step reads what the one before has made sure of.
    settings = _settings_of(model_class, config, dataset)
    labels = {task.name: label_column(settings, task.name, dataset.field2type) for task in settings.tasks}
    check_dataset(dataset)
    check_fields(settings, dataset, config)
    check_labels(settings, dataset, config, labels)
    schema, vocabularies = _encode(settings, dataset, labels)
    with_ids = [spec.name for spec in schema.fields if spec.kind != "float"]
    with_ids += [name for name in (settings.domain_field, settings.group_field) if name and name in dataset.field2type]
    tokens = {name: dataset.field2id_token[name].tolist() for name in dict.fromkeys(with_ids)}
    return Translator(settings, schema, vocabularies, tokens=tokens, label_columns=labels)


def _settings_of(model_class: type, config: Config, dataset: Dataset) -> Settings:
    """The settings that the config holds; else those that the user gave it, over the shipped defaults."""
    carried = config[SETTINGS_KEY]
    if isinstance(carried, Settings):
        expected = MODELS.load(carried.model)
        if not issubclass(model_class, expected):
            raise UsageError(f"the config was made for {carried.model}, not for {model_class.__name__}")
        return carried
    name = model_class.__name__
    refuse_unknown(config.external_config_dict, config, set(settings_class(name).model_fields))
    known = {*settings_class(name).model_fields, *ALIASES} - MEANS_ANOTHER
    given = {key: value for key, value in config.external_config_dict.items() if key.split(".")[0] in known}
    named = {**config.variable_config_dict, **config.cmd_config_dict}
    if "plugins" in given and "plugins" not in named:  # only a file of the Config names them
        paths = given["plugins"]
        check_named([paths] if isinstance(paths, str) else list(paths or ()), "the Config's file")
    # A stock Config has one label and no fields of ours: both are taken from RecBole's own keys.
    if not given.get("tasks"):
        label = config["LABEL_FIELD"]
        given["tasks"] = [{"name": label, "label": label}]
    if not given.get("fields"):
        given["fields"] = _fields_of(dataset, config, {task["label"] for task in given["tasks"]})
    # RecBole's data_path ends in the name of the data set.
    path = Path(config["data_path"])
    places = {"model": name, "dataset": path.name, "folder": path.name, "data_path": str(path.parent)}
    return resolve({**given, **places}).settings


def _fields_of(dataset: Dataset, config: Config, labels: set[str]) -> list[dict[str, str]]:
    """RecBole's own inputs: every token column, and the floats among ``numerical_features``."""
    kinds = {FeatureType.TOKEN: "token", FeatureType.TOKEN_SEQ: "token_seq", FeatureType.FLOAT: "float"}
    return [
        {"name": name, "type": kinds[kind]}
        for name, kind in dataset.field2type.items()
        if kind in kinds and name not in labels and (kind != FeatureType.FLOAT or name in config["numerical_features"])
    ]


def _encode(settings: Settings, dataset: Dataset, labels: Mapping[str, str]) -> tuple[DataSchema, Vocabularies]:
    """Vocabularies and schema of the training Dataset, built as from our own reader's columns."""
    counts: dict[str, dict[str, int]] = {}
    floats: dict[str, Any] = {}
    for spec in settings.fields:
        column = _training_column(dataset, spec.name)
        if spec.type == "float":
            floats[spec.name] = plain_float(column).numpy()
            continue
        tokens = dataset.field2id_token[spec.name].tolist()
        # Counts over the training rows; tokens of other splits count 0 and are unknown. Sequences are (n, L), padded
        # with 0.
        seen = torch.bincount(column.flatten(), minlength=len(tokens)).tolist()
        counts[spec.name] = dict(zip(tokens[1:], seen[1:], strict=True))  # 0 is padding
    vocabularies = Vocabularies.from_counts(settings.fields, counts, floats, min_count=settings.min_count)
    if settings.domain_field is not None:
        # As our own reader: the tokens of all splits, in the order of their bytes.
        domains = sorted(dataset.field2id_token[settings.domain_field].tolist()[1:], key=str.encode)
        vocabularies = replace(vocabularies, domains=tuple(domains), domain_field=settings.domain_field)
    positives = _positives(settings, dataset, labels)
    targets = _targets(settings, dataset, labels)
    return make_schema(settings.fields, settings.tasks, vocabularies, settings, positives, targets), vocabularies


def _targets(settings: Settings, dataset: Dataset, labels: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the training labels of regressions."""
    found: dict[str, tuple[float, float]] = {}
    for task in settings.tasks:
        label = plain_float(dataset.inter_feat[labels[task.name]])
        seen = observed_rows(task.observed_when, dataset.inter_feat, len(label), label.device)
        found |= target_statistics([task], label[:, None].cpu().numpy(), seen[:, None].cpu().numpy())
    return found


def _positives(settings: Settings, dataset: Dataset, labels: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Positive and observed training rows of each task."""
    rows = dataset.inter_feat
    found = {}
    for task in settings.tasks:
        label = plain_float(rows[labels[task.name]])
        seen = observed_rows(task.observed_when, rows, len(label), label.device)
        found[task.name] = int((label[seen] > 0.5).sum()), int(seen.sum())
    return found


def _training_column(dataset: Dataset, name: str) -> Tensor:
    """A column with one value per training interaction; a user's or item's column is joined."""
    column: Tensor
    # RecBole's ids index the rows of the user and item tables.
    for features, key in ((dataset.user_feat, dataset.uid_field), (dataset.item_feat, dataset.iid_field)):
        if name not in dataset.inter_feat and features is not None and name in features:
            column = features[name][dataset.inter_feat[key]]
            return column
    column = dataset.inter_feat[name]
    return column
