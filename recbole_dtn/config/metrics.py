"""Valid names of ``valid_metric`` and their direction. Does not import torch, so a wrong name is reported quickly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from recbole_dtn.config.metric_names import is_metric, metric_about
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import nearest
from recbole_dtn.registry import LOSSES, METRICS

__all__ = [
    "MEANS", "by_default", "calibrated", "error_name", "higher_is_better", "is_error", "known_valid_metrics",
    "metric_faults", "metric_of",
]  # fmt: skip

MEANS = ("mean", "weighted")
"""Means over the tasks: with equal weights, or with those of :func:`recbole_dtn.metric.select.task_weights`."""
ERROR = "_se"


class Task(Protocol):
    """What the names depend on; ``TaskSpec`` and ``TaskSettings`` both have it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def pos_weight(self) -> float: ...
    @property
    def loss(self) -> Any: ...


def error_name(metric: str) -> str:
    """The key of a metric's standard error, beside the metric's own in results and records.

    >>> error_name("auc")
    'auc_se'
    """
    return f"{metric}{ERROR}"


def is_error(name: str) -> bool:
    """Whether a key of results is the standard error of a metric, and no metric.

    >>> is_error("auc_se"), is_error("auc")
    (True, False)
    """
    return name.endswith(ERROR)


def known_valid_metrics(
    tasks: Sequence[Task], metrics: Sequence[str] | None = None, *, grouped: bool = False, domains: bool = False
) -> tuple[str, ...]:
    """Every name that can select an epoch: the means over the tasks that have the metric, then ``<task>_<metric>``.

    A metric without a direction cannot (calibration is best at 1), nor one that is undefined for a task whose
    predictions are not :func:`calibrated`.

    Args:
        tasks: the tasks. metrics: names of the metrics that are computed; None: every registered one that applies.
        grouped: whether rows have a group. domains: whether they have a domain.

    >>> from recbole_dtn.schema import TaskSpec
    >>> tasks = [TaskSpec("click", "binary", "c", pos_weight=2.0), TaskSpec("stay", "regression", "s")]
    >>> known_valid_metrics(tasks, ["auc", "calibration", "ne", "rmse"])
    ('mean_auc', 'mean_rmse', 'weighted_auc', 'weighted_rmse', 'click_auc', 'stay_rmse')
    """
    names = [name for name in METRICS.names() if by_default(name)] if metrics is None else metrics
    found = [(task.name, name) for task in tasks for name in names if _selects(name, task, grouped, domains)]
    shared = [name for name in names if any(name == metric for _, metric in found)]
    return (*(f"{mean}_{name}" for mean in MEANS for name in shared), *(f"{task}_{metric}" for task, metric in found))


def calibrated(task: Task) -> bool:
    """Whether a task's predictions are probabilities of the data: without ``pos_weight``, and by its loss.

    >>> from recbole_dtn.schema import TaskSpec
    >>> calibrated(TaskSpec("t", "binary", "t")), calibrated(TaskSpec("t", "binary", "t", loss={"name": "focal"}))
    (True, False)
    """
    if task.loss is None:
        return task.pos_weight == 1.0
    name = task.loss["name"] if isinstance(task.loss, Mapping) else task.loss.name
    return task.pos_weight == 1.0 and bool(LOSSES.attributes(name).get("calibrated", True))


def by_default(name: str) -> bool:
    """Whether a metric is computed where the setting ``metrics`` is null.

    >>> by_default("auc"), by_default("pr_auc")
    (True, False)
    """
    return bool(metric_about(name).get("by_default", True))


def _selects(name: str, task: Task, grouped: bool, domains: bool) -> bool:
    about = metric_about(name)
    return (
        about.get("task_kind") == task.kind
        and about.get("higher_is_better") is not None
        and not (about.get("needs_calibrated") and not calibrated(task))
        and (grouped or not about.get("needs_group"))
        and (domains or not about.get("needs_domain"))
    )


def metric_of(valid_metric: str, tasks: Iterable[str]) -> str:
    """The metric in ``mean_<metric>``, ``weighted_<metric>`` or ``<task>_<metric>``; empty where there is none.

    >>> metric_of("long_view_auc", ["long", "long_view"]), metric_of("mean_f1", [])
    ('auc', '')
    """
    for task in (*tasks, *MEANS):
        metric = valid_metric.removeprefix(f"{task}_")
        if metric != valid_metric and is_metric(metric):
            return metric
    return ""


def higher_is_better(valid_metric: str, tasks: Iterable[str]) -> bool:
    """Whether larger values of ``valid_metric`` are better, as its metric declares.

    >>> higher_is_better("click_auc", ["click"]), higher_is_better("mean_logloss", ["click"])
    (True, False)
    """
    return bool(metric_about(metric_of(valid_metric, tasks))["higher_is_better"])


def metric_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    """Key and message of what is wrong in ``metrics`` and ``valid_metric``."""
    chosen = None
    if settings.metrics is not None:
        yield from _misplaced([choice.name for choice in settings.metrics], settings)
        chosen = list(dict.fromkeys(choice.name for choice in settings.metrics))
    grouped, domains = settings.group_field is not None, settings.domain_field is not None
    name, known = settings.valid_metric, known_valid_metrics(settings.tasks, chosen, grouped=grouped, domains=domains)
    if name in known:
        return
    metric = metric_of(name, [task.name for task in settings.tasks])
    instead = f"choose one of {', '.join(known)}" if known else "compute one that can select an epoch"
    left_out = is_metric(metric) and (chosen is not None or not by_default(metric))
    if left_out and name in known_valid_metrics(settings.tasks, [metric], grouped=grouped, domains=domains):
        yield "valid_metric", f"{name!r} is not computed: add {metric} to metrics, or {instead}"
    elif is_metric(metric) and name in known_valid_metrics(settings.tasks, [metric], grouped=True, domains=True):
        needed = "group_field" if metric_about(metric).get("needs_group") and not grouped else "domain_field"
        yield "valid_metric", f"{name!r} needs {needed}: set it, or {instead}"
    elif is_metric(metric) and metric_about(metric).get("higher_is_better") is None:
        yield "valid_metric", f"{metric} is best at neither end, so that it cannot select an epoch; {instead}"
    elif all(task.kind != "binary" for task in settings.tasks):
        yield "valid_metric", f"{name!r} needs a binary task; {instead}"
    else:
        yield "valid_metric", f"unknown metric {name!r}; {nearest(name, known)}"


def _misplaced(chosen: Sequence[str], settings: Settings) -> Iterator[tuple[str, str]]:
    kinds = {task.kind for task in settings.tasks}
    for number, name in enumerate(chosen):
        about = metric_about(name)
        if name in chosen[:number]:
            yield "metrics", f"{name!r} is listed twice; keep one"
        elif about.get("task_kind") not in kinds:
            yield "metrics", f"{name!r} is for {about.get('task_kind')} tasks, and there are none; leave it out"
        elif about.get("needs_group") and settings.group_field is None:
            yield "metrics", f"{name!r} needs group_field, the column of groups such as users; set it, or leave it out"
        elif about.get("needs_domain") and settings.domain_field is None:
            yield "metrics", f"{name!r} needs domain_field, the column of domains; set it, or leave it out"
