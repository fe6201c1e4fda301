"""Keys of a RecBole Config that ``from_settings`` and ``translate`` both read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import recbole.model
from recbole.config import Config

from recbole_dtn.bridge.config import REFUSED
from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.recbole_names import ALIASES
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError, nearest

__all__ = ["MEANS_ANOTHER", "SETTINGS_KEY", "WRITER", "is_stock_model", "label_column", "refuse_unknown"]

SETTINGS_KEY = "recbole_dtn"
"""Key of a RecBole Config that holds our Settings."""

MEANS_ANOTHER = frozenset({"model", "dataset", "data_path", "metrics", "valid_metric", "weight_decay"})
"""Keys that RecBole and our settings both have, and that a stock Config sets in RecBole's sense."""

WRITER = "recbole_dtn.preprocess.export.write_given_splits"
"""The function that messages name: it writes a data set's splits as RecBole's files."""


def label_column(settings: Settings, task: str, columns: Collection[str]) -> str:
    """The column of RecBole's files that holds a task's label: the one named as the task, else the task's ``label``.

    RecBole has no conditions, so a label that a condition derives needs a column of its own.
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


def refuse_unknown(given: Iterable[str], config: Config, ours: set[str]) -> None:
    """Refuse keys that neither side has; RecBole ignores them."""
    known = {key for keys in config.parameters.values() for key in keys} | set(config.internal_config_dict)
    known |= {*ours, *ALIASES, *REFUSED, "model", "dataset", "discretization", SETTINGS_KEY}
    for key in given:
        if key not in known and key.split(".")[0] not in ours:
            raise UsageError(f"unknown key {key!r}, neither RecBole's nor ours: {nearest(key, known)}")


def is_stock_model(name: str) -> bool:
    """Whether RecBole itself has a model of this name."""
    # By its file: RecBole's own look-up imports every package of models, lightgbm's among them.
    return any(list(Path(folder).glob(f"*/{name.lower()}.py")) for folder in recbole.model.__path__)
