"""RecBole's settings under our names: what a RecBole YAML file says is translated, or named with the line to write.

Source: RecBole 1.2.1 ``properties/overall.yaml``, ``properties/dataset/sample.yaml``, ``data/dataset/dataset.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ALIASES", "REFUSED", "SOURCES", "translate"]

ALIASES = {"learning_rate": "optimizer.lr", "learner": "optimizer.name"}
"""Accepted everywhere: RecBole's name -> ours."""

RENAMED = {
    "USER_ID_FIELD": "user_field",
    "TIME_FIELD": "time_field",
    "checkpoint_dir": "output_dir",
    "show_progress": "progress",
    "dropout_prob": "dropout",
}
"""Accepted in files: RecBole's name -> ours, with the same values."""

REFUSED = {
    # environment
    "gpu_id": "choose the device with accelerator (cpu, gpu) and devices",
    "use_gpu": "choose the device with accelerator (cpu, gpu)",
    "enable_amp": "set precision: 16-mixed or bf16-mixed",
    "enable_scaler": "precision: 16-mixed scales the loss by itself",
    "nproc": "the number of processes is devices",
    "world_size": "the number of processes is devices, times num_nodes",
    "group_offset": "the launcher numbers the processes; set devices and num_nodes",
    "ip": "the launcher sets MASTER_ADDR; set devices and num_nodes",
    "port": "the launcher sets MASTER_PORT; set devices and num_nodes",
    "worker": "the loader cuts batches without worker processes; CPU threads are threads",
    "state": "to see less, set quiet: true",
    "reproducibility": "runs repeat by seed and split_seed",
    "checkpoint_dir": "run folders go to output_dir",
    "show_progress": "it is progress",
    "save_dataset": "the encoded data is always cached; the folder is cache_dir",
    "dataset_save_path": "the folder of the encoded data is cache_dir",
    "save_dataloaders": "the encoded data is always cached; the folder is cache_dir",
    "dataloaders_save_path": "the folder of the encoded data is cache_dir",
    "log_wandb": "set loggers: [csv, wandb]",
    "wandb_project": "the project is recbole_dtn; leave it out",
    "config_file_list": "it is config_files",
    "shuffle": "training rows are shuffled in every epoch; leave it out",
    # training
    "clip_grad_norm": "it is gradient_clip, the largest norm",
    "train_neg_sample_args": "rows are labelled, nothing is sampled; leave it out",
    "neg_sampling": "rows are labelled, nothing is sampled; leave it out",
    "loss_decimal_place": "leave it out",
    "require_pow": "leave it out; the penalty of embeddings is embedding_l2",
    "transform": "leave it out; batches are not transformed",
    # evaluation
    "eval_args": "set split, split_ratio and split_seed",
    "repeatable": "rows are labelled, nothing is ranked; leave it out",
    "topk": "rows are labelled, nothing is ranked; leave it out",
    "valid_metric_bigger": "valid_metric knows its direction; leave it out",
    "metric_decimal_place": "leave it out; records keep every digit",
    # columns
    "benchmark_filename": "set split: given; the parts are train, valid and test",
    "load_col": "list the inputs in fields",
    "unload_col": "list the inputs in fields",
    "unused_col": "list the inputs in fields",
    "additional_feat_suffix": "columns are read from .inter, .user and .item; leave it out",
    "numerical_features": "give the field the type float in fields",
    "normalize_all": "floats are standardised or binned by encoding (standardise, log1p, bins), per field in fields",
    "normalize_field": "floats are standardised or binned by encoding (standardise, log1p, bins), per field in fields",
    "discretization": "give the field encoding: bins in fields",
    "LABEL_FIELD": "name the labels in tasks",
    "RATING_FIELD": "name the labels in tasks",
    "threshold": "give the task a condition in tasks, such as rating >= 4",
    "USER_ID_FIELD": "it is user_field; an input is named in fields",
    "ITEM_ID_FIELD": "name the input in fields",
    "TIME_FIELD": "it is time_field",
    "field_separator": "columns are separated by tabs; leave it out",
    "seq_separator": "the values of a sequence are separated by spaces; leave it out",
    "seq_len": "sequences are read whole; leave it out",
    "preload_weight": "start from a run with init_from",
    # rows
    "user_inter_num_interval": "rare tokens share one id by min_count",
    "item_inter_num_interval": "rare tokens share one id by min_count",
    "filter_inter_by_user_or_item": "rare tokens share one id by min_count",
    "val_interval": "leave out such rows when the atomic files are written",
    "rm_dup_inter": "leave out such rows when the atomic files are written",
    **dict.fromkeys(
        ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id"),
        "every field has a vocabulary of its own; leave it out",
    ),
    # model
    "dropout_prob": "it is dropout",
    "mlp_hidden_size": "the widths are bottom_hidden, expert_hidden, tower_hidden or hidden, by model",
}
"""Refused on the command line: RecBole's name -> what to do instead. In files see :func:`translate`."""

