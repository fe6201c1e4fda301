"""Binary cross-entropy."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.registry import LOSSES

__all__ = ["BCE"]


@LOSSES.register("bce")
class BCE(TaskLoss):
    """Binary cross-entropy, from logits.

    ``-y log s - (1 - y) log(1 - s)``, s = sigmoid(logit).

    >>> import torch
    >>> BCE()(torch.tensor([0.0, -100.0]), torch.tensor([1.0, 1.0]))
    tensor([  0.6931, 100.0000])
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
