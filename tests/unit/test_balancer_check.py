"""``check_balancer`` finds what is wrong with a balancer, and says so."""

import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from recbole_dtn.balancer.base import GradientBalancer, LossBalancer
from recbole_dtn.balancer.fixed import Fixed
from recbole_dtn.balancer.step import Step
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing import check_balancer


class Reweighted(LossBalancer):
    def backward(self, step: Step) -> Tensor:
        total = (step.losses.sum() + step.extra) / 2
        step.run(total)
        return total.detach()


class WithGraph(LossBalancer):
    def backward(self, step: Step) -> Tensor:
        total = step.losses.sum() + step.extra
        step.run(total, retain_graph=True)
        return total


class Unseeded(GradientBalancer):
    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        return torch.rand(len(gram), dtype=gram.dtype)


class CountsUnobserved(LossBalancer):
    def backward(self, step: Step) -> Tensor:
        total = step.losses.mean() + step.extra
        step.run(total)
        return total.detach()


class DividesByNorms(GradientBalancer):
    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        return 1 / gram.diagonal().sqrt()


class Forgets(LossBalancer):
    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks)
        self.steps = 0

    def backward(self, step: Step) -> Tensor:
        self.steps += 1
        total = step.losses.sum() * self.steps + step.extra
        step.run(total)
        return total.detach()


class NeverTrained(LossBalancer):
    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks)
        self.spread = nn.Parameter(torch.zeros(len(tasks)))

    def backward(self, step: Step) -> Tensor:
        total = (torch.exp(-self.spread.detach()) * step.losses).sum() + step.extra
        step.run(total)
        return total.detach()


class Unscaled(LossBalancer):
    def backward(self, step: Step) -> Tensor:
        total = step.losses.sum() + step.extra
        total.backward()
        return total.detach()


class MakesDense(LossBalancer):
    def backward(self, step: Step) -> Tensor:
        total = step.losses.sum() + step.extra
        step.run(total)
        for parameter in step.shared:
            assert parameter.grad is not None
            parameter.grad = parameter.grad.to_dense()
        return total.detach()


class MovesOthers(LossBalancer):
    def backward(self, step: Step) -> Tensor:
        total = step.losses.sum() + step.extra
        step.run(total)
        for own in step.specific:
            own[0].grad = torch.ones_like(own[0]) * step.scale
        return total.detach()


class LosesItself(LossBalancer):
    """The mean over no task is NaN."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks)
        self.logits = nn.Parameter(torch.zeros(len(tasks)))

    def backward(self, step: Step) -> Tensor:
        total = step.losses.sum() + step.extra
        step.run(total + (self.logits * step.values).sum() / step.observed.sum())
        return total.detach()


class Positional(Fixed):
    def __init__(self, tasks: Sequence[TaskSpec], strength: float = 1.0) -> None:
        super().__init__(tasks)


class WithoutDefault(Fixed):
    def __init__(self, tasks: Sequence[TaskSpec], *, strength: float) -> None:
        super().__init__(tasks)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Reweighted, "extra is re-weighted: gradient 1, not 2"),
        (WithGraph, "backward returns a scalar without a graph: total.detach()"),
        (Unseeded, "two runs of the same steps differ: draw random numbers from step.random()"),
        (CountsUnobserved, "a task without an observed row changes the gradient of"),
        (DividesByNorms, "zero gradients of the tasks: that of"),
        (Forgets, "a saved and loaded balancer gives another gradient of"),
        (NeverTrained, "the balancer's own parameter 'spread' never moves"),
        (Unscaled, "extra is re-weighted|the gradient under a scaler of"),
        (MakesDense, "the table's gradient must be sparse"),
        (MovesOthers, "task 0: its own parameters (follow others|do not go down its own loss)"),
        (LosesItself, "the balancer's own 'logits' is not finite after a step in which nothing is observed"),
        (Positional, "option 'strength' must be keyword-only (after a *)"),
        (WithoutDefault, "option 'strength' needs a default"),
    ],
)
def test_a_fault_is_found(cls: type[LossBalancer], message: str) -> None:
    pattern = message if "|" in message else re.escape(message)
    with pytest.raises(AssertionError, match=pattern):
        check_balancer(cls)
