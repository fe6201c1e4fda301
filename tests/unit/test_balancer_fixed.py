"""The fixed balancer: hand-worked totals and gradients."""

from dataclasses import replace

import numpy as np
import pytest
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


@pytest.mark.parametrize("pos_weight", [1.0, 3.0])
def test_losses_in_units_of_the_best_constant(pos_weight: float) -> None:
    """The constant is searched on a grid of logits here."""
    rare = replace(TASKS[0], rate=0.01, pos_weight=pos_weight)
    z = np.linspace(-10, 10, 200_001)
    least = np.min(pos_weight * 0.01 * np.logaddexp(0, -z) + 0.99 * np.logaddexp(0, z))
    losses = torch.tensor([least, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    balancer = Fixed((rare, replace(TASKS[1], rate=0.5), TASKS[2]), scale="base_rate")
    total = balancer.backward(Step(losses))
    assert losses.grad is not None
    assert losses.grad[0].item() == pytest.approx(0.5 / least, rel=1e-6)
    assert total.item() == pytest.approx(0.5 + 2 / np.log(2) + 1, rel=1e-6)
