"""The number that selects the best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from recbole_dtn.config.metrics import MEANS

__all__ = ["is_better", "mean_of", "select", "task_weights"]

Metrics = Mapping[str, Mapping[str, float | None]]
"""``{task: {metric: value}}``, as :meth:`MultiTaskMetrics.compute` returns it."""


def task_weights(positives: Mapping[str, tuple[int, int]], kinds: Mapping[str, str]) -> dict[str, float]:
    """Weights of the tasks in ``weighted_<metric>``: ``sqrt(P N / (P + N))`` of P positives and N negatives.

    It is, up to a factor, the inverse of an AUC's standard error where the scores tell nothing, ``sqrt((P + N + 1) /
    (12 P N))`` (Hanley and McNeil, Radiology 1982). Each task's AUC then counts in units of its own standard error, so
    that the noise of a rare task moves the mean as little as that of a frequent one. A regression of n rows counts as a
    balanced binary task, ``sqrt(n / 4)``.

    Args:
        positives: of each task, its positive and its observed rows. kinds: ``binary`` or ``regression`` by task.

    >>> task_weights({"click": (50, 100), "buy": (1, 100)}, {"click": "binary", "buy": "binary"})
    {'click': 5.0, 'buy': 0.99498743710662}
    """
    return {
        task: math.sqrt(ones * (rows - ones) / max(rows, 1) if kinds[task] == "binary" else rows / 4)
        for task, (ones, rows) in positives.items()
    }


def mean_of(metrics: Metrics, metric: str, weights: Mapping[str, float] | None = None) -> float | None:
    """Mean of ``metric`` over the tasks where it is defined; None where it is defined for none.

    Args:
        metrics: of each task. metric: name. weights: of the tasks; None: equal ones.

    >>> found = {"a": {"auc": 0.5}, "b": {"auc": 0.75}, "c": {"auc": None}, "d": {"rmse": 3.0}}
    >>> mean_of(found, "auc"), mean_of(found, "auc", {"a": 30.0, "b": 10.0})
    (0.625, 0.5625)
    """
    values = {task: value for task, found in metrics.items() if (value := found.get(metric)) is not None}
    each = {task: 1.0 if weights is None else weights[task] for task in values}
    total = sum(each.values())
    return sum(each[task] * value for task, value in values.items()) / total if total else None


def select(metrics: Metrics, valid_metric: str, weights: Mapping[str, float]) -> float | None:
    """The value of ``valid_metric``; None where undefined.

    ``mean_<metric>`` is the mean over the tasks, ``weighted_<metric>`` the weighted mean, and ``<task>_<metric>`` the
    value of one task.

    Args:
        metrics: of each task. valid_metric: name. weights: of the tasks, as :func:`task_weights` gives them.

    Raises:
        KeyError: for a name that no task has; settings are checked earlier
            (:func:`recbole_dtn.config.metrics.known_valid_metrics`).

    >>> found = {"click": {"auc": 0.75, "logloss": 0.3}, "buy": {"auc": 0.5}}
    >>> weights = {"click": 3.0, "buy": 1.0}
    >>> [select(found, name, weights) for name in ("click_logloss", "mean_auc", "weighted_auc")]
    [0.3, 0.625, 0.6875]
    """
    for task, found in metrics.items():  # before "mean", since a task may be named "mean"
        for metric, value in found.items():
            if valid_metric == f"{task}_{metric}":
                return value
    kind, _, metric = valid_metric.partition("_")
    if kind in MEANS and any(metric in found for found in metrics.values()):
        return mean_of(metrics, metric, weights if kind == "weighted" else None)
    raise KeyError(valid_metric)


def is_better(higher: bool, new: float | None, best: float | None) -> bool:
    """Whether ``new`` beats ``best`` strictly; an undefined value never does.

    Args:
        higher: whether larger values are better (:func:`recbole_dtn.config.metrics.higher_is_better`).

    >>> is_better(True, 0.8, 0.7), is_better(False, 0.8, 0.7), is_better(True, 0.8, None)
    (True, False, True)
    """
    if new is None:
        return False
    if best is None:
        return True
    return new > best if higher else new < best
