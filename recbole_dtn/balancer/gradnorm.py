"""GradNorm: loss weights that even out how fast tasks train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.reach import Reach
from recbole_dtn.balancer.step import Step
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["GradNorm"]

LEAST = 1e-3
"""The smallest weight of a task: Adam could carry a small one below 0."""
LEAST_LOSS = 1e-8
"""The smallest loss that another one is divided by."""


@BALANCERS.register("gradnorm", paper="Chen et al., ICML 2018")
class GradNorm(LossBalancer):
    """Loss weights learned from the norms of gradients.

    ``sum_t w_t L_t + extra``, and the weights follow the gradient of (eq. 2)::

        sum_t | N_t - sg(mean_s N_s * r_t^alpha) |    N_t = |w_t dL_t/dW|    r_t = (L_t / L_t0) / mean_s (L_s / L_s0)

    with W one shared layer and sg no gradient. After each step a weight below 0.001 becomes 0.001, then
    ``w <- T w / sum w``. Sums and means are over the observed tasks; the weight of another one stays as it is.

    W is ``layer``, by default the last shared weight, in the order of the model's parameters, that is no bias, table,
    gate or tower: the experts' last layer in MMoE. A model whose shared weights are only gates or towers (ESMM, PPNet)
    has the last of them, and one without any the last shared parameter. Without one the weights stay 1.

    Args:
        tasks: the tasks. alpha: strength; 0 makes all norms equal. lr: learning rate of the weights.
        initial: L_t0, the task's first loss, or log 2, which is that of a probability of 1/2.
        layer: name of W, as in ``model.named_parameters()``.
    """

    first: Tensor

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        alpha: Annotated[float, Field(ge=0, description="strength of the pull towards equal training rates")] = 1.5,
        lr: Annotated[float, Field(gt=0, description="learning rate of the weights")] = 0.025,
        initial: Annotated[
            Literal["first", "log2"], Field(description="what losses are compared to: the first step's, or log 2")
        ] = "first",
        layer: Annotated[
            str | None, Field(description="parameter whose gradients are compared, ~ for the last shared weight")
        ] = None,
    ) -> None:
        super().__init__(tasks)
        self.alpha, self.lr, self.layer = alpha, lr, layer
        self.weights = nn.Parameter(torch.ones(len(tasks)))
        start = math.log(2) if initial == "log2" else math.nan  # NaN: no loss has been seen yet
        self.register_buffer("first", torch.full((len(tasks),), start))
        # Weights at the start of a step; after_step restores from them those of unobserved tasks. Derived, so not
        # saved.
        self.before = self.weights.detach().clone()

    def backward(self, step: Step) -> Tensor:
        self.before = self.weights.detach().clone()
        self.first.copy_(torch.where(self.first.isnan() & step.observed, step.values, self.first))
        # Copies without a graph: the total moves the model alone, _distance the weights alone (eq. 2).
        total = (self.before * step.losses).sum() + step.extra
        layer = self._layer(step.reach)
        step.run(total + self._distance(step, layer) if layer else total)
        return total.detach()

    def _layer(self, reach: Reach) -> Sequence[nn.Parameter]:
        if self.layer is not None:
            if self.layer not in reach.names:
                raise UsageError(
                    f"balancer.layer: the model has no trainable parameter {self.layer!r}; "
                    + nearest(self.layer, reach.names)
                )
            return [reach.names[self.layer]]
        shared = {id(parameter) for parameter in reach.shared}
        held = {id(table) for table in reach.tables}
        weights = {
            name: parameter
            for name, parameter in reach.names.items()
            if id(parameter) in shared - held and parameter.ndim > 1 and "bias" not in name
        }
        # Gates and towers say how a task reads the representation; W is a layer that makes it.
        inner = [weights[name] for name in weights if "gate" not in name and "tower" not in name]
        return inner[-1:] or [*weights.values()][-1:] or reach.shared[-1:]

    def _distance(self, step: Step, layer: Sequence[nn.Parameter]) -> Tensor:
        """``sum_t | N_t - target_t |`` over the observed tasks, as a function of the weights alone."""
        observed = step.observed
        count = observed.sum().clamp_min(1)
        # |d(w L)/dW| = w |dL/dW|, as w > 0. step.gradients gives numbers, so that no second-order gradient is needed.
        norms = self.weights * step.gradients(layer).gram().diagonal().sqrt().to(self.weights)
        rates = torch.where(observed, step.values / self.first.clamp_min(LEAST_LOSS), 0.0)
        # r_t: over the mean of the observed tasks' rates.
        rates = rates * count / rates.sum().clamp_min(LEAST_LOSS)
        target = torch.where(observed, norms, 0.0).sum() / count * rates**self.alpha
        return torch.where(observed, (norms - target.detach()).abs(), 0.0).sum()

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        # The sum stays T: the observed tasks share what the others do not hold.
        moved = torch.where(step.observed, self.weights.clamp_min(LEAST), 0.0)
        kept = torch.where(step.observed, 0.0, self.before)
        rest = len(moved) - kept.sum()
        self.weights.copy_(moved * (rest / moved.sum().clamp_min(LEAST)) + kept)
