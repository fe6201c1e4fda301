"""IMTL against numpy: learned scales of losses, and gradients of equal projections by the paper's formula."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.imtl import IMTL, equal_projections
from recbole_dtn.balancer.step import Step
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.balancers import BalancerStep, Losses

Array = Any


def impartial(gradients: Array) -> Array:
    """a_{2..T} = g_1 U^T (D U^T)^-1 with D = g_1 - g_t, U = u_1 - u_t; a_1 = 1 - the others."""
    if len(gradients) == 1:
        return np.ones(1)
    units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    differences, of_units = gradients[0] - gradients[1:], units[0] - units[1:]
    rest = gradients[0] @ of_units.T @ np.linalg.inv(differences @ of_units.T)
    return np.concatenate([[1 - rest.sum()], rest])


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_weights_and_equal_projections(tasks: int) -> None:
    negative = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        gradients = random.standard_normal((tasks, 7)) * 10.0 ** random.uniform(-2, 2, (tasks, 1)) + 0.2
        found = equal_projections(torch.from_numpy(gradients @ gradients.T))
        assert found is not None
        np.testing.assert_allclose(found.numpy(), impartial(gradients), rtol=1e-6, atol=1e-9)
        projections = gradients @ (found.numpy() @ gradients) / np.linalg.norm(gradients, axis=1)
        np.testing.assert_allclose(projections, projections[0], rtol=1e-7)
        assert found.sum().item() == pytest.approx(1)
        negative += int(found.min() < 0)
    assert tasks < 3 or negative > 0


def test_two_tasks_by_hand() -> None:
    """|g_1| = 1, |g_2| = 3: weights 3/4 and 1/4, whatever the angle."""
    for product in (-3.0, -1.0, 0.0, 3.0):
        found = equal_projections(torch.tensor([[1.0, product], [product, 9.0]], dtype=torch.float64))
        assert found is not None
        assert found.tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(
    "gradients",
    [
        [[1.0, 2.0], [0.0, 0.0]],  # a gradient of 0
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        [[1.0, 2.0], [2.0, 4.0], [0.0, 1.0]],  # two of one direction
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],  # three in a plane
    ],
)
def test_without_a_solution_the_weights_are_equal_and_counted(gradients: list[list[float]]) -> None:
    rows = torch.tensor(gradients, dtype=torch.float64)
    balancer = IMTL([], form="g")
    with pytest.warns(UserWarning, match="imtl: no unique weights in step 7"):
        found = balancer.solve(rows @ rows.t(), Step(torch.zeros(len(rows)), index=7), range(len(rows)))
    assert found.tolist() == pytest.approx([1 / len(rows)] * len(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one warning is enough
        balancer.solve(rows @ rows.t(), Step(torch.zeros(len(rows))), range(len(rows)))
    assert balancer.equal_steps.item() == 2
    assert balancer.state_dict()["equal_steps"] == 2


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("form", ["l", "g", "both"])
def test_weights_and_scales_over_steps(
    form: Any, tasks: int, balanced: Any, numpy_adam: Any, whole_gradient: Any
) -> None:
    run = balanced(tasks)
    run.conflict()
    balancer = IMTL(run.specs(), form=form, lr=0.05).double()
    own = torch.optim.Adam(balancer.parameters(), lr=0.05) if form != "g" else None
    adam, log_scales, seen = numpy_adam(0.05), np.zeros(tasks), []

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        nonlocal log_scales
        scales = np.exp(log_scales)
        if form != "g":
            log_scales = adam.step(log_scales, scales * losses - 1)
        if form == "l":
            return scales, scales
        rows = np.stack([whole_gradient(each) for each in gradients]) * scales[:, None]
        seen.append(impartial(rows) if tasks > 1 else np.ones(1))
        return seen[-1] * scales, scales

    for _ in range(4):
        run.check(balancer, reference, own)
        if form != "g":
            assert balancer.log_scales is not None
            np.testing.assert_allclose(balancer.log_scales.detach().numpy(), log_scales, rtol=1e-9)
    assert form == "g" or np.abs(log_scales).min() > 0.05
    assert form == "l" or tasks == 1 or np.ptp(seen[0]) > 0.01


@pytest.mark.parametrize("form", ["l", "both"])
@pytest.mark.parametrize("scale", [1.0, 256.0])
def test_the_scalar_is_minimal_where_each_scaled_loss_is_one(form: Any, scale: float) -> None:
    model = Losses(2)
    losses = model(torch.tensor([1, 2]))
    balancer = IMTL([TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b")], form=form)
    assert balancer.log_scales is not None
    with torch.no_grad():
        balancer.log_scales.copy_(-losses.log())
    step = BalancerStep(losses, reach=model.reach(), again=lambda: losses, scale=scale)
    total = balancer.backward(step)
    assert total.item() == pytest.approx(2 + losses.log().sum().item())
    assert balancer.log_scales.grad is not None
    assert balancer.log_scales.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-5 * scale)


@pytest.mark.parametrize("form", ["l", "both"])
def test_scales_are_kept_within_their_limit_and_not_moved_without_a_row(form: Any) -> None:
    model = Losses(3)
    balancer = IMTL([TaskSpec(n, "binary", n) for n in "abc"], form=form, limit=0.25)
    assert balancer.log_scales is not None
    own = torch.optim.Adam(balancer.parameters(), lr=0.2)
    observed = torch.tensor([True, True, False])
    for _ in range(3):
        balancer.zero_grad()
        losses = model(torch.tensor([1])) * torch.tensor([1e-6, 1e6, 0.0])
        step = BalancerStep(losses, reach=model.reach(), again=lambda: losses.detach(), observed=observed)  # noqa: B023
        balancer.backward(step)
        own.step()
        balancer.after_step(step)
    assert balancer.log_scales.tolist() == pytest.approx([0.25, -0.25, 0.0])
