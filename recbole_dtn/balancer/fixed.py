"""Fixed weights: the baseline of every balancer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["Fixed"]


@BALANCERS.register("fixed", paper="baseline")
class Fixed(LossBalancer):
    """Sum of the task losses, each times its task's weight.

    ``L = sum_t w_t L_t / c_t + extra``, with w_t the weight that the data set's ``tasks:`` gives task t (1 by default).
    c_t is 1 (``scale=none``) or the loss of the best constant prediction (``scale=base_rate``): with a share r of
    positives the entropy ``-r log r - (1 - r) log(1 - r)``. The task's term is then a normalised entropy, near 1 at the
    start for rare and frequent tasks alike; without it the loss of a task with .6 % positives, .037, is a twentieth of
    that of an even one. It is for binary tasks of known rate; c is 1 for others.

    Args:
        tasks: the tasks. scale: c_t, ``none`` or ``base_rate``.

    >>> balancer = Fixed([TaskSpec("a", "binary", "a", weight=2.0), TaskSpec("b", "binary", "b")])
    >>> losses = torch.tensor([0.5, 0.25], requires_grad=True)
    >>> balancer.backward(Step(losses, torch.tensor(0.125))).item()
    1.375
    >>> losses.grad
    tensor([2., 1.])
    """

    reads_weights = True
    weights: Tensor

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        scale: Annotated[
            Literal["none", "base_rate"],
            Field(description="what each loss is divided by: 1, or the loss of predicting the base rate everywhere"),
        ] = "none",
    ) -> None:
        super().__init__(tasks)
        weights = [task.weight / (constant_loss(task) if scale == "base_rate" else 1.0) for task in tasks]
        # Not persistent: the weights are settings, and a checkpoint must not bring back those of another run.
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def backward(self, step: Step) -> Tensor:
        total = (self.weights.to(step.losses.dtype) * step.losses).sum() + step.extra
        step.run(total)
        return total.detach()


def constant_loss(task: TaskSpec) -> float:
    """The least mean loss of a constant prediction of a binary task, by its share of positives; 1 for other tasks.

    >>> round(constant_loss(TaskSpec("a", "binary", "a", rate=0.5)), 4)
    0.6931
    """
    if task.rate is None or not 0 < task.rate < 1:
        return 1.0
    positive, negative = task.pos_weight * task.rate, 1 - task.rate
    chance = positive / (positive + negative)
    return -positive * math.log(chance) - negative * math.log(1 - chance)
