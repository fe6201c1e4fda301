"""PCGrad against numpy, on whole gradients (algorithm 1)."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.pcgrad import PCGrad
from recbole_dtn.balancer.step import Step

Array = Any


def project(gradients: Array, orders: list[list[int]]) -> Array:
    """The sum of the projected gradients, (T, P) -> (P,)."""
    projected = gradients.copy()
    for task, order in enumerate(orders):
        for other in order:
            product = projected[task] @ gradients[other]
            if product < 0:
                projected[task] = projected[task] - product / (gradients[other] @ gradients[other]) * gradients[other]
    return projected.sum(0)


def drawn(seed: int, index: int, tasks: int) -> list[list[int]]:
    random = np.random.default_rng([seed, index])
    return [random.permutation([j for j in range(tasks) if j != t]).tolist() for t in range(tasks)]


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_combination_is_the_sum_of_projected_gradients(tasks: int, seed: int) -> None:
    gradients = np.random.default_rng(seed).standard_normal((tasks, 4))  # many conflicts in few dimensions
    gram = torch.from_numpy(gradients @ gradients.T)
    weights = PCGrad([]).solve(gram, Step(torch.zeros(tasks), seed=7, index=seed), range(tasks))
    wanted = project(gradients, drawn(7, seed, tasks))
    np.testing.assert_allclose(weights.numpy() @ gradients, wanted, atol=1e-12)
    if tasks == 2 and gradients[0] @ gradients[1] < 0:
        assert not np.allclose(weights.numpy(), 1)


def test_two_tasks_by_hand() -> None:
    """g_1 = (1, 0), g_2 = (-1, 1): g'_1 = (1, 0) + (-1, 1) / 2 = (.5, .5), g'_2 = (-1, 1) + (1, 0) = (0, 1)."""
    gram = torch.tensor([[1.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)
    weights = PCGrad([]).solve(gram, Step(torch.zeros(2)), (0, 1))
    gradient = weights @ torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    assert gradient.tolist() == [0.5, 1.5]


def test_the_order_matters_and_changes_from_step_to_step() -> None:
    gradients = np.random.default_rng(0).standard_normal((4, 3))
    gram = torch.from_numpy(gradients @ gradients.T)
    found = {tuple(PCGrad([]).solve(gram, Step(torch.zeros(4), index=i), range(4)).tolist()) for i in range(20)}
    assert len(found) > 1


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_steps(tasks: int, balanced: Any, whole_gradient: Any) -> None:
    run = balanced(tasks)
    conflicts = []
    if tasks > 1:  # conflicting gradients
        run.numpy["heads.1"] = 0.1 * run.numpy["heads.1"] - run.numpy["heads.0"]
        run.model.heads[1].data.copy_(torch.from_numpy(run.numpy["heads.1"]))

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        rows = np.stack([whole_gradient(each) for each in gradients])
        wanted = project(rows, drawn(3, index, tasks))
        weights = np.linalg.lstsq(rows.T, wanted, rcond=None)[0] if tasks > 1 else np.ones(1)
        conflicts.append(np.abs(weights - 1).max())
        return weights, np.ones(tasks)

    balancer = PCGrad(run.specs())
    for _ in range(5):
        run.check(balancer, reference)
    assert tasks == 1 or max(conflicts) > 0.1
