"""Log loss."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.metric.base import Rows, TaskMetric
from recbole_dtn.registry import METRICS

__all__ = ["LogLoss"]


@METRICS.register("logloss")
class LogLoss(TaskMetric):
    """Mean binary cross-entropy in nats.

    ``sum w (-y log s - (1 - y) log(1 - s)) / sum w``, s = sigmoid(logit), w the sample weight or 1. From logits and in
    float64, so that no probability is clipped.

    >>> import torch
    >>> metric = LogLoss()
    >>> metric.update(torch.tensor([0.0, -100.0]), torch.tensor([1.0, 1.0]))
    >>> metric.compute()
    tensor(50.3466, dtype=torch.float64)
    """

    higher_is_better = False
    loss: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("loss")
        self.add_sum("weight")

    def add(self, rows: Rows) -> None:
        self.loss += functional.binary_cross_entropy_with_logits(
            rows.logits.double(), rows.labels.double(), weight=rows.mass, reduction="sum"
        )
        self.weight += rows.mass.sum()

    def compute(self) -> Tensor:
        # 0 / 0 is NaN: undefined without a row.
        return self.loss / self.weight
