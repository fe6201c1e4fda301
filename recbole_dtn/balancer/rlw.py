"""Random loss weighting: weights drawn anew in each step."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS

__all__ = ["RLW"]


@BALANCERS.register("rlw", paper="Lin et al., TMLR 2022")
class RLW(LossBalancer):
    """Loss weights that are random in each step.

    ``sum_t w_t L_t + extra`` with ``w = softmax(z)`` over the observed tasks, z_t drawn from N(0, 1) in each step. The
    weights sum to 1, those of ``equal`` to T: tune the learning rate for each. The draw depends on the run's ``seed``
    and on the step alone.
    """

    def backward(self, step: Step) -> Tensor:
        drawn = torch.from_numpy(step.random().standard_normal(len(step.losses))).to(step.losses)
        weights = torch.softmax(drawn.masked_fill(~step.observed, -torch.inf), 0)
        # Without an observed task the softmax is NaN.
        weights = torch.where(step.observed, weights, 0.0)
        total = (weights * step.losses).sum() + step.extra
        step.run(total)
        return total.detach()
