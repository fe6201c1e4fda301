"""Metrics that are functions of sums over rows: their standard errors, and their values over resampled rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.gauc import group_aucs

__all__ = ["SUMS", "SumMetric", "sum_error", "units_of_sums"]


@dataclass(frozen=True)
class SumMetric:
    """A metric ``value(sum over rows of terms(rows))``.

    Attributes:
        terms: (N, S) of N rows. value: (..., S) to (...); the same if all sums are multiplied by one number.
    """

    terms: Callable[[Rows], Tensor]
    value: Callable[[Tensor], Tensor]


def _losses(rows: Rows) -> Tensor:
    loss = functional.binary_cross_entropy_with_logits(rows.logits.double(), rows.labels.double(), reduction="none")
    return torch.stack([rows.mass * loss, rows.mass, rows.mass * rows.labels.double()], 1)


def _normalised(sums: Tensor) -> Tensor:
    loss, weight, positives = sums.unbind(-1)
    rate = positives / weight
    return loss / weight / -(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate))


def _predicted(rows: Rows) -> Tensor:
    return torch.stack([rows.mass * rows.probabilities, rows.mass * rows.labels.double()], 1)


def _distances(power: int) -> Callable[[Rows], Tensor]:
    def terms(rows: Rows) -> Tensor:
        distance = (rows.logits.double() - rows.labels.double()).abs() ** power
        return torch.stack([rows.mass * distance, rows.mass], 1)

    return terms


def _ratio(sums: Tensor) -> Tensor:
    return sums[..., 0] / sums[..., 1]


SUMS: Mapping[str, SumMetric] = {
    "logloss": SumMetric(_losses, _ratio),
    "ne": SumMetric(_losses, _normalised),
    "calibration": SumMetric(_predicted, _ratio),
    "rmse": SumMetric(_distances(2), lambda sums: _ratio(sums).sqrt()),
    "mae": SumMetric(_distances(1), _ratio),
    "gauc": SumMetric(lambda rows: _grouped(rows), _ratio),
}
"""The built-in metrics of this kind; the AUC is none, since its pairs lie in two rows."""


def _grouped(rows: Rows) -> Tensor:
    """(groups with both classes, 2): each group's weight times its AUC, and its weight."""
    assert rows.group is not None
    found, size = group_aucs(rows.logits, rows.labels, rows.group, rows.weights)
    return torch.from_numpy(np.stack([size * found, size], 1))


def units_of_sums(metric: str, rows: Rows) -> Tensor:
    """(K, S) terms of ``metric`` summed over each of K independent units: the groups, or single rows without any.

    ``gauc`` has the groups with both classes. Two predictions for the same rows have the same units in the same order.
    """
    terms = SUMS[metric].terms(rows)
    if rows.group is None or metric == "gauc":
        return terms
    _, number = np.unique(rows.group.numpy(), return_inverse=True)
    units = torch.zeros(int(number.max(initial=-1)) + 1, terms.shape[1], dtype=torch.float64)
    return units.index_add_(0, torch.from_numpy(number), terms)


def sum_error(metric: str, rows: Rows) -> float:
    """Standard error of a metric of :data:`SUMS`, by the delta method; clustered where rows have groups.

    ``var = K / (K - 1) sum_k u_k^2``, where ``u_k`` is the gradient of the value, taken at the sums, times unit k's
    terms: the influence of the unit. NaN where undefined, and with fewer than two units.

    >>> rows = Rows(torch.zeros(4), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    >>> round(sum_error("mae", rows), 6)  # 1, 3, 5, 7: standard deviation sqrt(20 / 3), over sqrt(4)
    1.290994
    """
    units = units_of_sums(metric, rows)
    if len(units) < 2:
        return math.nan
    sums = units.sum(0).requires_grad_()
    (gradient,) = torch.autograd.grad(SUMS[metric].value(sums), sums)
    error = float((units @ gradient).square().sum() * len(units) / (len(units) - 1)) ** 0.5
    return error if math.isfinite(error) else math.nan
