"""Towers as batched products: numpy's values, and the gradients of autograd over one tower after another."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_dtn.kernels import towers as module
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers.towers import Towers

TASKS, ROWS, WIDTH = 3, 40, 6


@pytest.fixture(autouse=True)
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "prefers_onednn", lambda: False)


def inputs(kind: str = "apart") -> Tensor:
    torch.manual_seed(1)
    x = 2.0 * torch.randn(ROWS, TASKS, WIDTH, dtype=torch.float64)
    if kind == "shared by all":
        return x[:, 0].clone().requires_grad_()
    return x.requires_grad_()


def made(hidden: list[int], dropout: float = 0.0) -> Towers:
    torch.manual_seed(0)
    return Towers(WIDTH, hidden, count=TASKS, dropout=dropout).double()


def batched(towers: Towers, x: Tensor) -> bool:
    """Whether a forward pass takes the batched products."""
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "recbole_dtn.layers.towers.batched_towers", lambda *given: seen.append(1) or module.batched_towers(*given)
        )
        towers(x)
    return bool(seen)


@pytest.mark.parametrize("hidden", [[], [5], [7, 4]])
def test_values_are_the_equation(hidden: list[int]) -> None:
    towers, x = made(hidden), inputs()
    assert batched(towers, x)
    found = towers(x).detach().numpy()
    parameters = {name: value.detach().numpy() for name, value in towers.named_parameters()}
    for task in range(TASKS):
        h = x.detach().numpy()[:, task]
        for layer in range(len(hidden)):
            name = f"towers.{task}.hidden.layers.{2 * layer}"
            h = np.maximum(h @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"], 0)
        expected = h @ parameters[f"towers.{task}.logit.weight"][0] + parameters[f"towers.{task}.logit.bias"][0]
        np.testing.assert_allclose(found[:, task], expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["apart", "shared by all"])
@pytest.mark.parametrize("hidden", [[], [5], [7, 4]])
def test_gradients_are_those_of_autograd(hidden: list[int], kind: str) -> None:
    factors = torch.arange(1.0, 1 + ROWS * TASKS, dtype=torch.float64).view(ROWS, TASKS) / 10
    found = []
    for fused in (True, False):
        towers, x = set_fused(made(hidden), fused), inputs(kind)
        read = x if kind == "apart" else x.unsqueeze(1).expand(-1, TASKS, -1)
        assert batched(towers, read) == fused
        (towers(read) * factors).sum().backward()
        found.append([x.grad, *(parameter.grad for parameter in towers.parameters())])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        assert other.abs().max() > 0.1
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_an_input_without_a_gradient_gets_none() -> None:
    towers, x = made([5]), inputs().detach()
    towers(x).sum().backward()
    assert x.grad is None
    assert all(parameter.grad is not None for parameter in towers.parameters())


def test_one_tower_after_another_where_that_is_right_or_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs()
    assert not batched(made([5], dropout=0.5), x)
    assert batched(made([5], dropout=0.5).eval(), x)
    with torch.no_grad():
        assert not batched(made([5]), x[:2])
    with torch.autocast("cpu", torch.bfloat16):
        assert not batched(made([5]), x)
    monkeypatch.setattr(module, "WIDEST", WIDTH * 5 - 1)
    assert not batched(made([5]), x)
    monkeypatch.setattr(module, "prefers_onednn", lambda: True)
    monkeypatch.setattr(module, "WIDEST", 1 << 15)
    assert not batched(made([5]), x)
