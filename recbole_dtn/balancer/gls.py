"""Geometric loss strategy: the geometric mean of the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS

__all__ = ["GLS"]

LEAST_LOSS = 1e-8
"""The smallest loss in a logarithm."""


@BALANCERS.register("gls", paper="Chennupati et al., CVPR Workshops 2019")
class GLS(LossBalancer):
    """Geometric mean of the task losses.

    ``L = (prod_t L_t)^(1/K) + extra`` over the K observed tasks, computed as ``exp(mean_t log L_t)``. Its gradient is
    ``(prod_s L_s)^(1/K) / K sum_t g_t / L_t``, the same whatever each loss is multiplied by, but for its length. A loss
    counts as 1e-8 at least.

    >>> losses = torch.tensor([0.5, 2.0], requires_grad=True)
    >>> GLS([]).backward(Step(losses)).item()
    1.0
    >>> losses.grad  # 1 / (2 L_t)
    tensor([1.0000, 0.2500])
    """

    def backward(self, step: Step) -> Tensor:
        observed, values = step.observed, step.values.clamp_min(LEAST_LOSS)
        count = observed.sum().clamp_min(1)
        mean = (torch.where(observed, values.log(), 0.0).sum() / count).exp()
        # As a weighted sum, since ``values`` are over all processes: each one's own product has another gradient.
        weights = torch.where(observed, mean / (count * values), 0.0)
        step.run((weights * step.losses).sum() + step.extra)
        return mean * observed.any() + step.extra.detach()
