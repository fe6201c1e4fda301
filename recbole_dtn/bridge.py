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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import Tensor

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema, FieldSpec

__all__ = ["SETTINGS_KEY", "RecBoleConfig", "Translator", "evaluate_tasks", "load_into", "recbole_config", "translate"]

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
        own = {key: given.pop(key) for key in list(given) if key.split(".")[0] in _own_keys(model)}
        places = {"dataset": dataset, "data_path": None if data_path is None else str(data_path)}
        settings = resolve({**own, "model": model, **{k: v for k, v in places.items() if v is not None}}).settings
    else:
        settings = model
    name = dataset or settings.folder or settings.dataset
    path = Path(data_path or settings.data_path)
    columns = _header(path / name, name, given.get("benchmark_filename", ("train", "valid", "test")))
    values = {**_recbole_values(settings, path, columns), **given, SETTINGS_KEY: settings}
    config = RecBoleConfig(model=MODELS.load(settings.model), dataset=name, config_dict=values)
    _refuse_unknown(given, config, settings)
    _warn_unfollowed(settings)
    return config


def _own_keys(model: str) -> set[str]:
    """Keys of our settings for a model, RecBole's two accepted names included."""
    return {*_settings_class(model).model_fields, "learning_rate", "learner"}


def _settings_class(model: str) -> type[Settings]:
    found = MODELS.options(model) or getattr(MODELS.load(model), "settings_class", None) or Settings
    assert issubclass(found, Settings)
    return found


def _header(folder: Path, name: str, parts: Any) -> dict[str, str]:
    """``{column: type}`` of all files of the data set."""
    files = [folder / f"{name}.{part}.inter" for part in parts] if parts else [folder / f"{name}.inter"]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UsageError(
            f"RecBole's atomic files are missing: {', '.join(missing)}; data_path and dataset name the folder "
            "<data_path>/<dataset>/, and recbole_dtn.data.export.write_given_splits writes such files"
        )
    columns: dict[str, str] = {}
    for file in (*files[:1], folder / f"{name}.user", folder / f"{name}.item"):
        if file.is_file():
            with file.open(encoding="utf-8") as lines:
                pairs = (column.rpartition(":") for column in lines.readline().rstrip("\r\n").split("\t"))
                columns |= {column: kind for column, _, kind in pairs if column not in columns}
    return columns


def _recbole_values(settings: Settings, path: Path, columns: Mapping[str, str]) -> dict[str, Any]:
    """What RecBole needs to be told, from our settings."""
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
        "stopping_step": settings.stopping_step or settings.epochs,  # ours: 0 never stops
        "learner": settings.optimizer.name,
        "learning_rate": settings.optimizer.lr,
        "weight_decay": 0.0,
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "LogLoss" if metric == "logloss" else "AUC",
        "LABEL_FIELD": label_column(settings, first, columns),
        "load_col": None,
        "benchmark_filename": ["train", "valid", "test"],
        "numerical_features": [spec.name for spec in settings.fields if spec.type == "float"],
        "USER_ID_FIELD": None,
        "ITEM_ID_FIELD": None,
    }
