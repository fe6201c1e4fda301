"""Equal weights: the plain sum of the losses."""

from __future__ import annotations

from torch import Tensor

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS

__all__ = ["Equal"]


@BALANCERS.register("equal", paper="baseline")
class Equal(LossBalancer):
    """Sum of the task losses.

    ``L = sum_t L_t + extra``. The weights that a data set's ``tasks:`` gives are not read; ``fixed`` reads them, and is
    the same where they are all 1.

    >>> import torch
    >>> from recbole_dtn.schema import TaskSpec
    >>> balancer = Equal([TaskSpec("a", "binary", "a", weight=2.0), TaskSpec("b", "binary", "b")])
    >>> losses = torch.tensor([0.5, 0.25], requires_grad=True)
    >>> balancer.backward(Step(losses, torch.tensor(0.125))).item()
    0.875
    >>> losses.grad
    tensor([1., 1.])
    """

    def backward(self, step: Step) -> Tensor:
        total = step.losses.sum() + step.extra
        step.run(total)
        return total.detach()
