"""GradNorm against numpy: weights, gradients and several steps."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.gradnorm import GradNorm
from recbole_dtn.errors import UsageError
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.balancers import BalancerStep, Losses

Array = Any


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize(
    ("options", "layer"),
    [
        ({}, "weight"),
        ({"alpha": 0.5, "initial": "log2"}, "weight"),
        ({"lr": 0.2, "layer": "table.weight"}, "table.weight"),
    ],
)
def test_weights_over_steps(options: dict[str, Any], layer: str, tasks: int, balanced: Any, numpy_adam: Any) -> None:
    run = balanced(tasks)
    balancer = GradNorm(run.specs(), **options).double()
    assert balancer.lr == options.get("lr", 0.025)
    own = torch.optim.Adam(balancer.parameters(), lr=balancer.lr)
    adam, weights = numpy_adam(balancer.lr), np.ones(tasks)
    first: list[Array] = []

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        nonlocal weights
        first.append(losses)
        start = np.full(tasks, math.log(2)) if options.get("initial") == "log2" else first[0]
        norms = np.array([np.linalg.norm(each[layer]) for each in gradients])
        weighted = weights * norms
        ratios = losses / start
        rates = ratios / ratios.mean()
        target = weighted.mean() * rates ** options.get("alpha", 1.5)
        used = weights
        moved = adam.step(weights, np.sign(weighted - target) * norms).clip(1e-3)
        weights = tasks * moved / moved.sum()
        return used, used

    for _ in range(6):
        run.check(balancer, reference, own)
        np.testing.assert_allclose(balancer.weights.detach().numpy(), weights, rtol=1e-9)
        assert weights.sum() == pytest.approx(tasks)
    assert np.abs(weights - 1).max() > 0.02


def test_an_unobserved_task_keeps_its_weight_and_the_others_their_sum() -> None:
    model = Losses(3)
    balancer = GradNorm(_specs(3), lr=0.3)
    own = torch.optim.Adam(balancer.parameters(), lr=0.3)
    rows = torch.tensor([1, 2])
    for observed in ([True] * 3, [True, True, False], [True, True, False]):
        before = balancer.weights.detach().clone()
        seen = torch.tensor(observed)
        losses = torch.where(seen, model(rows), 0.0)
        own.zero_grad()
        step = BalancerStep(losses, reach=model.reach(), observed=seen, again=lambda: model(rows))
        balancer.backward(step)
        own.step()
        balancer.after_step(step)
    assert balancer.weights[2] == before[2]
    assert balancer.weights.sum().item() == pytest.approx(3)
    assert (balancer.weights[:2] != before[:2]).all()


def test_a_weight_never_becomes_negative() -> None:
    model = Losses(2)
    balancer = GradNorm(_specs(2), lr=5.0)
    own = torch.optim.Adam(balancer.parameters(), lr=5.0)
    for index in range(10):
        own.zero_grad()
        losses = model(torch.tensor([index % 7]))
        step = BalancerStep(losses, reach=model.reach(), again=lambda: model(torch.tensor([0])), index=index)
        balancer.backward(step)
        own.step()
        balancer.after_step(step)
        assert (balancer.weights > 0).all()
        assert balancer.weights.sum().item() == pytest.approx(2)


def test_a_layer_that_is_not_there() -> None:
    model = Losses(2)
    balancer = GradNorm(_specs(2), layer="wieght")
    with pytest.raises(UsageError, match=r"balancer\.layer: the model has no trainable parameter 'wieght'.*'weight'"):
        balancer.backward(BalancerStep(model(torch.tensor([1])), reach=model.reach(), again=lambda: model.weight))


def _specs(tasks: int) -> list[TaskSpec]:
    return [TaskSpec(f"t{number}", "binary", f"t{number}") for number in range(tasks)]
