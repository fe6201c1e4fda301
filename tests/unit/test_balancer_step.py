"""Per-task gradients of a step, their inner products, and what ``apply`` leaves in ``.grad``."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.gradients import stack_gradients
from recbole_dtn.balancer.reach import Reach
from recbole_dtn.balancer.step import Step
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.balancers import BalancerStep, Losses

ROWS = torch.tensor([3, 1, 1, 6])


def step_of(model: Losses, extra: Tensor | None = None) -> Step:
    return Step(model(ROWS), extra, reach=model.reach())


def flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.to_dense().flatten() for gradient in gradients]).double()


@pytest.mark.parametrize("sparse", [False, True])
def test_gram_and_combination_are_those_of_the_whole_gradients(sparse: bool) -> None:
    model = Losses(3, sparse=sparse)
    losses = model(ROWS)
    parameters = [*model.reach().shared]  # the weight, the table
    rows = torch.stack([flat(torch.autograd.grad(loss, parameters, retain_graph=True)) for loss in losses])
    found = step_of(model).gradients()
    torch.testing.assert_close(found.gram(), rows @ rows.t(), atol=1e-12, rtol=1e-6)
    weights = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    combined = found.combine(weights)
    assert [part.is_sparse for part in combined] == [False, sparse]
    torch.testing.assert_close(flat(combined), weights @ rows, atol=1e-6, rtol=1e-6)
    if sparse:
        assert found.rows[1] is not None
        assert found.rows[1].tolist() == [1, 3, 6]
    assert model.weight.grad is None


def test_tables_where_tasks_look_up_different_rows() -> None:
    """Task 0 looks up rows 4 and 1, task 1 rows 1, 1 and 2, task 2 none."""
    table = nn.Parameter(torch.zeros(5, 2))

    def gradient(rows: list[int], values: list[list[float]]) -> Tensor:
        return torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), (5, 2), check_invariants=False)

    first = gradient([4, 1], [[1.0, 2.0], [3.0, 4.0]])
    second = gradient([1, 1, 2], [[5.0, 6.0], [7.0, 8.0], [9.0, 1.0]])
    found = stack_gradients([table], [[first], [second], [None]])
    assert found.rows[0] is not None
    assert found.rows[0].tolist() == [1, 2, 4]
    wanted = [[[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]], [[12.0, 14.0], [9.0, 1.0], [0.0, 0.0]], [[0.0, 0.0]] * 3]
    assert found.values[0].tolist() == wanted
    assert found.gram().tolist() == [[30.0, 92.0, 0.0], [92.0, 422.0, 0.0], [0.0, 0.0, 0.0]]
    mixed = stack_gradients([table], [[first], [second.to_dense()], [None]])
    assert mixed.rows == (None,)
    assert torch.equal(mixed.gram(), found.gram())


def test_no_shared_parameter_has_a_gram_of_zeros() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    step = Step(weight[:1].square(), reach=Reach.of({"weight": weight}, [[weight]]))
    assert step.gradients().gram().tolist() == [[0.0]]
    step.apply(torch.ones(1))
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("scale", [1.0, 64.0])
def test_apply(sparse: bool, scale: float) -> None:
    """Shared parameters: the weighted sum and extra; a task's own: its own, by its own factor, and extra."""
    model = Losses(2, sparse=sparse)
    both = [model.table.weight, model.weight]
    extra = model.penalised * (model.weight.square().sum() + model.heads[0].sum())
    losses = model(ROWS)
    each = [torch.autograd.grad(loss, [*both, *model.heads], retain_graph=True, allow_unused=True) for loss in losses]
    step = BalancerStep(losses, extra, reach=model.reach(), again=lambda: losses, scale=scale)
    step.apply(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0]))

    def grad(parameter: nn.Parameter) -> Tensor:
        assert parameter.grad is not None
        return parameter.grad.to_dense() / scale

    first, second = each
    assert model.table.weight.grad is not None
    assert model.table.weight.grad.is_sparse == sparse
    torch.testing.assert_close(grad(model.table.weight), 2 * first[0].to_dense() - second[0].to_dense())
    torch.testing.assert_close(grad(model.weight), 2 * first[1] - second[1] + 2 * model.weight.detach())
    torch.testing.assert_close(grad(model.heads[0]), 0.5 * first[2] + 1)
    torch.testing.assert_close(grad(model.heads[1]), 3 * second[3])
    torch.testing.assert_close(grad(model.penalised), (model.weight.square().sum() + model.heads[0].sum()).detach())


def test_apply_adds_to_what_run_has_left() -> None:
    model = Losses(2, sparse=True)
    step = step_of(model)
    step.run(step.losses.sum(), retain_graph=True)
    once = {name: p.grad.to_dense().clone() for name, p in model.named_parameters() if p.grad is not None}
    step.apply(torch.ones(2))
    for name, gradient in once.items():
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.to_dense(), 2 * gradient, msg=name)


def test_gradients_of_chosen_parameters() -> None:
    model = Losses(2)
    step = step_of(model)
    found = step.gradients([model.heads[1]])
    assert found.parameters == (model.heads[1],)
    (wanted,) = torch.autograd.grad(step.losses[1], [model.heads[1]])
    torch.testing.assert_close(found.values[0], torch.stack([torch.zeros(4), wanted]))


def test_bfloat16_tables_have_a_gram_in_float64() -> None:
    table = nn.Parameter(torch.zeros(4, 2, dtype=torch.bfloat16))
    index = torch.tensor([[0, 3, 3]])
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 0.0]], dtype=torch.bfloat16)
    part = torch.sparse_coo_tensor(index, values, (4, 2), check_invariants=False)
    found = stack_gradients([table], [[part], [part]])
    assert found.gram().tolist() == [[37.0, 37.0], [37.0, 37.0]]
    (combined,) = found.combine(torch.tensor([0.5, 1.5], dtype=torch.float64))
    assert combined.dtype is torch.bfloat16
    assert combined.to_dense().tolist() == [[2.0, 4.0], [0.0, 0.0], [0.0, 0.0], [8.0, 8.0]]


class Refuses(GradientBalancer):
    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        raise AssertionError("not to be called")


def test_a_gradient_that_is_not_finite_reaches_the_scaler() -> None:
    model = Losses(2)
    losses = model(ROWS) * torch.tensor([1.0, float("inf")])
    step = Step(losses, reach=model.reach())
    Refuses([TaskSpec(name, "binary", name) for name in "ab"]).backward(step)
    assert model.weight.grad is not None
    assert not model.weight.grad.isfinite().any()


def test_random_numbers_follow_the_seed_and_the_step() -> None:
    def draw(seed: int, index: int) -> list[int]:
        return [*Step(torch.zeros(1), seed=seed, index=index).random().integers(1 << 30, size=4)]

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3)
    assert draw(1, 2) != draw(2, 2)


def test_a_step_without_a_trainer_says_what_it_lacks() -> None:
    step = Step(torch.zeros(2, requires_grad=True))
    assert step.observed.tolist() == [True, True]
    assert step.scale == 1.0
    with pytest.raises(ValueError, match="no reach was given"):
        step.gradients()
    with pytest.raises(NotImplementedError, match="losses_again needs the training loop's step"):
        step.losses_again()
    with pytest.raises(NotImplementedError, match="update needs the training loop's step"):
        step.update()
