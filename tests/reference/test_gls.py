"""The geometric mean of the losses against numpy."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.gls import GLS
from recbole_dtn.balancer.step import Step

Array = Any


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_gradients(tasks: int, balanced: Any) -> None:
    """(prod L)^(1/T) / T sum_t g_t / L_t."""
    run = balanced(tasks)

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        weights = np.prod(losses) ** (1 / tasks) / tasks / losses
        return weights, weights

    balancer = GLS(run.specs())
    for _ in range(4):
        run.check(balancer, reference)


def test_the_gradient_is_that_of_the_geometric_mean() -> None:
    losses = torch.tensor([0.3, 5.0, 1.7, 0.0], dtype=torch.float64, requires_grad=True)
    observed = torch.tensor([True, True, True, False])
    total = GLS([]).backward(Step(losses, torch.tensor(0.25), observed=observed))
    assert total.item() == pytest.approx((0.3 * 5.0 * 1.7) ** (1 / 3) + 0.25)
    (wanted,) = torch.autograd.grad(losses[:3].prod() ** (1 / 3), losses)
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, wanted, atol=1e-12, rtol=0)


def test_weights_are_those_of_the_losses_over_all_processes() -> None:
    losses = torch.tensor([0.3, 5.0], requires_grad=True)
    step = Step(losses)
    step.values = torch.tensor([0.4, 4.9])  # means over the processes
    assert GLS([]).backward(step).item() == pytest.approx(1.4)
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([1.4 / 2 / 0.4, 1.4 / 2 / 4.9])


def test_small_and_many_losses_do_not_underflow() -> None:
    losses = torch.full((40,), 1e-6, requires_grad=True)  # their product is 1e-240
    assert GLS([]).backward(Step(losses)).item() == pytest.approx(1e-6, rel=1e-4)
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([1 / 40] * 40, rel=1e-4)
    zero = torch.tensor([0.0, 1.0], requires_grad=True)
    assert GLS([]).backward(Step(zero)).item() == pytest.approx(1e-4)  # sqrt(1e-8)
    assert zero.grad is not None
    assert zero.grad.isfinite().all()
