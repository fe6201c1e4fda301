"""Evaluation of scores that any tool made: exact metrics, standard errors, and paired tests of several predictions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_dtn.config.metric_names import metric_about
from recbole_dtn.config.metrics import error_name, is_error
from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.paired import LEAST_DRAWS, Paired, holm, paired_auc, paired_bootstrap
from recbole_dtn.metric.sums import SUMS, sum_error
from recbole_dtn.metric.tasks import Found, MultiTaskMetrics
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.given import (
    Labelled,
    as_logits,
    check_labels,
    domain_numbers,
    named_sets,
    numbered_groups,
    one_column,
    task_columns,
)

__all__ = ["Comparison", "Report", "evaluate", "evaluate_labelled"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """A paired test on the rows of one task: the value of ``first`` less that of ``second``.

    Attributes:
        method: ``DeLong`` or ``bootstrap``, and ``by group`` where groups are what was sampled.
        standard_error, low, high: of the difference, and its 95 % interval. p: two-sided, of no difference. p_holm:
            ``p`` adjusted for the tests of this metric, over tasks and comparisons. All None where undefined.
    """

    task: str
    metric: str
    first: str
    second: str
    method: str
    difference: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Report:
    """What :func:`evaluate` found.

    Attributes:
        metrics: ``{predictions: {task: {metric: value}}}``, a standard error under ``<metric>_se``; None if undefined.
        comparisons: every other predictions against the first, per task and metric.
        counts: ``{task: {"rows": observed rows, "positives": of these}}``, with ``groups`` where there are some.
    """

    metrics: dict[str, Found]
    comparisons: tuple[Comparison, ...]
    counts: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)


def evaluate(
    predictions: Any,
    labels: Any,
    groups: Any = None,
    *,
    weights: Any = None,
    domain: Any = None,
    tasks: Sequence[str] | None = None,
    regression: Sequence[str] = (),
    metrics: Sequence[str | Mapping[str, Any]] | None = None,
    logits: bool = False,
    draws: int = LEAST_DRAWS,
    seed: int = 2020,
) -> Report:
    """Metrics of predictions with their standard errors, and paired tests of several predictions for the same rows.

    Args:
        predictions: (N,) for one task; (N, T); a ``{task: (N,)}`` map; or a polars frame with a column per task. Of
            several tools: a ``{name: predictions}`` map of those. Probabilities of binary tasks, values of regressions.
        labels: likewise for one; 0 or 1 for binary tasks. NaN or null: the task is not observed in that row.
        groups: (N,) of any type, such as users: standard errors and tests are clustered by it, and ``gauc`` needs it.
            Rows where it is missing form one group.
        weights: (N,) sample weights of at least 0. domain: (N,) integers, for metrics of plug-ins that need it.
        tasks: names of the columns of (N, T) arrays; default ``task1``, ... regression: the tasks that are one.
        metrics: as in the settings, ``["auc", {"name": "gauc", "weights": "equal"}]``; None: all that apply.
        logits: whether predictions of binary tasks are logits.
        draws: of the bootstrap, for metrics other than AUC; 0: no test of these. seed: of the draws.

    Raises:
        DataError: for values out of range, missing predictions and lengths that differ. UsageError: for an unknown
            metric or task.

    >>> found = evaluate({"a": [0.1, 0.4, 0.35, 0.8], "b": [0.1, 0.9, 0.35, 0.8]}, [0, 0, 1, 1], metrics=["auc"])
    >>> found.metrics["a"]
    {'task': {'auc': 0.75, 'auc_se': 0.3535533905932738}}
    >>> found.comparisons[0].first, found.comparisons[0].difference, round(found.comparisons[0].p, 3)
    ('b', -0.25, 0.48)
    """
    names, values = task_columns(labels, tasks, "labels")
    unknown = [name for name in regression if name not in names]
    if unknown:
        raise UsageError(f"evaluate: regression: {unknown[0]!r} is no task; {nearest(unknown[0], names)}")
    specs = tuple(TaskSpec(name, "regression" if name in regression else "binary", name) for name in names)
    rows = len(values)
    labelled = Labelled(
        specs, values, numbered_groups(groups, rows), one_column(weights, rows, "weights"), domain_numbers(domain, rows)
    )
    sets = {
        name: task_columns(part, names, f"predictions {name!r}")[1]
        for name, part in named_sets(predictions, names).items()
    }
    return evaluate_labelled(sets, labelled, metrics=metrics, logits=logits, draws=draws, seed=seed)


def evaluate_labelled(
    sets: Mapping[str, Floats],
    labelled: Labelled,
    *,
    metrics: Sequence[str | Mapping[str, Any]] | None = None,
    logits: bool | Mapping[str, bool] = False,
    draws: int = LEAST_DRAWS,
    seed: int = 2020,
) -> Report:
    """:func:`evaluate` of (N, T) arrays by name; ``logits`` may differ between them."""
    check_labels(labelled)
    if draws < 0:
        raise UsageError(f"evaluate: draws: expected at least 0; found {draws}")
    if seed < 0:
        raise UsageError(f"evaluate: seed: expected a whole number of at least 0; found {seed}")
    chosen = _chosen(metrics, labelled)
    scores = {}
    for name, values in sets.items():
        if values.shape != labelled.labels.shape:
            raise DataError(f"predictions {name!r}: expected {len(labelled.labels):,} rows; found {len(values):,}")
        raw = logits if isinstance(logits, bool) else logits.get(name, False)
        scores[name] = as_logits(values, labelled, name, raw)
    rows = {
        name: [_rows(values, labelled, task) for task in range(len(labelled.tasks))] for name, values in scores.items()
    }
    found = {name: _metrics(values, labelled, chosen, rows[name]) for name, values in scores.items()}
    comparisons = _comparisons(rows, labelled, found, chosen or {}, draws, seed)
    return Report(found, tuple(comparisons), _counts(labelled))


def _chosen(metrics: Sequence[Any] | None, labelled: Labelled) -> dict[str, dict[str, Any]] | None:
    """Options by name of the metrics asked for; None for all."""
    if metrics is None:
        return None
    found: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        options = {"name": metric} if isinstance(metric, str) else dict(metric)
        name = options.pop("name", None)
        try:
            about = metric_about(str(name))
        except UsageError as error:
            raise UsageError(f"evaluate: {error}") from None
        for part, given in (("group", labelled.groups), ("domain", labelled.domain)):
            if about.get(f"needs_{part}") and given is None:
                raise UsageError(f"evaluate: metric {name!r} needs the {part} of every row")
        found[name] = options
    return found


def _rows(logits: Floats, labelled: Labelled, task: int) -> Rows:
    """The rows in which a task is observed."""
    seen = ~np.isnan(labelled.labels[:, task])
    rest = (labelled.weights, labelled.groups, labelled.domain)
    parts = [None if part is None else torch.from_numpy(part[seen]) for part in rest]
    return Rows(torch.from_numpy(logits[seen, task]), torch.from_numpy(labelled.labels[seen, task]), *parts)


def _metrics(
    logits: Floats, labelled: Labelled, chosen: dict[str, dict[str, Any]] | None, rows: Sequence[Rows]
) -> Found:
    """``{task: {metric: value}}`` with every standard error that is known."""
    rest = {"group": labelled.groups, "domain": labelled.domain, "sample_weight": labelled.weights}
    metrics = MultiTaskMetrics(
        labelled.tasks, chosen, grouped=labelled.groups is not None, domains=labelled.domain is not None
    )
    metrics.update(
        torch.from_numpy(logits),
        torch.from_numpy(labelled.labels),
        torch.from_numpy(~np.isnan(labelled.labels)),
        **{name: None if part is None else torch.from_numpy(part) for name, part in rest.items()},
    )
    found: Found = {}
    for (task, values), own in zip(metrics.compute().items(), rows, strict=True):
        found[task] = {}
        for metric, value in values.items():
            found[task][metric] = value
            if metric in SUMS and error_name(metric) not in values:
                found[task][error_name(metric)] = _or_none(sum_error(metric, own)) if value is not None else None
    return found


def _comparisons(
    rows: Mapping[str, Sequence[Rows]],
    labelled: Labelled,
    found: Mapping[str, Found],
    options: Mapping[str, Mapping[str, Any]],
    draws: int,
    seed: int,
) -> list[Comparison]:
    """Every other set against the first; the p values of one metric are adjusted together."""
    second, *others = rows
    units = " by group" if labelled.groups is not None else ""
    tests: dict[str, list[tuple[tuple[str, str, str, str], Paired, str]]] = {}
    for first in others:
        for place, task in enumerate(labelled.tasks):
            for metric in (name for name in found[first][task.name] if not is_error(name)):
                own, other = rows[first][place], rows[second][place]
                if metric == "auc":
                    tested, method = _paired_auc(own, other), f"DeLong{units}"
                elif draws and metric_about(metric).get("higher_is_better") is not None:
                    tested = paired_bootstrap(metric, own, other, draws=draws, seed=seed, **options.get(metric, {}))
                    method = f"bootstrap{units}"
                else:  # calibration is best at neither end, so that a difference of two says nothing
                    continue
                tests.setdefault(metric, []).append(((task.name, metric, first, second), tested, method))
    made = []
    for of_metric in tests.values():
        adjusted = holm([_or_none(tested.p) for _, tested, _ in of_metric])
        for (names, tested, method), p in zip(of_metric, adjusted, strict=True):
            numbers = (tested.difference, tested.standard_error, tested.low, tested.high, tested.p)
            made.append(Comparison(*names, method, *(*map(_or_none, numbers), p)))
    return made


def _paired_auc(first: Rows, second: Rows) -> Paired:
    weights, group = (None if part is None else part.numpy() for part in (first.weights, first.group))
    return paired_auc(first.logits.numpy(), second.logits.numpy(), first.labels.numpy(), weights, group)


def _counts(labelled: Labelled) -> dict[str, dict[str, int]]:
    found = {}
    for place, task in enumerate(labelled.tasks):
        values = labelled.labels[:, place]
        seen = ~np.isnan(values)
        found[task.name] = {"rows": int(seen.sum())}
        if task.kind == "binary":
            found[task.name]["positives"] = int((values[seen] == 1).sum())
        if labelled.groups is not None:
            found[task.name]["groups"] = len(np.unique(labelled.groups[seen]))
    return found


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
