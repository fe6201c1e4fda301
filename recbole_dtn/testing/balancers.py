"""What every loss balancer must do; run ``check_balancer(MyBalancer)`` in the tests of a plug-in."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.reach import Reach
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["BalancerStep", "Losses", "check_balancer"]

Make = Callable[[Sequence[TaskSpec]], LossBalancer]
# Two epochs of two steps: epoch_start is called twice, the second time with means.
STEPS = 4
SCALE = 1024.0


class Losses(nn.Module):
    """T losses over a table, a shared weight and one head per task: small enough to be differentiated by hand.

    ``L_t = softplus(sum_n tanh(W e_n) . h_t + b_t)`` over the looked-up rows e_n of the table, plus a penalty on a
    parameter that no task reads.

    Args:
        tasks: T. sparse: whether the table's gradient is sparse. seed: of the parameters.
    """

    def __init__(self, tasks: int, *, sparse: bool = False, seed: int = 0) -> None:
        super().__init__()
        # A generator of its own: the global one may be seeded differently by the caller.
        draw = torch.Generator().manual_seed(seed)
        self.table = nn.Embedding(7, 3, sparse=sparse, _weight=torch.randn(7, 3, generator=draw))
        self.weight = nn.Parameter(torch.randn(4, 3, generator=draw))
        self.heads = nn.ParameterList(nn.Parameter(torch.randn(4, generator=draw)) for _ in range(tasks))
        self.biases = nn.ParameterList(nn.Parameter(torch.randn((), generator=draw)) for _ in range(tasks))
        self.penalised = nn.Parameter(torch.ones(()))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (n,) of the table -> the losses (T,)."""
        # (n, 4) summed over the looked-up rows: (4,), the shared representation.
        hidden = torch.tanh(self.table(rows) @ self.weight.t()).sum(0)
        heads, biases = torch.stack([*self.heads]), torch.stack([*self.biases])
        return functional.softplus(heads @ hidden + biases)

    def reach(self) -> Reach:
        """Table and weight are shared (by T > 1 tasks), a head and a bias are a task's own."""
        everything = dict(self.named_parameters())
        table, weight = everything["table.weight"], self.weight
        tasks = [[table, weight, head, bias] for head, bias in zip(self.heads, self.biases, strict=True)]
        return Reach.of(everything, tasks, [table])


class BalancerStep(Step):
    """A :class:`Step` with what the training loop adds: :meth:`losses_again`, :meth:`update`, the scaler's factor.

    Args:
        losses, extra: as in :class:`Step`. again: computes the losses anew. own: the optimiser of the balancer's
            parameters. scale: the scaler's factor. more: the other arguments of :class:`Step`.
    """

    def __init__(
        self,
        losses: Tensor,
        extra: Tensor | None = None,
        *,
        again: Callable[[], Tensor],
        own: torch.optim.Optimizer | None = None,
        scale: float = 1.0,
        **more: Any,
    ) -> None:
        super().__init__(losses, extra, **more)
        self.again, self.own = again, own
        self.scale = scale

    def run(self, loss: Tensor, retain_graph: bool = False) -> None:
        assert loss.shape == (), f"run takes a scalar, found shape {tuple(loss.shape)}"
        super().run(loss * self.scale, retain_graph)

    @torch.no_grad()
    def losses_again(self) -> Tensor:
        return self.again() * self.observed

    def update(self) -> None:
        assert self.own is not None, "update: the balancer has no parameters of its own"
        self.own.step()


