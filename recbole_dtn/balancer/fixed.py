"""Fixed weights: the baseline of every balancer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["Fixed"]


@BALANCERS.register("fixed", paper="baseline")
class Fixed(LossBalancer):
    """Sum of the task losses, each times its task's weight.

    ``L = sum_t w_t L_t + extra``, with w_t the weight that the data set's ``tasks:`` gives task t (1 by default).

    >>> balancer = Fixed([TaskSpec("a", "binary", "a", weight=2.0), TaskSpec("b", "binary", "b")])
    >>> losses = torch.tensor([0.5, 0.25], requires_grad=True)
    >>> balancer.backward(Step(losses, torch.tensor(0.125))).item()
    1.375
    >>> losses.grad
    tensor([2., 1.])
    """

    reads_weights = True
    weights: Tensor

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks)
        # Not persistent: the weights are settings, and a checkpoint must not bring back those of another run.
        self.register_buffer("weights", torch.tensor([task.weight for task in tasks]), persistent=False)

    def backward(self, step: Step) -> Tensor:
        total = (self.weights.to(step.losses.dtype) * step.losses).sum() + step.extra
        step.run(total)
        return total.detach()
