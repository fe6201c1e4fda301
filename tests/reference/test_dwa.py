"""Dynamic weight average against numpy: softmax of the ratios of two epochs' mean losses."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.dwa import DWA

Array = Any
MEANS = np.array([[0.8, 0.5, 3.0], [0.4, 0.45, 6.0], [0.3, 0.6, 1.0]])


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_weights_over_epochs(temperature: float, tasks: int, balanced: Any) -> None:
    run = balanced(tasks)
    balancer = DWA(run.specs(), temperature=temperature).double()
    means = MEANS[:, :tasks]
    for epoch in range(4):
        balancer.epoch_start(epoch, torch.from_numpy(means[epoch - 1]) if epoch else None)
        weights = np.ones(tasks)
        if epoch > 1:
            powers = np.array([math.exp(means[epoch - 1, t] / means[epoch - 2, t] / temperature) for t in range(tasks)])
            weights = tasks * powers / powers.sum()
            assert tasks == 1 or np.abs(weights - 1).max() > 0.05
        for _ in range(2):
            run.check(balancer, lambda *_, weights=weights: (weights, weights))


def test_an_epoch_without_a_row_of_a_task() -> None:
    """Task 2 has its two means before; task 3 has only one, so that its weight is 1."""
    nan = math.nan
    balancer = DWA([], temperature=1.0)
    balancer.last, balancer.before = torch.full((4,), nan), torch.full((4,), nan)
    for epoch, means in enumerate([[2.0, 2.0, 2.0, nan], [1.0, 3.0, 4.0, nan], [0.5, 3.0, nan, 5.0]]):
        balancer.epoch_start(epoch + 1, torch.tensor(means))
    powers = np.exp([0.5, 1.0, 2.0])
    assert balancer.weights().tolist() == pytest.approx([*(3 * powers / powers.sum()), 1.0])


def test_a_loss_of_zero_is_no_division_by_zero() -> None:
    balancer = DWA([])
    balancer.last, balancer.before = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0])
    assert balancer.weights().tolist() == pytest.approx([0.0, 2.0])
