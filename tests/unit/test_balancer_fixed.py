"""The fixed balancer: hand-worked totals and gradients. The contract of every registered balancer."""

import pytest
import torch

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.fixed import Fixed
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

TASKS = (
    TaskSpec("a", "binary", "a", weight=0.5),
    TaskSpec("b", "binary", "b", weight=2.0),
    TaskSpec("c", "binary", "c"),
)


def test_total_and_gradient() -> None:
    shared, own = torch.nn.Parameter(torch.tensor([2.0, 3.0])), torch.nn.Parameter(torch.tensor(5.0))
    losses = torch.stack([shared.sum(), shared.prod(), own * shared[0]])  # 5, 6, 10
    total = Fixed(TASKS).backward(losses, own.square(), [shared], torch.Tensor.backward)
    assert total.item() == 0.5 * 5 + 2 * 6 + 10 + 25
    assert shared.grad is not None
    assert shared.grad.tolist() == [0.5 + 2 * 3 + 5, 0.5 + 2 * 2]
    assert own.grad is not None
    assert own.grad.item() == 2 + 2 * 5
    assert not total.requires_grad


def test_the_weights_are_not_saved() -> None:
    assert Fixed(TASKS).state_dict() == {}


@pytest.mark.parametrize("name", BALANCERS.names())
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]])
def test_every_balancer_reaches_shared_own_and_extra(name: str, tasks: tuple[TaskSpec, ...]) -> None:
    balancer = BALANCERS.load(name)(tasks)
    assert isinstance(balancer, LossBalancer)
    calls = []

    def run(loss: torch.Tensor) -> None:
        assert loss.shape == ()
        calls.append(loss)
        loss.backward(retain_graph=True)

    torch.manual_seed(0)
    shared, heads = torch.nn.Parameter(torch.randn(4)), torch.nn.Parameter(torch.randn(len(tasks), 4))
    penalised = torch.nn.Parameter(torch.ones(()))
    for _ in range(2):  # some methods need what the first step remembers
        losses = torch.nn.functional.softplus(heads @ shared)
        total = balancer.backward(losses, penalised.square(), [shared], run)
    assert calls
    assert total.shape == ()
    assert torch.isfinite(total)
    assert penalised.grad is not None
    assert penalised.grad.item() == 4.0  # extra is never re-weighted: 2 * 1 at each of two steps
    for parameter in (shared, heads):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).all()
