"""Calibration: the mean prediction against the mean label."""

from __future__ import annotations

from torch import Tensor

from recbole_dtn.metric.base import Rows, TaskMetric, undefined
from recbole_dtn.registry import METRICS

__all__ = ["Calibration"]


@METRICS.register("calibration")
class Calibration(TaskMetric):
    """Mean prediction over mean label; above 1 the model predicts too much.

    ``sum w p / sum w y``, p = sigmoid(logit), w the sample weight or 1. Undefined without a positive.

    >>> import torch
    >>> metric = Calibration()
    >>> metric.update(torch.zeros(4), torch.tensor([0.0, 1.0, 0.0, 0.0]))
    >>> metric.compute()
    tensor(2., dtype=torch.float64)
    """

    higher_is_better = None
    needs_calibrated = True
    predicted: Tensor
    positives: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("predicted")
        self.add_sum("positives")

    def add(self, rows: Rows) -> None:
        # Both sums are over rows with their weights, so the numbers of rows cancel.
        self.predicted += (rows.mass * rows.probabilities).sum()
        self.positives += (rows.mass * rows.labels.double()).sum()

    def compute(self) -> Tensor:
        return self.predicted / self.positives if self.positives > 0 else undefined()
