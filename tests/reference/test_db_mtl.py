"""DB-MTL against numpy: running means of the gradients of log losses, scaled to the longest."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_dtn.balancer.db_mtl import DBMTL
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.balancers import BalancerStep, Losses

Array = Any
NAMES = ("weight", "table.weight")


class DualBalance:
    """The means of each task over the steps; the table's gradient is taken as it is."""

    def __init__(self, beta: float, decay: float) -> None:
        self.beta, self.decay, self.steps = beta, decay, 0
        self.means: dict[int, Array] = {}

    def step(self, losses: Array, gradients: Array, observed: Any = None) -> dict[str, Array]:
        """The shared parameters' gradient."""
        self.steps += 1
        beta = self.beta / self.steps**self.decay
        seen = [t for t in range(len(losses)) if observed is None or observed[t]]
        for t in seen:
            of_log = gradients[t]["weight"] / (losses[t] + 1e-8)
            self.means[t] = beta * self.means.get(t, 0 * of_log) + (1 - beta) * of_log
        parts = {t: [self.means[t], gradients[t]["table.weight"] / (losses[t] + 1e-8)] for t in seen}
        norms = {t: np.sqrt(sum((part**2).sum() for part in parts[t])) for t in seen}
        longest = max(norms.values())
        return {name: sum(longest / norms[t] * parts[t][place] for t in seen) for place, name in enumerate(NAMES)}


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("options", [{}, {"beta": 0.5, "decay": 0.5}, {"beta": 0.0}])
@pytest.mark.parametrize("sparse", [True, False])
def test_gradients_over_steps(sparse: bool, options: dict[str, Any], tasks: int, balanced: Any) -> None:
    run = balanced(tasks, sparse=sparse)
    run.conflict()
    balancer = DBMTL(run.specs(), **options).double()
    wanted = DualBalance(options.get("beta", 0.9), options.get("decay", 0.0))
    found: list[dict[str, Array]] = []

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        shared = wanted.step(losses, gradients)
        for name in NAMES:
            grad = dict(run.model.named_parameters())[name].grad
            assert grad is not None
            assert grad.is_sparse == (sparse and name == "table.weight")
            np.testing.assert_allclose(grad.to_dense().numpy(), shared[name], rtol=1e-9, atol=1e-12)
        found.append(shared)
        # ``check`` compares weighted sums of this step's gradients: put one in each parameter's place.
        for name in NAMES:
            for task, each in enumerate(gradients):
                each[name] = shared[name] if task == 0 else np.zeros_like(shared[name])
        return np.ones(tasks), 1 / (losses + 1e-8)

    for _ in range(5):
        run.check(balancer, reference)
    assert balancer.steps.item() == 5
    # The mean of the weight differs from the gradient of the step.
    assert not np.allclose(found[0]["weight"], found[-1]["weight"], rtol=1e-2)


def specs(tasks: int) -> list[TaskSpec]:
    return [TaskSpec(f"t{i}", "binary", f"t{i}") for i in range(tasks)]


def test_one_task_moves_by_its_log_loss(balanced: Any) -> None:
    run = balanced(1)
    balancer = DBMTL(run.specs()).double()
    for _ in range(3):
        run.check(balancer, lambda index, losses, gradients: (1 / (losses + 1e-8),) * 2)


def test_all_scaled_gradients_are_as_long_as_the_longest() -> None:
    model = Losses(3).double()
    balancer = DBMTL(specs(3), beta=0.0).double()
    losses = model(torch.tensor([1, 2]))
    weight, table = model.weight, model.table.weight
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss.log(), [weight, table], retain_graph=True)])
        for loss in losses
    ]
    longest = max(row.norm() for row in rows)
    wanted = sum((longest / row.norm() * row for row in rows), torch.zeros(()))
    balancer.backward(BalancerStep(losses, reach=model.reach(), again=lambda: losses))
    found = torch.cat([p.grad.flatten() for p in (weight, table) if p.grad is not None])
    torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-7)


def step_of(model: Losses, observed: list[bool], factor: float = 1.0) -> BalancerStep:
    seen = torch.tensor(observed)
    losses = torch.where(seen, model(torch.tensor([1, 2])) * factor, 0.0)
    return BalancerStep(losses, reach=model.reach(), observed=seen, again=lambda: losses)


def test_an_unobserved_task_keeps_its_mean_and_adds_nothing() -> None:
    model, without = Losses(3), Losses(2)
    for name, value in without.named_parameters():
        value.data.copy_(model.get_parameter(name))
    balancer, two = DBMTL(specs(3)), DBMTL(specs(2))
    balancer.backward(step_of(model, [True] * 3))
    two.backward(step_of(without, [True] * 2))
    before = balancer.means.clone()
    for each, module, seen in ((balancer, model, [True, True, False]), (two, without, [True, True])):
        module.zero_grad()
        each.backward(step_of(module, seen))
    assert torch.equal(balancer.means[2], before[2])
    assert (balancer.means[:2] != before[:2]).any(1).all()
    assert model.weight.grad is not None
    assert without.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, without.weight.grad)


def test_a_step_that_is_not_finite_leaves_the_means() -> None:
    model = Losses(2)
    balancer = DBMTL(specs(2))
    balancer.backward(step_of(model, [True] * 2))
    before = balancer.means.clone()
    assert before.shape == (2, 12)
    balancer.backward(step_of(model, [True] * 2, float("inf")))
    assert torch.equal(balancer.means, before)
    assert balancer.steps == 1
    assert model.weight.grad is not None
    assert not model.weight.grad.isfinite().all()


def test_means_of_another_model_are_refused() -> None:
    balancer = DBMTL(specs(2))
    saved: dict[str, Tensor] = {"means": torch.ones(2, 5), "steps": torch.tensor(3)}
    balancer.load_state_dict(saved)
    assert balancer.means.tolist() == torch.ones(2, 5).tolist()
    with pytest.raises(ValueError, match="db_mtl: the saved means are of 5 shared values, the model has 12"):
        balancer.backward(step_of(Losses(2), [True] * 2))
