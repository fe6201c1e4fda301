"""The only file that touches RecBole's Config, Dataset, Interaction and Trainer.

Two ways lead through it. :func:`recbole_config` turns our typed settings into a RecBole Config without the stock
class's side effects; :func:`translate` is what a model calls when RecBole constructs it: it finds the settings, builds
the vocabularies from the training Dataset, and afterwards turns each of RecBole's batches into :class:`Features`.
``docs/recbole.md`` has the boundary for users.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.utils import FeatureType
from torch import Tensor

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.load import resolve, settings_class
from recbole_dtn.config.recbole_names import ALIASES
from recbole_dtn.config.settings import SELECTED_ON_TEST, Settings
from recbole_dtn.data.atomic import read_header
from recbole_dtn.data.translator import Translator, observed_rows, plain_float
from recbole_dtn.data.vocabulary import Vocabularies, make_schema
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.inspect.validate import empty_keys
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["SETTINGS_KEY", "RecBoleConfig", "Translator", "evaluate_tasks", "recbole_config", "translate"]

SETTINGS_KEY = "recbole_dtn"
"""Key of a RecBole Config under which our Settings travel."""

NUMPY_NAMES = {
    "bool": "bool_", "int": "int_", "float": "float64", "complex": "complex128", "object": "object_", "str": "str_",
    "long": "int_", "unicode": "str_", "float_": "float64", "complex_": "complex128", "unicode_": "str_",
}  # fmt: skip
"""Names that RecBole 1.2.1 uses and numpy has dropped, with what they stood for."""

REFUSED = {
    "gpu_id": "RecBole writes it into CUDA_VISIBLE_DEVICES: set that variable yourself, and use_gpu",
    "nproc": "RecBole's own processes are not supported: train with recbole_dtn and --devices",
    "local_rank": "RecBole's own processes are not supported: train with recbole_dtn and --devices",
    "save_dataset": "RecBole reuses the saved data set after files and settings have changed: leave it out",
    "save_dataloaders": "RecBole reuses the saved loaders after files and settings have changed: leave it out",
}
"""Keys of RecBole that do harm, and why."""

MEANS_ANOTHER = frozenset({"model", "dataset", "data_path", "valid_metric", "weight_decay"})
"""Keys that RecBole and our settings both have, and that a stock Config sets in RecBole's sense."""

WRITER = "recbole_dtn.preprocess.export.write_given_splits"
"""What messages name as the writer of files in given splits."""


# ---- RecBole's Config, tamed ----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """RecBole's YAML, in which ``1e-3`` is a number. A class of its own: stock RecBole patches yaml.FullLoader."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


class RecBoleConfig(Config):  # type: ignore[misc]
    """RecBole's Config without its side effects; takes the same arguments.

    The stock class reads sys.argv, evaluates strings as Python, overwrites CUDA_VISIBLE_DEVICES, patches
    yaml.FullLoader for the whole process, hands a class the YAML of the stock model that shares its name, breaks
    under numpy 2, and ties a set named ``ml-100k`` to its own folder. This one does none of that.

    Raises:
        UsageError: for a key of :data:`REFUSED`.
    """

    def compatibility_settings(self) -> None:
        for name, meaning in NUMPY_NAMES.items():
            if name not in vars(np):
                setattr(np, name, getattr(np, meaning))

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return _Loader

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return dict(config_dict)  # stock: eval() of every string

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}  # stock: whatever sys.argv holds, over everything else

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        for key, reason in REFUSED.items():
            if self.external_config_dict.get(key):
                raise UsageError(f"RecBole's {key}={self.external_config_dict[key]!r} is refused: {reason}")
        is_stock = model_class.__module__.split(".")[0] == "recbole"
        super()._load_internal_config_dict(model if is_stock else "", model_class, "")

    def _set_default_parameters(self) -> None:
        given = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        folder = self.final_config_dict["checkpoint_dir"]
        # Left alone, create_dataset and data_preparation unpickle whatever cache lies in checkpoint_dir.
        never = os.path.join(folder, ".no-saved-data")
        self.final_config_dict.update(
            data_path=os.path.join(given, self.dataset), dataset_save_path=never, dataloaders_save_path=never
        )

    def _init_device(self) -> None:
        use_gpu = bool(self.final_config_dict["use_gpu"]) and torch.cuda.is_available()
        self.final_config_dict.update(
            gpu_id="", single_spec=True, local_rank=0, device=torch.device("cuda" if use_gpu else "cpu")
        )