class _Run:
    """A balancer and a model that are trained together, plain gradient descent for the model."""

    def __init__(
        self,
        make: Make,
        tasks: int,
        *,
        sparse: bool = False,
        scale: float = 1.0,
    ) -> None:
        self.model = Losses(tasks, sparse=sparse)
        names = [f"task{number}" for number in range(tasks)]
        self.balancer = make([TaskSpec(name, "binary", name) for name in names])
        own = [*self.balancer.parameters()]
        lr = 0.01 if self.balancer.lr is None else self.balancer.lr
        self.own = torch.optim.Adam(own, lr=lr) if own else None
        self.scale = scale
        self.index = 0

    def step(self, observed: Sequence[bool] | None = None, *, factors: Sequence[float] | None = None) -> Tensor:
        """One step; the scalar that the balancer logs. ``factors`` multiply the losses."""
        self.model.zero_grad()
        self.balancer.zero_grad()
        tasks = len(self.model.heads)
        if self.index in (0, 2):
            means = None if self.index == 0 else torch.full((tasks,), 0.5)
            self.balancer.epoch_start(self.index // 2, means)
        seen = torch.tensor([True] * tasks if observed is None else list(observed))
        # Row 2 twice, so that a sparse gradient holds duplicates.
        rows = torch.tensor([self.index % 7, 2, 2, 5])
        sizes = torch.tensor([1.0] * tasks if factors is None else list(factors))

        def losses() -> Tensor:
            # As TaskLosses: a task without an observed row has loss 0 with gradient 0.
            return torch.where(seen, self.model(rows) * sizes, 0.0)

        step = BalancerStep(
            losses(),
            self.model.penalised.square(),
            reach=self.model.reach(),
            observed=seen,
            again=losses,
            own=self.own,
            scale=self.scale,
            epoch=self.index // 2,
            index=self.index,
        )
        total = self.balancer.backward(step)
        if self.own is not None:
            for parameter in self.balancer.parameters():
                # The scaler's unscaling, which comes before the optimiser's step.
                parameter.grad = None if parameter.grad is None else parameter.grad / self.scale
            self.own.step()
        self.last = step
        with torch.no_grad():
            for parameter in self.model.parameters():
                assert parameter.grad is not None, "a parameter of the model is left without a gradient"
                # Plain descent: Adam would hide a factor on the gradient.
                parameter.sub_(parameter.grad.to_dense(), alpha=0.01 / self.scale)
        self.balancer.after_step(step)
        self.index += 1
        return total

    def gradients(self) -> dict[str, Tensor]:
        """Of the last step, unscaled."""
        found = self.model.named_parameters()
        return {name: p.grad.to_dense() / self.scale for name, p in found if p.grad is not None}


def check_balancer(balancer: str | type[LossBalancer], **options: Any) -> None:
    """Check a balancer against its contract, on one, two and three tasks.

    The scalar it logs; finite gradients for every parameter of the model, where tasks agree, conflict or have no
    gradient at all; extra terms with their own weight; a task's own parameters moved by its own loss alone; a task
    without an observed row that changes nothing for the others; the same numbers twice; the gradients of a sparse table
    and those under the fp16 scaler; its own parameters trained, saved and loaded.

    Args:
        balancer: a registered name, or the class. options: keyword arguments of the class, to check them too.

    Raises:
        AssertionError: with what was expected and found.

    >>> check_balancer("fixed")
    """
    cls: type[LossBalancer] = BALANCERS.load(balancer) if isinstance(balancer, str) else balancer
    _check_options(cls)

    def make(tasks: Sequence[TaskSpec]) -> LossBalancer:
        return cls(tasks, **options)

    # One task has nothing to balance, two have closed forms, three take the general way.
    for tasks in (1, 2, 3):
        _check_steps(make, tasks)
        _check_repeats(make, tasks)
        _check_equal(_trained(make, tasks), _trained(make, tasks, sparse=True), "a sparse table's gradient")
        _check_equal(_trained(make, tasks), _trained(make, tasks, scale=SCALE), "the gradient under a scaler")
        _check_state(make, tasks)
    for tasks in (2, 3):
        _check_unobserved(make, tasks)
        _check_extremes(make, tasks)
    _check_learns(make)


def _check_options(cls: type[LossBalancer]) -> None:
    for name, parameter in [*inspect.signature(cls).parameters.items()][1:]:
        assert parameter.kind is parameter.KEYWORD_ONLY, f"option {name!r} must be keyword-only (after a *)"
        assert parameter.default is not parameter.empty, f"option {name!r} needs a default"


def _trained(make: Make, tasks: int, *, sparse: bool = False, scale: float = 1.0) -> list[dict[str, Tensor]]:
    run = _Run(make, tasks, sparse=sparse, scale=scale)
    found = []
    for _ in range(STEPS):
        run.step()
        grad = run.model.table.weight.grad
        assert grad is not None
        assert grad.is_sparse == sparse, f"the table's gradient must be {'sparse' if sparse else 'dense'}"
        found.append(run.gradients())
    return found


def _check_equal(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]], what: str) -> None:
    for number, (left, right) in enumerate(zip(one, other, strict=True)):
        for name, wanted in left.items():
            error = (right[name] - wanted).abs().max().item()
            assert error <= 1e-5 * max(1.0, wanted.abs().max().item()), (
                f"{what} of {name} differs by {error:.3g} in step {number}"
            )


def _check_steps(make: Make, tasks: int) -> None:
    run = _Run(make, tasks)
    for _ in range(STEPS):
        penalised = run.model.penalised.item()
        total = run.step()
        assert total.shape == (), f"backward returns a scalar, found shape {tuple(total.shape)}"
        assert not total.requires_grad, "backward returns a scalar without a graph: total.detach()"
        assert total.isfinite(), f"backward returned {total.item()}"
        gradients = run.gradients()
        for name, gradient in gradients.items():
            assert gradient.isfinite().all(), f"the gradient of {name} is not finite"
            assert gradient.abs().max() > 0, f"the gradient of {name} is zero"
        found = gradients["penalised"].item()
        assert abs(found - 2 * penalised) < 1e-5, f"extra is re-weighted: gradient {found:.6g}, not {2 * penalised:.6g}"


