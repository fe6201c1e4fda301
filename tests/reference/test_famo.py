"""FAMO against numpy: weights, gradients, and logits that follow the losses after the step."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.famo import FAMO
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.balancers import BalancerStep, Losses

Array = Any


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"lr": 0.3, "decay": 0.1}])
def test_weights_and_logits_over_steps(options: dict[str, Any], tasks: int, balanced: Any, numpy_adam: Any) -> None:
    run = balanced(tasks)
    balancer = FAMO(run.specs(), **options).double()
    lr, decay = options.get("lr", 0.025), options.get("decay", 1e-3)
    assert balancer.lr == lr
    own = torch.optim.Adam(balancer.parameters(), lr=lr)
    adam, logits = numpy_adam(lr), np.zeros(tasks)

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        # The gradient of sum_t z_t log(L_t + 1e-8), times c = 1 / sum_t z_t / (L_t + 1e-8).
        parts = softmax(logits) / (losses + 1e-8)
        return parts / parts.sum(), parts / parts.sum()

    for index in range(6):
        old = run.losses(index)
        run.check(balancer, reference, own)
        gained = np.log(old + 1e-8) - np.log(run.losses(index) + 1e-8)
        shares = softmax(logits)
        jacobian = np.diag(shares) - np.outer(shares, shares)
        logits = adam.step(logits, jacobian.T @ gained + decay * logits)
        np.testing.assert_allclose(balancer.logits.detach().numpy(), logits, atol=1e-9)
    assert tasks == 1 or np.abs(logits).max() > 0.02


def test_the_weights_descend_the_log_of_the_losses() -> None:
    """c times the gradient of sum_t z_t log D_t, by autograd."""
    losses = torch.tensor([0.2, 3.0, 0.9], dtype=torch.float64, requires_grad=True)
    balancer = FAMO([TaskSpec(name, "binary", name) for name in "abc"]).double()
    with torch.no_grad():
        balancer.logits.copy_(torch.tensor([0.5, -1.0, 0.25]))
    balancer.backward(BalancerStep(losses, again=lambda: losses))
    shares = torch.softmax(balancer.logits.detach(), 0)
    (wanted,) = torch.autograd.grad((shares * (losses + 1e-8).log()).sum(), losses)
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, wanted / wanted.sum(), atol=1e-12, rtol=0)


def test_weights_are_those_of_the_losses_over_all_processes() -> None:
    losses = torch.tensor([0.2, 3.0], requires_grad=True)
    step = BalancerStep(losses, again=lambda: losses)
    step.values = torch.tensor([0.5, 1.0])
    FAMO([TaskSpec(name, "binary", name) for name in "ab"]).backward(step)
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([2 / 3, 1 / 3])


def make(tasks: int, lr: float) -> tuple[Losses, FAMO, torch.optim.Optimizer]:
    balancer = FAMO([TaskSpec(f"t{i}", "binary", f"t{i}") for i in range(tasks)], lr=lr)
    return Losses(tasks), balancer, torch.optim.Adam(balancer.parameters(), lr=lr)


def test_a_task_that_gains_more_loses_weight() -> None:
    _, balancer, own = make(2, 0.1)
    losses = torch.tensor([1.0, 1.0], requires_grad=True)
    step = BalancerStep(losses, again=lambda: torch.tensor([0.5, 0.9]), own=own)
    balancer.backward(step)
    balancer.after_step(step)
    # Adam's first step is lr against the sign of the gradient.
    assert balancer.logits.tolist() == pytest.approx([-0.1, 0.1], abs=1e-4)


def test_an_unobserved_task_keeps_its_logit_and_has_no_weight() -> None:
    model, balancer, own = make(3, 0.3)
    rows = torch.tensor([1, 2])
    for observed in ([True] * 3, [True, False, True], [True, False, True]):
        seen = torch.tensor(observed)
        before = balancer.logits.detach().clone()
        losses = torch.where(seen, model(rows), 0.0)
        step = BalancerStep(
            losses, reach=model.reach(), observed=seen, again=lambda: model(rows).detach() * 0.5, own=own
        )
        model.zero_grad()
        balancer.zero_grad()
        balancer.backward(step)
        with torch.no_grad():
            model.heads[0].sub_(0.1)
        balancer.after_step(step)
        moved = balancer.logits.detach() != before
        assert moved[seen].all()
        assert not moved[~seen].any()
    head = model.heads[1].grad
    assert head is not None
    assert (head == 0).all()


def test_losses_that_are_not_finite_move_nothing() -> None:
    _, balancer, own = make(2, 0.1)
    losses = torch.tensor([1.0, 1.0], requires_grad=True)
    step = BalancerStep(losses, again=lambda: torch.tensor([torch.nan, 0.9]), own=own)
    balancer.backward(step)
    balancer.after_step(step)
    assert balancer.logits.tolist() == [0.0, 0.0]
    assert balancer.logits.grad is None