def recbole_config(
    model: str | Settings,
    dataset: str | None = None,
    data_path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RecBoleConfig:
    """A RecBole Config for one of our models, over atomic files with given splits.

    Args:
        model: resolved settings, or the name of a registered model (then its settings are the shipped defaults).
        dataset: name of the atomic files: ``<data_path>/<dataset>/<dataset>.{train,valid,test}.inter``.
        data_path: the folder that holds the data set's folder.
        overrides: our settings by name (only beside a model's name) and any key of RecBole's.

    Returns:
        The config; our settings travel in it under :data:`SETTINGS_KEY`.

    Raises:
        UsageError: for a key that neither side knows, a key that does harm, or missing files.
    """
    given = dict(overrides or {})
    if isinstance(model, str):
        known = {*settings_class(model).model_fields, *ALIASES}
        own = {key: given.pop(key) for key in list(given) if key.split(".")[0] in known}
        places = {"dataset": dataset, "data_path": None if data_path is None else str(data_path)}
        settings = resolve({**own, "model": model, **{k: v for k, v in places.items() if v is not None}}).settings
        name = settings.folder or settings.dataset
    else:
        settings = model
        name = dataset or settings.folder or settings.dataset
        ours = [key for key in given if key in type(model).model_fields and key not in MEANS_ANOTHER]
        if ours:
            raise UsageError(
                f"{', '.join(ours)}: set it in the Settings; beside them only RecBole's own keys may stand"
            )
    path = Path(data_path or settings.data_path)
    headers = _headers(path / name, name, given.get("benchmark_filename", ("train", "valid", "test")))
    values = {**_recbole_values(settings, path, headers), **given, SETTINGS_KEY: settings}
    config = RecBoleConfig(model=MODELS.load(settings.model), dataset=name, config_dict=values)
    _refuse_unknown(given, config, set(type(settings).model_fields))
    _warn_unfollowed(settings)
    _warn_empty_keys(path / name, name, config)
    if settings.selected_on_test:
        warnings.warn(SELECTED_ON_TEST, stacklevel=2)
    return config


def _headers(folder: Path, name: str, parts: Any) -> dict[str, tuple[str, ...]]:
    """Columns of the ``inter`` files (of their first part), and of ``user`` and ``item`` where those are."""
    files = [folder / f"{name}.{part}.inter" for part in parts] if parts else [folder / f"{name}.inter"]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UsageError(
            f"RecBole's atomic files are missing: {', '.join(missing)}; data_path and dataset name the folder "
            f"<data_path>/<dataset>/; {WRITER} writes such files"
        )
    tables = {"inter": files[0], "user": folder / f"{name}.user", "item": folder / f"{name}.item"}
    return {kind: read_header(file).names for kind, file in tables.items() if file.is_file()}


def _keys(settings: Settings, headers: Mapping[str, tuple[str, ...]]) -> tuple[str | None, str | None]:
    """USER_ID_FIELD and ITEM_ID_FIELD: the keys of the user and item files; RecBole wants both or neither.

    Where one of the files is not there, a token field stands in for its key.
    """
    found = {
        kind: next((name for name in headers[kind] if name in headers["inter"]), None)
        for kind in ("user", "item")
        if kind in headers
    }
    if not found:
        return None, None
    tokens = {field.name for field in settings.fields if field.type == "token"}
    other = next((name for name in headers["inter"] if name in tokens and name not in found.values()), None)
    return found.get("user", other), found.get("item", other)


def _recbole_values(settings: Settings, path: Path, headers: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """What RecBole needs to be told, from our settings."""
    user, item = _keys(settings, headers)
    name, _, metric = settings.valid_metric.rpartition("_")
    first = name if name in {task.name for task in settings.tasks} else settings.tasks[0].name
    return {
        "data_path": str(path),
        "checkpoint_dir": os.path.join(settings.output_dir, "recbole"),
        "gpu_id": "",
        "use_gpu": settings.accelerator != "cpu",
        "seed": settings.seed,
        "show_progress": settings.progress,
        "epochs": settings.epochs,
        "train_batch_size": settings.train_batch_size,
        "eval_batch_size": settings.eval_batch_size,
        "eval_step": settings.eval_step,
        "stopping_step": settings.stopping_step,
        "learner": settings.optimizer.name,
        "learning_rate": settings.optimizer.lr,
        "weight_decay": 0.0,
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "LogLoss" if metric == "logloss" else "AUC",
        "LABEL_FIELD": label_column(settings, first, headers["inter"]),
        "load_col": None,
        "benchmark_filename": ["train", "valid", "test"],
        "numerical_features": [spec.name for spec in settings.fields if spec.type == "float"],
        "USER_ID_FIELD": user,
        "ITEM_ID_FIELD": item,
    }


def label_column(settings: Settings, task: str, columns: Collection[str]) -> str:
    """The column that holds a task's label in RecBole's files: named as the task, or the label itself.

    RecBole knows no conditions, so a label that a condition derives must lie in a column of its own.
    """
    spec = next(each for each in settings.tasks if each.name == task)
    if spec.condition is not None and task in parse_condition(spec.condition).columns():
        raise UsageError(
            f"task {task!r}: its condition ({spec.condition}) reads a column of the task's own name, so that no column "
            f"can hold its label for RecBole: rename the task ({WRITER} writes the label columns)"
        )
    for name in (task, *([spec.label] if spec.condition is None else [])):
        if name in columns:
            return name
    wanted = f"a :float column {task!r}" + (f" or {spec.label!r}" if spec.condition is None else "")
    raise UsageError(
        f"task {task!r}: RecBole's data has no label column; expected {wanted}; {nearest(task, columns)} "
        "(load_col: ~ loads every column; " + f"{WRITER} writes the label columns)"
    )


def _refuse_unknown(given: Iterable[str], config: Config, ours: set[str]) -> None:
    """RecBole ignores a misspelt key; here it is an error."""
    known = {key for keys in config.parameters.values() for key in keys} | set(config.internal_config_dict)
    known |= {*ours, *ALIASES, *REFUSED, "model", "dataset", "discretization", SETTINGS_KEY}
    for key in given:
        if key not in known and key.split(".")[0] not in ours:
            raise UsageError(f"unknown key {key!r}, neither RecBole's nor ours: {nearest(key, known)}")


def _warn_unfollowed(settings: Settings) -> None:
    """One warning that names the settings which RecBole's Trainer has no counterpart for."""
    unfollowed = {
        "weight_decay": settings.weight_decay > 0,
        "gradient_clip": settings.gradient_clip is not None,
        "scheduler": settings.scheduler.name != "constant" or settings.scheduler.warmup_steps > 0,
        "balancer": settings.balancer != "fixed",
        "precision": settings.precision != "32",
        "embedding_optimizer.lr": settings.embedding_optimizer.lr not in (None, settings.optimizer.lr),
    }
    names = [key for key, differs in unfollowed.items() if differs]
    if names:
        warnings.warn(f"RecBole's Trainer does not follow these settings: {', '.join(names)}", stacklevel=3)


def _warn_empty_keys(folder: Path, name: str, config: Config) -> None:
    """One warning of the rows without an id that RecBole's Dataset drops; in parts it drops none."""
    keys = [key for key in (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]) if key is not None]
    if not keys or config["benchmark_filename"]:
        return
    files = [file for kind in ("inter", "user", "item") if (file := folder / f"{name}.{kind}").is_file()]
    found = [
        f"{file.name} has {count:,} {'row' if count == 1 else 'rows'} without {key!r}"
        for file in files
        for key, count in empty_keys(file, keys).items()
    ]
    if found:
        warnings.warn(
            f"empty ids: {', '.join(found)}; stock RecBole drops rows without a USER_ID_FIELD or ITEM_ID_FIELD, and "
            "where both occur it drops others in their place (docs/recbole.md)",
            stacklevel=3,
        )


# ---- RecBole's Dataset and batches, in our terms --------------------------------------------------------------------


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
    settings = _settings_of(model_class, config, dataset)
    labels = {task.name: label_column(settings, task.name, dataset.field2type) for task in settings.tasks}
    _check_dataset(dataset)
    _check_fields(settings, dataset, config)
    _check_labels(settings, dataset, config, labels)
    schema, vocabularies = _encode(settings, dataset)
    tokens = {spec.name: dataset.field2id_token[spec.name].tolist() for spec in schema.fields if spec.kind != "float"}
    return Translator(settings, schema, vocabularies, tokens=tokens, label_columns=labels)


def _settings_of(model_class: type, config: Config, dataset: Dataset) -> Settings:
    """Settings that the config carries; else those the user gave it, over the shipped defaults."""
    carried = config[SETTINGS_KEY]
    if isinstance(carried, Settings):
        expected = MODELS.load(carried.model)
        if not issubclass(model_class, expected):
            raise UsageError(f"the config was made for {carried.model}, not for {model_class.__name__}")
        return carried
    name = model_class.__name__
    _refuse_unknown(config.external_config_dict, config, set(settings_class(name).model_fields))
    known = {*settings_class(name).model_fields, *ALIASES} - MEANS_ANOTHER
    given = {key: value for key, value in config.external_config_dict.items() if key.split(".")[0] in known}
    if not given.get("tasks"):
        label = config["LABEL_FIELD"]
        given["tasks"] = [{"name": label, "label": label}]
    if not given.get("fields"):
        given["fields"] = _fields_of(dataset, config, {task["label"] for task in given["tasks"]})
    path = Path(config["data_path"])
    places = {"model": name, "dataset": path.name, "folder": path.name, "data_path": str(path.parent)}
    return resolve({**given, **places}).settings


def _fields_of(dataset: Dataset, config: Config, labels: set[str]) -> list[dict[str, str]]:
    """What RecBole itself would take as inputs: every token column, and floats among ``numerical_features``."""
    kinds = {FeatureType.TOKEN: "token", FeatureType.TOKEN_SEQ: "token_seq", FeatureType.FLOAT: "float"}
    return [
        {"name": name, "type": kinds[kind]}
        for name, kind in dataset.field2type.items()
        if kind in kinds and name not in labels and (kind != FeatureType.FLOAT or name in config["numerical_features"])
    ]


def _check_dataset(dataset: Dataset) -> None:
    sizes = getattr(dataset, "file_size_list", [])
    whole = any(sizes[1:]) and len(dataset.inter_feat) == sum(sizes)
    if whole or not isinstance(dataset.inter_feat, Interaction):
        raise UsageError(
            "expected the training Dataset (train_data.dataset), found the whole one: the vocabularies are those of "
            "the training split"
        )


def _check_fields(settings: Settings, dataset: Dataset, config: Config) -> None:
    """Every input is there, has its type, and is what the files say."""
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


def _check_labels(settings: Settings, dataset: Dataset, config: Config, labels: Mapping[str, str]) -> None:
    """No label that RecBole would read as an input, and none whose values it has made up."""
    for task in settings.tasks:
        name = labels[task.name]
        if name not in dataset.inter_feat:
            raise UsageError(f"label {name!r} of task {task.name!r} must lie in the interactions (.inter)")
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
                f"observed_when {condition!r} reads {name!r}, which is no :float column of RecBole's interactions; "
                + nearest(name, dataset.inter_feat.columns)
            )