_ANY = object()
_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("RATING_FIELD", "ITEM_ID_FIELD", "NEG_PREFIX", "LIST_SUFFIX", "MAX_ITEM_LIST_LENGTH", "POSITION_FIELD",
         "ITEM_LIST_LENGTH_FIELD", "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD",
         "ENTITY_ID_FIELD", "kg_reverse_r", "entity_kg_num_interval", "relation_kg_num_interval", "topk",
         "valid_metric_bigger", "reproducibility", "save_dataset", "save_dataloaders", "loss_decimal_place",
         "metric_decimal_place", "repeatable", "enable_scaler", "filter_inter_by_user_or_item"),
        (_ANY,),
    ),
    "worker": (0,), "nproc": (1,), "shuffle": (True,), "wandb_project": ("recbole",),
    "field_separator": ("\t", "\\t"), "seq_separator": (" ",),
    "user_inter_num_interval": ("[0,inf)",), "item_inter_num_interval": ("[0,inf)",),
}  # fmt: skip
"""Values at which a key of a file changes nothing here; any key that is empty or false does not either."""

_RANKING = frozenset(
    {"recall", "mrr", "ndcg", "hit", "map", "precision", "itemcoverage", "averagepopularity", "giniindex",
     "shannonentropy", "tailpercentage"}
)  # fmt: skip
_VALUE_METRICS = {"AUC": "auc", "LogLoss": "logloss", "MAE": "mae", "RMSE": "rmse", "GAUC": "gauc"}
_DEFAULT_LABEL, _DEFAULT_RATING, _DEFAULT_TIME = "label", "rating", "timestamp"

Values = dict[str, Any]
Faults = list[tuple[str, str]]


def translate(values: Mapping[str, Any], types: Mapping[str, str] | None = None) -> tuple[Values, Faults]:
    """Our settings for those of a RecBole YAML file.

    A file may hold both: a key of ours stays as it is, and where ``tasks``, ``fields`` or ``split`` is given, RecBole's
    keys of the same meaning are not read. ``learning_rate``, ``learner`` and RecBole's names of metrics are left to
    :data:`ALIASES` and the settings.

    Args:
        values: the file's keys and plain values. types: of the data set's columns by name (``token``, ``float``, ...),
            where they are known; without them a loaded column that is not in ``numerical_features`` is a token field.

    Returns:
        Settings under our names; and for each key that has no counterpart here, the key and what to write instead.

    >>> translate({"LABEL_FIELD": "label", "threshold": {"rating": 4}})[0]
    {'tasks': [{'name': 'label', 'label': 'rating', 'condition': 'rating >= 4'}]}
    >>> translate({"eval_args": {"split": {"LS": "valid_and_test"}}})[1][0][0]
    'eval_args'
    """
    ours: Values = {}
    faults: Faults = []
    for key, value in values.items():
        if key in RENAMED:
            if RENAMED[key] not in values:
                ours[RENAMED[key]] = value
        elif key in _GROUPED:
            continue
        elif key in _NO_EFFECT or (key in REFUSED and _off(value)):
            harmless = _NO_EFFECT.get(key, ())
            if not (_ANY in harmless or value in harmless or _off(value)):
                faults.append((key, REFUSED[key]))
        elif key in REFUSED:
            faults.append((key, REFUSED[key]))
        else:
            ours[key] = value
    for group, keys in _GROUPS.items():
        if any(key in values for key in keys):
            try:
                group(values, types or {}, ours, faults)
            except (TypeError, ValueError, AttributeError, KeyError):  # a value of another form than RecBole's
                named = ", ".join(key for key in keys if key in values)
                told = f"a value of {named} has a form that RecBole does not know; docs/recbole.md has what is read"
                faults.append((next(key for key in keys if key in values), told))
    return ours, faults


