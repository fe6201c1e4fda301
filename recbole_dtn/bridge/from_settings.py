"""From our settings to a RecBole Config."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_dtn.bridge.config import RecBoleConfig
from recbole_dtn.bridge.keys import MEANS_ANOTHER, SETTINGS_KEY, WRITER, label_column, refuse_unknown
from recbole_dtn.config.load import resolve, settings_class
from recbole_dtn.config.recbole_names import ALIASES
from recbole_dtn.config.settings import SELECTED_ON_TEST, Settings
from recbole_dtn.data.atomic import read_header
from recbole_dtn.errors import UsageError
from recbole_dtn.inspect.validate import empty_keys
from recbole_dtn.registry import MODELS

__all__ = ["recbole_config"]


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
        The config; it holds our settings under :data:`SETTINGS_KEY`.

    Raises:
        UsageError: for a key that neither side knows, a key that does harm, or missing files.
    """
    given = dict(overrides or {})
    if isinstance(model, str):
        known = {*settings_class(model).model_fields, *ALIASES} - {"metrics"}  # RecBole's: its Trainer computes them
        own = {key: given.pop(key) for key in list(given) if key.split(".")[0] in known}
        places = {"dataset": dataset, "data_path": None if data_path is None else str(data_path)}
        settings = resolve({**own, "model": model, **{k: v for k, v in places.items() if v is not None}}).settings
        name = settings.folder or settings.dataset
    else:
        settings = model
        name = dataset or settings.folder or settings.dataset
        ours = [key for key in given if key in type(model).model_fields and key not in MEANS_ANOTHER]
        if ours:
            raise UsageError(f"{', '.join(ours)}: set it in the Settings; only RecBole's keys can be given beside them")
    model_class = MODELS.load(settings.model)
    if not isinstance(settings, model_class.settings_class):  # as the index has it: a class that pickle does not find
        settings = model_class.settings_class.model_validate(settings.dump())
    # RecBole is given the columns that the files have, so their headers are read first.
    path = Path(data_path or settings.data_path)
    headers = _headers(path / name, name, given.get("benchmark_filename", ("train", "valid", "test")))
    # In this order: what is given for RecBole wins over what our settings say.
    values = {**_recbole_values(settings, path, headers), **given, SETTINGS_KEY: settings}
    config = RecBoleConfig(model=model_class, dataset=name, config_dict=values)
    refuse_unknown(given, config, set(type(settings).model_fields))
    _warn_unfollowed(settings)
    _warn_empty_keys(path / name, name, config)
    if settings.selected_on_test:
        warnings.warn(SELECTED_ON_TEST, stacklevel=2)
    return config


def _headers(folder: Path, name: str, parts: Any) -> dict[str, tuple[str, ...]]:
    """Columns of the ``inter`` file (the first part), and of the ``user`` and ``item`` files that exist."""
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

    Where one of the files is missing, a token field is taken for its key.
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
    """RecBole's keys with the values that our settings give them."""
    user, item = _keys(settings, headers)
    name, _, metric = settings.valid_metric.rpartition("_")
    # RecBole's Trainer evaluates one label: that of the task in valid_metric, else the first task's.
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
        # RecBole's is an L2 term over all parameters, tables included; ours is decoupled and for dense weights.
        "weight_decay": 0.0,
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "LogLoss" if metric == "logloss" else "AUC",
        "LABEL_FIELD": label_column(settings, first, headers["inter"]),
        # Every column: labels and side files would be left out otherwise.
        "load_col": None,
        "benchmark_filename": ["train", "valid", "test"],
        "numerical_features": [spec.name for spec in settings.fields if spec.type == "float"],
        "USER_ID_FIELD": user,
        "ITEM_ID_FIELD": item,
    }


def _warn_unfollowed(settings: Settings) -> None:
    """One warning that names the settings which RecBole's Trainer ignores."""
    unfollowed = {
        "weight_decay": settings.weight_decay > 0,
        "gradient_clip": settings.gradient_clip is not None,
        "scheduler": settings.scheduler.name != "constant" or settings.scheduler.warmup_steps > 0,
        "balancer": settings.balancer.name != "fixed",
        "precision": settings.precision != "32",
        "embedding_optimizer.lr": settings.embedding_optimizer.lr not in (None, settings.optimizer.lr),
    }
    names = [key for key, differs in unfollowed.items() if differs]
    if names:
        warnings.warn(f"RecBole's Trainer does not follow these settings: {', '.join(names)}", stacklevel=3)


def _warn_empty_keys(folder: Path, name: str, config: RecBoleConfig) -> None:
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