def _refuse_changed(name: str, config: Config) -> None:
    """RecBole's own changes of float values, learned over all splits, would make a model no other side can score."""
    if config["normalize_all"]:
        raise UsageError(f"normalize_all changes {name!r}, labels included: leave it out, floats are standardised here")
    for key in ("normalize_field", "discretization"):
        if name in (config[key] or ()):
            raise UsageError(f"{key} changes {name!r}: leave it out, floats are standardised or binned here")


def _encode(settings: Settings, dataset: Dataset) -> tuple[DataSchema, Vocabularies]:
    """Vocabularies and schema of the training Dataset, by the data room's own rules."""
    counts: dict[str, dict[str, int]] = {}
    floats: dict[str, Any] = {}
    for spec in settings.fields:
        column = _training_column(dataset, spec.name)
        if spec.type == "float":
            floats[spec.name] = plain_float(column).numpy()
            continue
        tokens = dataset.field2id_token[spec.name].tolist()
        seen = torch.bincount(column.flatten(), minlength=len(tokens)).tolist()
        counts[spec.name] = dict(zip(tokens[1:], seen[1:], strict=True))  # 0 is padding
    vocabularies = Vocabularies.from_counts(settings.fields, counts, floats, min_count=settings.min_count)
    return make_schema(settings.fields, settings.tasks, vocabularies, settings), vocabularies


