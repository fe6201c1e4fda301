"""FAMO: weights that even out how fast the losses fall, learned without gradients of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["FAMO"]

LEAST_LOSS = 1e-8
"""Added to a loss in logarithms and quotients."""


@BALANCERS.register("famo", paper="Liu et al., NeurIPS 2023")
class FAMO(LossBalancer):
    """Loss weights learned from what a step does to the losses of its own batch.

    With ``z = softmax(s)`` over the observed tasks and ``D_t = L_t + 1e-8`` (the least loss is taken as 0), a step
    descends ``c sum_t z_t log D_t + extra``, c a number::

        sum_t c z_t / D_t g_t      c = 1 / sum_t (z_t / D_t)

    After the optimiser's step, delta_t = log D_t - log D'_t with D' of the same batch anew, and s takes a step of Adam
    along ``J^T delta + decay s``, J the Jacobian of the softmax: a task that gained more than the others loses weight.
    The logits of an unobserved task stay as they are. The weights of the losses sum to 1, those of ``equal`` to T: tune
    the learning rate for each. Costs a second forward pass; with dropout it draws other units.

    Args:
        tasks: the tasks. lr: learning rate of s. decay: pull of s towards 0, added to its gradient.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        lr: Annotated[float, Field(gt=0, description="learning rate of the logits s")] = 0.025,
        decay: Annotated[
            float, Field(ge=0, description="weight decay of the logits s, as part of the gradient")
        ] = 1e-3,
    ) -> None:
        super().__init__(tasks)
        self.lr, self.decay = lr, decay
        self.logits = nn.Parameter(torch.zeros(len(tasks)))

    def shares(self, observed: Tensor) -> Tensor:
        """z, (T,): the softmax over the observed tasks, 0 for the others."""
        logits = self.logits.detach().masked_fill(~observed, -torch.inf)
        return torch.where(observed, torch.softmax(logits, 0), 0.0)

    def backward(self, step: Step) -> Tensor:
        quotients = self.shares(step.observed) / (step.values + LEAST_LOSS)
        weights = quotients / quotients.sum().clamp_min(torch.finfo(quotients.dtype).tiny)
        total = (weights.to(step.losses.dtype) * step.losses).sum() + step.extra
        step.run(total)
        return total.detach()

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        observed = step.observed
        gained = (step.values + LEAST_LOSS).log() - (step.losses_again() + LEAST_LOSS).log()
        gained = torch.where(observed, gained, 0.0)
        if not (observed.any() and gained.isfinite().all()):
            return
        shares = self.shares(observed)
        before = self.logits.clone()
        # J^T delta = z * (delta - <z, delta>).
        gradient = shares * (gained - (shares * gained).sum()).to(shares) + self.decay * before
        self.logits.grad = torch.where(observed, gradient, 0.0)
        step.update()
        # Adam's momentum would move the others too.
        self.logits.copy_(torch.where(observed, self.logits, before))
