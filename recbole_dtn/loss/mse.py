"""Squared error."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.registry import LOSSES
from recbole_dtn.schema import TaskKind

__all__ = ["MSE"]


@LOSSES.register("mse")
class MSE(TaskLoss):
    """Squared error of a regression.

    ``(v - y)^2``, v the predicted value.

    >>> import torch
    >>> MSE()(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    tensor([1., 9.])
    """

    task_kind: ClassVar[TaskKind] = "regression"

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - labels).square()
