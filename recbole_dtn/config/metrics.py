"""Names that ``valid_metric`` may have, and their direction; without torch, so that a wrong name costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

__all__ = ["higher_is_better", "known_valid_metrics"]


class Task(Protocol):
    """What the names depend on; ``TaskSpec`` and ``TaskSettings`` both have it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def pos_weight(self) -> float: ...


def known_valid_metrics(tasks: Iterable[Task]) -> tuple[str, ...]:
    """``mean_auc``, ``mean_logloss`` and, for each task, the metrics that can select an epoch.

    Calibration cannot (best at 1, not at an end); ``ne`` is undefined for a task with ``pos_weight``.

    >>> from recbole_dtn.schema import TaskSpec
    >>> known_valid_metrics([TaskSpec("click", "binary", "c"), TaskSpec("stay", "regression", "s")])
    ('mean_auc', 'mean_logloss', 'click_auc', 'click_logloss', 'click_ne', 'stay_rmse', 'stay_mae')
    """
    means: list[str] = []
    names: list[str] = []
    for task in tasks:
        if task.kind == "binary":
            means = ["mean_auc", "mean_logloss"]
            names += [f"{task.name}_auc", f"{task.name}_logloss"]
            names += [f"{task.name}_ne"] if task.pos_weight == 1.0 else []
        else:
            names += [f"{task.name}_rmse", f"{task.name}_mae"]
    return (*means, *names)


def higher_is_better(valid_metric: str) -> bool:
    """Whether larger values of ``valid_metric`` are better: of the AUC they are, of losses and errors not.

    >>> higher_is_better("click_auc"), higher_is_better("mean_logloss")
    (True, False)
    """
    return valid_metric.rpartition("_")[2] == "auc"
