"""Weighted logistic regression of watch time."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor

from recbole_dtn.loss.base import Link, TaskLoss
from recbole_dtn.registry import LOSSES
from recbole_dtn.schema import TaskKind

__all__ = ["WeightedLogistic"]


@LOSSES.register("wlr", paper="Covington et al., RecSys 2016")
class WeightedLogistic(TaskLoss):
    """Weighted logistic regression of a time (or another amount of at least 0): ``exp(logit)`` is the expected time.

    A row with time y is a positive of weight y and a negative of weight n::

        -y log s - n log(1 - s),   s = sigmoid(logit)

    Its minimum has the odds ``exp(logit) = E[y] / E[n]``. With ``negatives: all`` n is 1 in every row, so that the odds
    are the expected time. With ``negatives: unwatched``, the paper's (section 4.2), n is 1 in the rows without time
    and 0 in the others: the odds are E[y] / P(y = 0), near the expected time only if few rows have any, and
    infinite where all have.

    The prediction of the task is ``exp(logit)``, and so are metrics. Times are divided by their mean in training
    (unless the task sets ``standardise: false``), so that milliseconds learn as seconds do; predictions are in the
    unit of the label. A negative time is refused.

    >>> WeightedLogistic()(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 2.0]))  # log 2 and 3 log 2
    tensor([0.6931, 2.0794])
    """

    task_kind: ClassVar[TaskKind] = "regression"
    link: ClassVar[Link] = "exp"

    def __init__(
        self,
        *,
        negatives: Annotated[
            Literal["all", "unwatched"], Field(description="rows that count as a negative of weight 1")
        ] = "all",
    ) -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        negative = functional.softplus(logits)
        if self.negatives == "unwatched":
            negative = torch.where(labels > 0, 0.0, negative)
        return labels * functional.softplus(-logits) + negative