def _off(value: Any) -> bool:
    """Whether a value switches its key off."""
    return value is None or value is False or value in ("", "None", "none", [], {})


# ---- labels and inputs ----------------------------------------------------------------------------------------------


def _tasks(values: Mapping[str, Any], types: Mapping[str, str], ours: Values, faults: Faults) -> None:
    """``LABEL_FIELD`` and ``threshold``: RecBole's label is 1 where the column is at least the threshold."""
    if "tasks" in values:
        return
    name, threshold = values.get("LABEL_FIELD"), values.get("threshold")
    if _off(threshold):
        if not _off(name):
            ours["tasks"] = [{"name": name, "label": name}]
        return
    name = _DEFAULT_LABEL if _off(name) else name
    column, least = next(iter(threshold.items())) if isinstance(threshold, Mapping) else (None, None)
    if not isinstance(threshold, Mapping) or len(threshold) != 1 or _number(least) is None:
        faults.append(("threshold", f"write tasks: [{{name: {name}, label: rating, condition: rating >= 4}}]"))
        return
    quoted = column if re.fullmatch(r"[^\W]\w*(?:[.\-]\w+)*", str(column)) else f"`{column}`"
    ours["tasks"] = [
        {"name": name, "label": column, "condition": f"{quoted} >= {repr(_number(least)).removesuffix('.0')}"}
    ]


def _fields(values: Mapping[str, Any], types: Mapping[str, str], ours: Values, faults: Faults) -> None:
    """The loaded columns that RecBole would take as inputs: tokens, and floats among ``numerical_features``."""
    if "fields" in values:
        return
    numerical = _names(values.get("numerical_features"))
    loaded = _loaded(values, types)
    if loaded is None and "load_col" not in values and all(_off(values.get(key)) for key in _GROUPS[_fields]):
        return
    if loaded is None:
        example = f"{{name: {numerical[0]}, type: float}}" if numerical else "{name: user_id}"
        key = next(key for key in _GROUPS[_fields] if key == "load_col" in values or not _off(values.get(key)))
        faults.append((key, f"RecBole's file does not say which columns there are: write fields: [{example}, ...]"))
        return
    for key in ("unload_col", "unused_col"):
        for names in _columns(values.get(key)).values():
            loaded = [name for name in loaded if name not in names]
    for name in numerical:
        if name not in loaded:
            faults.append(
                ("numerical_features", f"load_col does not load {name!r}; add it there, or leave it out here")
            )
    barred = _no_inputs(values, ours) - set(numerical)
    chosen = [name for name in loaded if name not in barred and _is_input(name, numerical, types)]
    ours["fields"] = [_field(name, numerical, types) for name in chosen]
    for name, how in (values.get("discretization") or {}).items():
        bins = how.get("bucket", 10) if isinstance(how, Mapping) else 10
        line = f"{{name: {name}, type: float, encoding: bins, bins: {bins}}}"
        faults.append(("discretization", f"bins hold equally many rows here, not equal widths: write {line} in fields"))


