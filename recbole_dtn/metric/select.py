"""The number that selects the best epoch."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["is_better", "mean_auc", "mean_of", "select"]

Metrics = Mapping[str, Mapping[str, float | None]]
"""``{task: {metric: value}}``, as :meth:`MultiTaskMetrics.compute` returns it."""


def mean_of(metrics: Metrics, metric: str) -> float | None:
    """Mean of ``metric`` over the tasks where it is defined; None where it is defined for none.

    >>> mean_of({"a": {"auc": 0.5}, "b": {"auc": 0.75}, "c": {"auc": None}, "d": {"rmse": 3.0}}, "auc")
    0.625
    """
    values = [value for found in metrics.values() if (value := found.get(metric)) is not None]
    return sum(values) / len(values) if values else None


def mean_auc(metrics: Metrics) -> float | None:
    """Mean AUC over the binary tasks whose AUC is defined; None if none is."""
    return mean_of(metrics, "auc")


def select(metrics: Metrics, valid_metric: str) -> float | None:
    """The value of ``valid_metric``: ``mean_<metric>`` or ``<task>_<metric>``; None where undefined.

    Raises:
        KeyError: for a name that no task has; settings are checked earlier
            (:func:`recbole_dtn.config.metrics.known_valid_metrics`).

    >>> select({"click": {"auc": 0.7, "logloss": 0.3}}, "click_logloss")
    0.3
    """
    for task, found in metrics.items():  # before "mean", since a task may be named "mean"
        for metric, value in found.items():
            if valid_metric == f"{task}_{metric}":
                return value
    metric = valid_metric.removeprefix("mean_")
    if metric != valid_metric and any(metric in found for found in metrics.values()):
        return mean_of(metrics, metric)
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
