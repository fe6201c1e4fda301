"""Random loss weighting: the softmax of normal numbers that seed and step decide."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.rlw import RLW
from recbole_dtn.balancer.step import Step

Array = Any


def drawn(seed: int, index: int, tasks: int) -> Array:
    powers = np.exp(np.random.default_rng([seed, index]).standard_normal(tasks))
    return powers / powers.sum()


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_weights_over_steps(tasks: int, balanced: Any) -> None:
    run = balanced(tasks)
    balancer = RLW(run.specs())
    for _ in range(4):
        run.check(balancer, lambda index, *_: (drawn(3, index, tasks), drawn(3, index, tasks)))


def test_the_mean_of_the_weights_is_equal_and_each_is_drawn_anew() -> None:
    weights = []
    for index in range(300):
        losses = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
        RLW([]).backward(Step(losses, observed=torch.tensor([True, True, False]), index=index))
        assert losses.grad is not None
        weights.append(losses.grad.numpy())
    found = np.stack(weights)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found[:, 2] == 0).all()  # not observed
    # Of a logistic function of N(0, 2): mean 1/2, standard deviation 0.26.
    assert found[:, 0].mean() == pytest.approx(0.5, abs=0.04)
    assert found[:, 0].std() == pytest.approx(0.26, abs=0.04)