def _check_repeats(make: Make, tasks: int) -> None:
    """The same numbers twice, whatever torch's generator does; own parameters follow the task's own loss."""
    first = _trained(make, tasks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second = _trained(make, tasks)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one), (
            "two runs of the same steps differ: draw random numbers from step.random()"
        )
    run = _Run(make, tasks)
    rows = torch.tensor([0, 2, 2, 5])
    wanted = torch.autograd.grad(run.model(rows).sum(), [*run.model.heads])
    run.step()
    for task, (head, alone) in enumerate(zip(run.model.heads, wanted, strict=True)):
        assert head.grad is not None
        # The least-squares factor between the two gradients: a balancer may scale a task's loss, but not turn its
        # gradient.
        factor = (head.grad * alone).sum() / alone.square().sum() / run.scale
        assert factor > 0, f"task {task}: the step of its own parameters does not decrease its own loss"
        assert torch.allclose(head.grad, factor * alone, atol=1e-5), f"task {task}: its own parameters follow others"


def _check_unobserved(make: Make, tasks: int) -> None:
    """The last task never has a row: the others' gradients are those of a model without it."""
    run, without = _Run(make, tasks), _Run(make, tasks - 1)
    # The model with a task less has the same parameters under the same names, but for the last head.
    names = [name for name, _ in without.model.named_parameters()]
    for name in names:
        without.model.get_parameter(name).data.copy_(run.model.get_parameter(name))
    for number in range(STEPS):
        run.step([True] * (tasks - 1) + [False])
        without.step()
        left, right = run.gradients(), without.gradients()
        for name in names if tasks > 2 else []:  # a model of one task shares nothing
            assert torch.allclose(left[name], right[name], atol=1e-5), (
                f"a task without an observed row changes the gradient of {name} in step {number}: leave it out"
            )
        assert (left[f"heads.{tasks - 1}"] == 0).all(), "a task without an observed row moves its own parameters"
    run.step([False] * tasks)  # nothing at all is observed
    assert all(gradient.isfinite().all() for gradient in run.gradients().values()), "nothing observed: not finite"
    _check_own(run, "after a step in which nothing is observed")


def _check_extremes(make: Make, tasks: int) -> None:
    """Parallel, opposite, vanishing and huge gradients."""
    last = tasks - 1
    for what, direction, factors in (
        # Name, direction of the last task's gradient against the first one's, and factors of the losses.
        ("parallel", 1.0, [1.0] * tasks),
        ("opposite", -1.0, [1.0] * tasks),
        ("zero", 1.0, [1.0] * last + [0.0]),
        ("all zero", 1.0, [0.0] * tasks),
        ("huge", 1.0, [1.0] * last + [1e6]),
    ):
        run = _Run(make, tasks)
        with torch.no_grad():
            run.model.heads[last].copy_(direction * run.model.heads[0])
            run.model.biases[last].copy_(direction * run.model.biases[0])
        for _ in range(2):
            total = run.step(factors=factors)
            assert total.isfinite(), f"{what} gradients: backward returned {total.item()}"
            for name, gradient in run.gradients().items():
                assert gradient.isfinite().all(), f"{what} gradients of the tasks: that of {name} is not finite"
        _check_own(run, f"after {what} gradients of the tasks")


def _check_own(run: _Run, when: str) -> None:
    for name, value in [*run.balancer.named_parameters(), *run.balancer.named_buffers()]:
        # A buffer may mark with NaN what it does not know yet, such as a first loss.
        finite = value.isfinite().all() if isinstance(value, nn.Parameter) else not value.isinf().any()
        assert finite, f"the balancer's own {name!r} is not finite {when}"


def _check_learns(make: Make) -> None:
    run = _Run(make, 2)
    before = {name: parameter.detach().clone() for name, parameter in run.balancer.named_parameters()}
    for _ in range(STEPS):
        run.step(factors=[1.0, 3.0])
    for name, parameter in run.balancer.named_parameters():
        assert not torch.equal(parameter, before[name]), (
            f"the balancer's own parameter {name!r} never moves: its gradient comes from step.run or from after_step"
        )


def _check_state(make: Make, tasks: int) -> None:
    """A saved and loaded balancer takes the same next step."""
    run, again = _Run(make, tasks), _Run(make, tasks)
    for _ in range(2):
        run.step()
    # Through a file with weights_only=True, as a checkpoint is read.
    file = io.BytesIO()
    torch.save(run.balancer.state_dict(), file)
    file.seek(0)
    again.balancer.load_state_dict(torch.load(file, weights_only=True))
    again.model.load_state_dict(run.model.state_dict())
    again.index = run.index
    for each in (run, again):
        each.step()
    left, right = run.gradients(), again.gradients()
    for name, gradient in left.items():
        assert torch.allclose(gradient, right[name], atol=1e-6), (
            f"a saved and loaded balancer gives another gradient of {name}: keep its state in buffers or parameters"
        )
