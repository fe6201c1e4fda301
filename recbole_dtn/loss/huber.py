"""Huber loss."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor

from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.registry import LOSSES
from recbole_dtn.schema import TaskKind

__all__ = ["Huber"]


@LOSSES.register("huber", paper="Huber, Annals of Mathematical Statistics 1964")
class Huber(TaskLoss):
    """Huber loss of a regression: squared error near the target, absolute error far from it.

    ``1/2 e^2`` where ``|e| <= delta``, else ``delta (|e| - 1/2 delta)``, with e = v - y. Targets are standardised, so
    that delta is in standard deviations, unless the task sets ``standardise: false``.

    >>> import torch
    >>> Huber()(torch.tensor([1.5, 5.0]), torch.tensor([2.0, 2.0]))
    tensor([0.1250, 2.5000])
    """

    task_kind: ClassVar[TaskKind] = "regression"

    def __init__(
        self, *, delta: Annotated[float, Field(gt=0, description="distance from which the loss is linear")] = 1.0
    ) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.huber_loss(logits, labels, reduction="none", delta=self.delta)
