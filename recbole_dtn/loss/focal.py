"""Focal loss."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor

from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.registry import LOSSES

__all__ = ["Focal"]


@LOSSES.register("focal", paper="Lin et al., ICCV 2017")
class Focal(TaskLoss):
    """Focal loss: cross-entropy that counts rows less, the better they are predicted already.

    ``-a_t (1 - p_t)^gamma log p_t`` (eq. 5 of the paper), p_t the probability of what happened: ``s`` where y = 1 and
    ``1 - s`` where y = 0, s = sigmoid(logit). a_t is ``alpha`` for a positive and ``1 - alpha`` for a negative; 1 for
    both where ``alpha`` is null (eq. 4). With gamma 0 it is the cross-entropy.

    Its minimum is not at the probabilities of the data: metrics that read predictions as such (``ne``,
    ``calibration``, ``ece``) are null for the task; ``rne`` recalibrates.

    >>> import torch
    >>> Focal()(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))  # 1/4 log 2; a row that is predicted better
    tensor([0.1733, 0.0227])
    """

    calibrated: ClassVar[bool] = False

    def __init__(
        self,
        *,
        gamma: Annotated[float, Field(ge=0, description="how much less a well predicted row counts")] = 2.0,
        alpha: Annotated[
            float | None, Field(gt=0, lt=1, description="weight of a positive, of a negative 1 - alpha; null: 1 each")
        ] = None,
    ) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        # The log-odds of what happened: no probability is rounded to 0 or 1 before its logarithm is taken.
        right = (2 * labels - 1) * logits
        # (1 - p_t)^gamma by its logarithm: the power of a number that is 0 has an infinite gradient below gamma 1.
        each = (-self.gamma * functional.softplus(right)).exp() * functional.softplus(-right)
        return each if self.alpha is None else each * (1 - self.alpha + (2 * self.alpha - 1) * labels)
