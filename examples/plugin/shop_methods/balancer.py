"""A learned scale for each loss."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec


@BALANCERS.register("shop_scales", paper="an example")
class ShopScales(LossBalancer):
    """A learned scale for each loss.

    ``L = sum_t (e^{s_t} L_t - c s_t) + extra`` over the observed tasks: at its optimum every scaled loss is c.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        level: Annotated[float, Field(gt=0, description="c, what every scaled loss tends to")] = 1.0,
    ) -> None:
        super().__init__(tasks)
        self.level = level
        self.scales = nn.Parameter(torch.zeros(len(tasks)))

    def backward(self, step: Step) -> Tensor:
        """Gradients of the model's parameters and of the scales."""
        terms = self.scales.exp() * step.losses - self.level * self.scales
        total = torch.where(step.observed, terms, 0.0).sum() + step.extra
        step.run(total)
        return total.detach()
