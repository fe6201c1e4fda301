"""The counterpart of ``recbole.quick_start.run_recbole``: RecBole's arguments, our models, trained under Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_dtn.bridge.keys import is_stock_model
from recbole_dtn.config.datasets import dataset_values
from recbole_dtn.config.faults import Fault, report
from recbole_dtn.config.load import resolve
from recbole_dtn.config.metrics import higher_is_better, is_error
from recbole_dtn.config.properties import read_yaml
from recbole_dtn.config.recbole_names import translate
from recbole_dtn.data.atomic import read_header
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.metric.select import Metrics, mean_of
from recbole_dtn.plugins import check_named
from recbole_dtn.record.checkpoint import FILE_NAME as CHECKPOINT
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.training.fit import fit_settings

__all__ = ["run_recbole"]


def run_recbole(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
    *,
    trust: bool = False,
) -> dict[str, Any]:
    """Train and test one of our models with RecBole's arguments.

    The settings may be RecBole's and ours, mixed: RecBole's are translated
    (:func:`recbole_dtn.config.recbole_names.translate`), what is not given has our default. As in RecBole a later file
    replaces an earlier one's value, and ``config_dict`` those of the files. ``sys.argv`` is not read.

    Args:
        model: name of a registered model; None: the setting ``model``. dataset: likewise.
        config_file_list: YAML files. config_dict: settings by name.
        saved: keep the checkpoint. The record and the log of the run are always written.
        trust: run the plug-in files that ``config_file_list`` names; those of ``config_dict`` are always run.

    Returns:
        As RecBole: ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and ``test_result``. A result
        has the mean over the tasks under the metric's name (``auc``, ``logloss``), and each task's value under
        ``<task>_<metric>``. Beside them, ``run_folder``.

    Raises:
        UsageError: for one of RecBole's own models, a wrong setting, and a setting of RecBole that has no counterpart.
        DataError: for faulty data.
    """
    given, places = _merged(config_file_list or (), config_dict or {})
    for key, value in {"model": model, "dataset": dataset}.items():
        if value is not None:
            given[key] = value
        elif key not in given:
            raise UsageError(f"run_recbole: expected a {key}, as an argument, in a file or in config_dict; found none")
    _check_files(places)
    plugins = given.get("plugins") or []
    plugins = [str(path) for path in ([plugins] if isinstance(plugins, str) else plugins)]
    if "plugins" not in (config_dict or {}):
        check_named(plugins, places.get("plugins", ""), trust=trust)
    load_plugins(plugins)
    _check_model(str(given["model"]))
    ours, unknown = translate(given, _column_types(given))
    if unknown:
        raise report(Fault(key, f"is RecBole's setting; {line}", places.get(key, "")) for key, line in unknown)
    run = fit_settings(resolve(ours))
    if not saved:
        (run.folder / CHECKPOINT).unlink(missing_ok=True)
    name, valid = str(run.record.settings["valid_metric"]), run.record.valid
    return {
        "best_valid_score": run.record.valid_value,
        "valid_score_bigger": higher_is_better(name, [task.name for task in run.record.tasks]),
        "best_valid_result": None if valid is None else _flat(valid),
        "test_result": None if run.test is None else _flat(run.test),
        "run_folder": run.folder,
    }


def _merged(files: Sequence[str | Path], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values by key, the later over the earlier, and where each was given."""
    merged: dict[str, Any] = {}
    places: dict[str, str] = {}
    for where, layer in [*((str(file), read_yaml(Path(file))) for file in files), ("config_dict", values)]:
        # Whole keys replace each other, as in RecBole: maps are not merged.
        merged |= layer
        places |= dict.fromkeys(layer, where)
    return merged, places


def _check_files(places: Mapping[str, str]) -> None:
    """Refuse keys of a file that would decide which code is run, as only arguments may."""
    instead = {"trust": "run_recbole takes it as an argument", "config_files": "run_recbole takes config_file_list"}
    wrong = [Fault(key, f"is no setting of a file; {instead[key]}", places[key]) for key in instead if key in places]
    if wrong:
        raise report(wrong)


def _check_model(name: str) -> None:
    """Refuse an unknown model; for one of RecBole's models, the error says how to train it."""
    if name in MODELS.names():
        return
    if not is_stock_model(name):
        MODELS.entry(name)  # raises, with the nearest names
    raise UsageError(
        f"model {name!r} is RecBole's own, and run_recbole of recbole_dtn trains the models of recbole_dtn: "
        f"{nearest(name, MODELS.names())}. Train {name} with RecBole's Trainer (docs/recbole.md, RecBole's own models)"
    )


def _column_types(given: Mapping[str, Any]) -> dict[str, str]:
    """Types of the data set's columns by name, from the headers of its atomic files; none where there are no files."""
    name, data_path = str(given["dataset"]), Path(given.get("data_path") or "dataset")
    folder = data_path / str(given.get("folder") or dataset_values(name, data_path).get("folder") or name)
    first = [*folder.glob(f"{folder.name}.inter"), *folder.glob(f"{folder.name}.train.inter")][:1]
    sides = [file for kind in ("user", "item") if (file := folder / f"{folder.name}.{kind}").is_file()]
    headers = [read_header(file) for file in (*first, *sides)]
    return {column: kind for header in headers for column, kind in zip(header.names, header.types, strict=True)}


def _flat(found: Metrics) -> dict[str, float | None]:
    """``{metric: mean over the tasks}``, then ``{task_metric: value}``."""
    # A mean of standard errors is not the error of the mean.
    metrics = dict.fromkeys(metric for values in found.values() for metric in values if not is_error(metric))
    means = {metric: mean_of(found, metric) for metric in metrics}
    return means | {f"{task}_{metric}": value for task, values in found.items() for metric, value in values.items()}
