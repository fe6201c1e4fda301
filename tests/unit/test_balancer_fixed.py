"""The fixed balancer: hand-worked totals and gradients."""

import torch

from recbole_dtn.balancer.fixed import Fixed
from recbole_dtn.balancer.step import Step
from recbole_dtn.schema import TaskSpec

TASKS = (
    TaskSpec("a", "binary", "a", weight=0.5),
    TaskSpec("b", "binary", "b", weight=2.0),
    TaskSpec("c", "binary", "c"),
)


def test_total_and_gradient() -> None:
    shared, own = torch.nn.Parameter(torch.tensor([2.0, 3.0])), torch.nn.Parameter(torch.tensor(5.0))
    losses = torch.stack([shared.sum(), shared.prod(), own * shared[0]])  # 5, 6, 10
    total = Fixed(TASKS).backward(Step(losses, own.square()))
    assert total.item() == 0.5 * 5 + 2 * 6 + 10 + 25
    assert shared.grad is not None
    assert shared.grad.tolist() == [0.5 + 2 * 3 + 5, 0.5 + 2 * 2]
    assert own.grad is not None
    assert own.grad.item() == 2 + 2 * 5
    assert not total.requires_grad


def test_the_weights_are_not_saved() -> None:
    assert Fixed(TASKS).state_dict() == {}