def _is_input(name: str, numerical: list[str], types: Mapping[str, str]) -> bool:
    return name in numerical or types.get(name, "token") in ("token", "token_seq")


def _field(name: str, numerical: list[str], types: Mapping[str, str]) -> Values:
    kind = "float" if name in numerical else types.get(name, "token")
    return {"name": name} if kind == "token" else {"name": name, "type": kind}


def _loaded(values: Mapping[str, Any], types: Mapping[str, str]) -> list[str] | None:
    """Loaded columns, each once, in order; None where only the files know them."""
    if "load_col" not in values:
        return None
    if _off(values["load_col"]):
        return list(types) or None
    return list(dict.fromkeys(name for names in _columns(values["load_col"]).values() for name in names))


def _no_inputs(values: Mapping[str, Any], ours: Values) -> set[str]:
    """Columns that RecBole uses as label, rating or time; they are not inputs."""
    defaults = {"LABEL_FIELD": _DEFAULT_LABEL, "RATING_FIELD": _DEFAULT_RATING, "TIME_FIELD": _DEFAULT_TIME}
    found = {values.get(key) or default for key, default in defaults.items()}
    tasks = values.get("tasks") or ours.get("tasks") or []
    return found | {task["label"] for task in tasks if isinstance(task, Mapping) and "label" in task}


def _columns(value: Any) -> dict[str, list[str]]:
    """``{suffix: [columns]}`` of ``load_col`` and its like."""
    return {str(kind): _names(names) for kind, names in value.items()} if isinstance(value, Mapping) else {}


def _names(value: Any) -> list[str]:
    return [] if _off(value) else [str(name) for name in ([value] if isinstance(value, str) else value)]


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


# ---- the split ------------------------------------------------------------------------------------------------------


def _split(values: Mapping[str, Any], types: Mapping[str, str], ours: Values, faults: Faults) -> None:
    """``benchmark_filename`` and ``eval_args``; as in RecBole, given parts leave no split to make."""
    if "split" in values:
        return
    parts, args = values.get("benchmark_filename"), values.get("eval_args")
    if not _off(parts):
        if list(parts or ()) == ["train", "valid", "test"]:
            ours["split"] = "given"
        else:
            faults.append(("benchmark_filename", "rename the files to <name>.train.inter, .valid.inter, .test.inter "
                           "and write split: given"))  # fmt: skip
        return
    if _off(args):
        return
    if not isinstance(args, Mapping):
        faults.append(("eval_args", "write split: random and split_ratio: [0.8, 0.1, 0.1]"))
        return
    mode = args.get("mode", "labeled")
    if set(mode.values() if isinstance(mode, Mapping) else [mode]) - {"labeled"}:
        faults.append(("eval_args", "rows are labelled, nothing is ranked: write mode: labeled in it"))
    _split_of(args, ours, faults)


def _split_of(args: Mapping[str, Any], ours: Values, faults: Faults) -> None:
    given = args.get("split") or {"RS": [0.8, 0.1, 0.1]}
    method, ratio = next(iter(given.items())) if isinstance(given, Mapping) else (str(given), None)
    order, group = str(args.get("order", "RO")), str(args.get("group_by", "user")).lower()
    by_user = group == "user"  # RecBole's default where the key is left out
    if method != "RS" or not isinstance(ratio, list | tuple) or len(ratio) != 3:
        faults.append(("eval_args", "only three shares of the rows can be split: write split: {RS: [0.8, 0.1, 0.1]} "
                       "in it"))  # fmt: skip
    elif order == "RO" and by_user:
        faults.append(("eval_args", "rows are not split at random within each user: write group_by: none in it, or "
                       "split: user_time for each user's latest rows"))  # fmt: skip
    else:
        ours["split"] = "random" if order == "RO" else "user_time" if by_user else "time"
        ours["split_ratio"] = list(ratio)


