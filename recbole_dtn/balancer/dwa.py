"""Dynamic weight average: weights from how fast each loss fell in the last epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["DWA"]

LEAST_LOSS = 1e-8
"""The smallest mean loss that another one is divided by."""


@BALANCERS.register("dwa", paper="Liu et al., CVPR 2019")
class DWA(LossBalancer):
    """Loss weights from the ratio of the last two epochs' mean losses.

    In epoch e the loss is ``sum_t w_t L_t + extra`` with::

        w_t = K exp(r_t / tau) / sum_s exp(r_s / tau)      r_t = mean L_t of epoch e-1 / mean L_t of epoch e-2

    with tau the `temperature`, over the K tasks of which two epochs' means are known. The weight of another task is 1,
    and so are all in the first two epochs. A task's mean is over the steps in which it has an observed row, and an
    epoch without one is passed over. The weights do not change within an epoch: a task without an observed row in a
    batch adds nothing there.

    Args:
        tasks: the tasks. temperature: tau; the larger, the nearer the weights are to 1.
    """

    last: Tensor
    before: Tensor

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        temperature: Annotated[
            float, Field(gt=0, description="what the ratios of losses are divided by; a larger one evens the weights")
        ] = 2.0,
    ) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        # Mean losses of the last epoch and of the one before; NaN: not known yet.
        self.register_buffer("last", torch.full((len(tasks),), torch.nan))
        self.register_buffer("before", torch.full((len(tasks),), torch.nan))

    def weights(self) -> Tensor:
        """(T,): the weights of this epoch."""
        ratios = self.last / self.before.clamp_min(LEAST_LOSS) / self.temperature
        known = ratios.isfinite()
        shares = torch.softmax(ratios.masked_fill(~known, -torch.inf), 0)  # NaN where no task is known
        return torch.where(known, known.sum() * shares, 1.0)

    def epoch_start(self, epoch: int, mean_losses: Tensor | None) -> None:
        if mean_losses is None:
            return
        found = mean_losses.to(self.last)
        # A task that the epoch has not observed keeps its two means.
        seen = found.isfinite()
        self.before.copy_(torch.where(seen, self.last, self.before))
        self.last.copy_(torch.where(seen, found, self.last))

    def backward(self, step: Step) -> Tensor:
        total = (self.weights().to(step.losses.dtype) * step.losses).sum() + step.extra
        step.run(total)
        return total.detach()