def _training_column(dataset: Dataset, name: str) -> Tensor:
    """A column over the training interactions, joined in where it is a user's or an item's."""
    column: Tensor
    for features, key in ((dataset.user_feat, dataset.uid_field), (dataset.item_feat, dataset.iid_field)):
        if name not in dataset.inter_feat and features is not None and name in features:
            column = features[name][dataset.inter_feat[key]]
            return column
    column = dataset.inter_feat[name]
    return column


# ---- evaluation -------------------------------------------------------------------------------------


def evaluate_tasks(trainer: Trainer, data: Any) -> dict[str, dict[str, float]]:
    """Evaluate every task with RecBole's Trainer, which knows one label: once per task, with the metrics of its config.

    Args:
        trainer: RecBole's Trainer of one of our models. data: its validation or test loader.

    Returns:
        ``{task: {metric: value}}``, rounded to RecBole's ``metric_decimal_place``.
    """
    model, config = trainer.model, trainer.config
    before = model.evaluated_task, config["LABEL_FIELD"]
    found = {}
    try:
        for task, column in model.translator.label_columns.items():
            model.evaluated_task, config["LABEL_FIELD"] = task, column
            found[task] = dict(trainer.evaluate(data, load_best_model=False))
    finally:
        model.evaluated_task, config["LABEL_FIELD"] = before
    return found