# ---- training and machine -------------------------------------------------------------------------------------------


def _training(values: Mapping[str, Any], types: Mapping[str, str], ours: Values, faults: Faults) -> None:
    clip = values.get("clip_grad_norm")
    if not _off(clip) and "gradient_clip" not in values:
        norm = clip.get("max_norm") if isinstance(clip, Mapping) else None
        if norm is None or not isinstance(clip, Mapping) or _number(clip.get("norm_type", 2)) != 2:
            faults.append(("clip_grad_norm", "only the 2-norm can be clipped: write gradient_clip: 5.0"))
        else:
            ours["gradient_clip"] = norm
    metrics = values.get("metrics")
    if metrics is not None and any(not isinstance(name, str) for name in metrics if isinstance(metrics, list)):
        ours["metrics"], metrics = metrics, None  # ours, with options
    names = _names(metrics)
    ranking = [name for name in names if name.lower() in _RANKING]
    if ranking:
        faults.append(("metrics", f"rows are labelled, nothing is ranked ({', '.join(ranking)}): write metrics: "
                       "[auc, logloss]"))  # fmt: skip
    elif metrics is not None or ("metrics" in values and "metrics" not in ours):
        ours["metrics"] = metrics if not names else [_VALUE_METRICS.get(name, name) for name in names]
    selecting = values.get("valid_metric")
    if selecting is not None:
        if str(selecting).partition("@")[0].lower() in _RANKING:
            faults.append(("valid_metric", "rows are labelled, nothing is ranked: write valid_metric: AUC"))
        else:
            ours["valid_metric"] = selecting


def _machine(values: Mapping[str, Any], types: Mapping[str, str], ours: Values, faults: Faults) -> None:
    if "accelerator" not in values and (values.get("use_gpu") is False or values.get("gpu_id") == ""):
        ours["accelerator"] = "cpu"
    elif (gpus := str(values.get("gpu_id", "0"))) not in ("", "0", "None"):
        line = f"devices: {gpus.count(',') + 1}"
        faults.append(("gpu_id", f"set CUDA_VISIBLE_DEVICES={gpus} for the process, and write {line}"))
    if not _off(values.get("enable_amp")) and "precision" not in values:
        ours["precision"] = "16-mixed"
    if not _off(values.get("log_wandb")) and "loggers" not in values:
        ours["loggers"] = ["csv", "wandb"]
    if str(values.get("state", "INFO")).upper() in ("WARNING", "ERROR", "CRITICAL") and "quiet" not in values:
        ours["quiet"] = True


_GROUPS: dict[Callable[[Mapping[str, Any], Mapping[str, str], Values, Faults], None], tuple[str, ...]] = {
    _tasks: ("LABEL_FIELD", "threshold"),
    _fields: ("load_col", "numerical_features", "unload_col", "unused_col", "discretization"),
    _split: ("benchmark_filename", "eval_args"),
    _training: ("clip_grad_norm", "metrics", "valid_metric"),
    _machine: ("gpu_id", "use_gpu", "enable_amp", "log_wandb", "state"),
}
"""Keys that are translated together. The labels come before the inputs, which leave them out."""

SOURCES = {
    **{name: (key,) for key, name in RENAMED.items()},
    "tasks": ("threshold", "LABEL_FIELD"),
    "fields": ("load_col",),
    "split": ("benchmark_filename", "eval_args"),
    "split_ratio": ("eval_args",),
    "gradient_clip": ("clip_grad_norm",),
    "accelerator": ("use_gpu", "gpu_id"),
    "precision": ("enable_amp",),
    "loggers": ("log_wandb",),
    "quiet": ("state",),
}
"""For each setting that :func:`translate` makes, the keys of RecBole that it may come from."""

_GROUPED = frozenset(key for keys in _GROUPS.values() for key in keys)
