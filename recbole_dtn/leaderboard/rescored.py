"""Metrics that are computed from stored test scores: calibration error, and AUC along a chain of tasks.

A model of click and purchase over all rows (CTCVR) gives the purchase after a click in two ways: ``p_ctcvr / p_ctr``
(``ratio``) and ``p_ctcvr`` itself (``joint``), both on the rows that were clicked. One AUC each, by run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from recbole_dtn.metric.ece import ECE
from recbole_dtn.metric.uncertainty import auc_with_error
from recbole_dtn.record.scores import TestRows

__all__ = ["JOINT", "RATIO", "calibration_errors", "conditional_aucs"]

RATIO, JOINT = "ratio", "joint"
DIGITS = 8
Values = dict[str, list[float | None]]
"""Values by run."""


def calibration_errors(tasks: Sequence[Mapping[str, Any]], scores: Any, test: TestRows) -> Values:
    """The expected calibration error of each task (:class:`~recbole_dtn.metric.ece.ECE`), a value per run.

    Args:
        tasks, scores, test: as of :func:`conditional_aucs`. Of binary tasks whose predictions are probabilities.
    """
    found: Values = {}
    for place, task in enumerate(tasks):
        labels = test.labels[:, place]
        rows = ~np.isnan(labels)
        if not _probability(task):
            continue
        values = []
        for of_run in scores[:, rows, place]:
            metric = ECE()
            weights = None if test.weight is None else torch.from_numpy(test.weight[rows])
            metric.update(torch.from_numpy(of_run), torch.from_numpy(labels[rows]), sample_weight=weights)
            values.append(_rounded(float(metric.compute())))
        found[str(task["name"])] = values
    return found


def conditional_aucs(tasks: Sequence[Mapping[str, Any]], scores: Any, test: TestRows) -> dict[str, dict[str, Values]]:
    """``{"buy@click": {"ratio": {"auc": [...], "error": [...]}, "joint": ...}}``, a value per run; None: undefined.

    ``error`` is the standard error over the test rows, or over the users
    (:func:`~recbole_dtn.metric.uncertainty.auc_with_error`).

    Args:
        tasks: the settings of the tasks, in the order of the columns. scores: (S, N, T) logits of S runs.
        test: the rows. A task that is predicted over its condition's rows alone has no such pair; with ``pos_weight``
            or down-sampled negatives of either task there is no ratio, as the predictions are no probabilities.
    """
    names = [str(task["name"]) for task in tasks]
    found: dict[str, dict[str, Values]] = {}
    for later, task in enumerate(tasks):
        after = [name for name in task.get("after") or () if name in names]
        if len(after) != 1 or task.get("observed_when") is not None:
            continue
        before = names.index(after[0])
        if not all(tasks[place].get("kind", "binary") == "binary" for place in (before, later)):
            continue
        with np.errstate(invalid="ignore"):
            rows = (test.labels[:, before] > 0.5) & ~np.isnan(test.labels[:, later])
        labels = torch.from_numpy(test.labels[rows, later])
        weights, groups = (None if of is None else torch.from_numpy(of[rows]) for of in (test.weight, test.group))
        ways = {JOINT: scores[:, rows, later].astype(np.float64)}
        joint = tasks[before].get("observed_when") is None  # else p(before) is a conditional probability itself
        if joint and all(_probability(tasks[place]) for place in (before, later)):
            ways = {RATIO: _log_sigmoid(ways[JOINT]) - _log_sigmoid(scores[:, rows, before].astype(np.float64)), **ways}
        name = f"{names[later]}@{names[before]}"
        found[name] = {}
        for way, of_runs in ways.items():
            both = [auc_with_error(torch.from_numpy(values), labels, weights, groups) for values in of_runs]
            found[name][way] = {"auc": [_rounded(auc) for auc, _ in both], "error": [_rounded(of) for _, of in both]}
    return found


def _probability(task: Mapping[str, Any]) -> bool:
    """Whether the predictions of a task are probabilities of its label in the data."""
    loss = task.get("loss")
    name = loss.get("name") if isinstance(loss, Mapping) else loss
    usual = task.get("kind", "binary") == "binary" and name in (None, "bce")
    return bool(usual and task.get("pos_weight", 1.0) == 1.0 and task.get("negative_rate", 1.0) == 1.0)


def _log_sigmoid(logits: Any) -> Any:
    return -np.logaddexp(0.0, -logits)


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
