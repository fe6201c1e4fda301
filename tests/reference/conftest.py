"""Every reference test runs on both ways to compute: fused, and plain. Reference balancers train one model in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.balancers import BalancerStep, Losses
from recbole_dtn.testing.numeric import Array


@pytest.fixture(autouse=True, params=[True, False], ids=["fused", "plain"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules take the class attribute unless the setting ``fused`` says otherwise."""
    monkeypatch.setattr(Fusible, "fused", request.param)


# ---- balancers ------------------------------------------------------------------------------------------------------

SHARED = ("weight", "table.weight")
LEARNING_RATE = 0.1


def losses_and_gradients(parameters: Mapping[str, Array], rows: Sequence[int]) -> tuple[Array, list[dict[str, Array]]]:
    """The losses (T,) of :class:`Losses`, written again, and each one's gradients by hand."""
    table, weight = parameters["table.weight"], parameters["weight"]
    tasks = sum(name.startswith("heads.") for name in parameters)
    vectors = table[list(rows)]
    activations = np.tanh(vectors @ weight.T)  # (n, 4)
    hidden = activations.sum(0)
    losses, gradients = [], []
    for task in range(tasks):
        head, bias = parameters[f"heads.{task}"], parameters[f"biases.{task}"]
        logit = head @ hidden + bias
        losses.append(np.logaddexp(0, logit))
        slope = 1 / (1 + np.exp(-logit))
        inner = slope * head * (1 - activations**2)  # (n, 4)
        of_table = np.zeros_like(table)
        np.add.at(of_table, list(rows), inner @ weight)
        gradients.append(
            {
                "table.weight": of_table,
                "weight": inner.T @ vectors,
                f"heads.{task}": slope * hidden,
                f"biases.{task}": slope,
            }
        )
    return np.array(losses), gradients


def whole(gradient: Mapping[str, Array]) -> Array:
    """The gradient of all shared parameters as one vector."""
    return np.concatenate([gradient[name].ravel() for name in SHARED])


@dataclass
class NumpyAdam:
    """Adam over one vector."""

    lr: float
    steps: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(1))
    square: Array = field(default_factory=lambda: np.zeros(1))

    def step(self, values: Array, gradient: Array) -> Array:
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.steps), self.square / (1 - 0.999**self.steps)
        return np.asarray(values - self.lr * mean / (np.sqrt(square) + 1e-8))


Reference = Callable[[int, Array, list[dict[str, Array]]], tuple[Array, Array]]
"""Of a step: its index, the losses, their gradients -> each task's weight on shared and on its own parameters."""


@dataclass
class Balanced:
    """A torch run of a balancer beside its reference: ``check`` takes a step of both and compares gradients."""

    tasks: int
    sparse: bool = True

    def __post_init__(self) -> None:
        self.model = Losses(self.tasks, sparse=self.sparse).double()
        self.numpy = {name: parameter.detach().numpy().copy() for name, parameter in self.model.named_parameters()}
        self.index = 0

    def specs(self, kinds: Sequence[str] | None = None) -> list[TaskSpec]:
        chosen = kinds or ["binary"] * self.tasks
        return [TaskSpec(f"t{i}", "binary" if k == "binary" else "regression", f"t{i}") for i, k in enumerate(chosen)]

    def conflict(self) -> None:
        """Give task 1 a gradient nearly opposite to that of task 0."""
        if self.tasks > 1:
            self.numpy["heads.1"] = 0.1 * self.numpy["heads.1"] - self.numpy["heads.0"]
            self.model.heads[1].data.copy_(torch.from_numpy(self.numpy["heads.1"]))

    def losses(self, index: int) -> Array:
        """The losses (T,) of the batch of step ``index``, with the parameters as they are now."""
        return losses_and_gradients(self.numpy, [index % 7, 2, 2, 5])[0]

    def check(self, balancer: LossBalancer, reference: Reference, own: torch.optim.Optimizer | None = None) -> None:
        """One step of plain gradient descent for the model, one of ``own`` for the balancer."""
        rows = [self.index % 7, 2, 2, 5]
        self.model.zero_grad()
        balancer.zero_grad()
        step = BalancerStep(
            self.model(torch.tensor(rows)),
            self.model.penalised.square(),
            reach=self.model.reach(),
            again=lambda: self.model(torch.tensor(rows)),
            own=own,
            index=self.index,
            seed=3,
        )
        balancer.backward(step)
        if own is not None:
            own.step()
        losses, gradients = losses_and_gradients(self.numpy, rows)
        shared, specific = reference(self.index, losses, gradients)
        for name, parameter in self.model.named_parameters():
            if name == "penalised":
                wanted = 2 * self.numpy[name]
            elif name in SHARED:
                wanted = sum(weight * each[name] for weight, each in zip(shared, gradients, strict=True))
            else:
                task = int(name.split(".")[1])
                wanted = specific[task] * gradients[task][name]
            assert parameter.grad is not None
            np.testing.assert_allclose(parameter.grad.to_dense().numpy(), wanted, atol=1e-11, rtol=1e-9, err_msg=name)
            self.numpy[name] = self.numpy[name] - LEARNING_RATE * wanted
            with torch.no_grad():
                parameter.sub_(parameter.grad.to_dense(), alpha=LEARNING_RATE)
        balancer.after_step(step)
        self.index += 1


@pytest.fixture
def balanced() -> type[Balanced]:
    """Class of a torch run beside a numpy one."""
    return Balanced


@pytest.fixture
def numpy_adam() -> type[NumpyAdam]:
    return NumpyAdam


@pytest.fixture
def whole_gradient() -> Callable[[Mapping[str, Array]], Array]:
    return whole
