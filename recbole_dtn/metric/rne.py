"""Normalised entropy after a recalibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.metric.base import Rows, undefined
from recbole_dtn.metric.kept import RowsMetric
from recbole_dtn.metric.ne import entropy
from recbole_dtn.registry import METRICS

__all__ = ["RecalibratedNE", "platt_fit"]

STEPS, ENOUGH = 100, 1e-14


def platt_fit(rows: Rows) -> tuple[float, float]:
    """Slope a and intercept b of ``sigmoid(a z + b)`` with the least log loss (Platt, 1999).

    With Platt's targets, ``(P + 1) / (P + 2)`` for the positives and ``1 / (N + 2)`` for the negatives, whose masses
    are P and N: the minimum is finite even where the logits separate the classes.

    >>> a, b = platt_fit(Rows(torch.tensor([-1.0, 1.0, 1.0, -1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])))
    >>> round(a, 12), round(b, 12)
    (0.0, 0.0)
    """
    logits, labels, mass = rows.logits.double(), rows.labels.double(), rows.mass
    centre = (mass * logits).sum() / mass.sum()
    spread = ((mass * (logits - centre).square()).sum() / mass.sum()).sqrt()
    # In units of their own spread, so that the Newton steps are well conditioned; equal logits leave the intercept.
    units = (logits - centre) / spread if spread > 0 else torch.zeros_like(logits)
    positives = (mass * labels).sum()
    negatives = mass.sum() - positives
    targets = labels * (positives + 1) / (positives + 2) + (1 - labels) / (negatives + 2)
    inputs = torch.stack([units, torch.ones_like(units)], 1)

    def loss(point: Tensor) -> Tensor:
        z = inputs @ point
        return (mass * (functional.softplus(z) - targets * z)).sum()

    point = torch.zeros(2, dtype=torch.float64)
    value = loss(point)
    for _ in range(STEPS):
        chances = torch.sigmoid(inputs @ point)
        gradient = inputs.T @ (mass * (chances - targets))
        curvature = (inputs * (mass * chances * (1 - chances)).unsqueeze(1)).T @ inputs
        step = torch.linalg.lstsq(curvature, -gradient.unsqueeze(1), driver="gelsd").solution.squeeze(1)
        size = 1.0
        while size > ENOUGH and not (new := loss(point + size * step)) <= value:
            size /= 2
        if size <= ENOUGH:
            break
        point, gain, value = point + size * step, float(value - new), new
        if gain <= ENOUGH * float(value):
            break
    slope = float(point[0] / spread) if spread > 0 else 0.0
    return slope, float(point[1]) - slope * float(centre)


@METRICS.register("rne", paper="He et al., ADKDD 2014; Platt, 1999")
class RecalibratedNE(RowsMetric):
    """Normalised entropy of ``sigmoid(a z + b)``, with a and b fitted on the validation rows.

    What the normalised entropy would be after Platt scaling: it is defined for a task with ``pos_weight`` or another
    loss whose predictions are no probabilities, and its distance from ``ne`` is what calibration alone would gain. a
    and b are fitted by :func:`platt_fit` on the validation rows, of the epoch that is kept, for the test rows. On
    validation itself, and for scores of other tools, which come without validation rows, they are fitted on the rows
    that are evaluated: two numbers, which flatter the value by about 1 / (rows times entropy). By domain
    (``rne/domain``) every domain has a fit of its own rows.

    Undefined where only one class is observed. The record keeps ``slope`` and ``intercept`` under ``details``.

    >>> metric = RecalibratedNE()
    >>> metric.use_fit({"slope": 0.5, "intercept": 0.0})
    >>> metric.update(torch.tensor([-2.0, 2.0]), torch.tensor([0.0, 1.0]))
    >>> metric.compute()  # log(1 + exp(-1)) / log 2
    tensor(0.4519, dtype=torch.float64)
    """

    higher_is_better = False
    by_default = False

    def __init__(self) -> None:
        super().__init__()
        self._given: tuple[float, float] | None = None
        self._used: tuple[float, float] | None = None

    def use_fit(self, details: Mapping[str, Any]) -> None:
        self._given = float(details["slope"]), float(details["intercept"])

    def compute(self) -> Tensor:
        rows = self.rows()
        self._used = None
        if not len(rows) or bool(rows.logits.isnan().any()):
            return undefined()
        weight = rows.mass.sum()
        baseline = entropy(float((rows.mass * rows.labels.double()).sum() / weight))
        if math.isnan(baseline):
            return undefined()
        slope, intercept = self._used = platt_fit(rows) if self._given is None else self._given
        logits = slope * rows.logits.double() + intercept
        loss = functional.binary_cross_entropy_with_logits(
            logits, rows.labels.double(), weight=rows.mass, reduction="sum"
        )
        return loss / weight / baseline

    def details(self) -> dict[str, Any] | None:
        return None if self._used is None else dict(zip(("slope", "intercept"), self._used, strict=True))
