"""FinalMLP against its equations, in plain numpy, one row, one head and one output at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.finalmlp import FinalMLP
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))
Weights = Mapping[str, np.ndarray]


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def mlp(w: Weights, name: str, layers: int, x: np.ndarray) -> np.ndarray:
    for depth in range(layers):
        x = np.maximum(0.0, w[f"{name}.layers.{2 * depth}.weight"] @ x + w[f"{name}.layers.{2 * depth}.bias"])
    return x


def finalmlp(
    layers1: int, layers2: int, heads: int, contexts: list[list[int]] | None, gate_layers: int
) -> Callable[..., np.ndarray]:
    def gated(w: Weights, stream: int, row: np.ndarray) -> np.ndarray:
        x = np.concatenate(list(row))
        if contexts is None:
            return x
        name, context = f"gates.{stream}", contexts[stream]
        c = np.concatenate([row[field] for field in context]) if context else w[f"{name}.constant"][0]
        z = w[f"{name}.output.weight"] @ mlp(w, f"{name}.mlp", gate_layers, c) + w[f"{name}.output.bias"]
        return x * 2.0 / (1.0 + np.exp(-z))

    def equation(w: Weights, e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            u = mlp(w, "first", layers1, gated(w, 0, row))
            v = mlp(w, "second", layers2, gated(w, 1, row))
            y = w["fusion.linear.weight"] @ np.concatenate([u, v]) + w["fusion.linear.bias"]
            a, c = len(u) // heads, len(v) // heads
            for output in range(len(y)):
                matrices = w["fusion.bilinear.weight"][output].reshape(heads, a, c)
                for h in range(heads):
                    y[output] += u[h * a : (h + 1) * a] @ matrices[h] @ v[h * c : (h + 1) * c]
            rows.append(y)
        return np.array(rows)

    return equation


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    ("heads", "contexts", "gate"),
    [(1, None, [5]), (2, [[], []], [5]), (3, [[1], [2, 0]], [5]), (2, [[], [1]], [])],
)
def test_finalmlp_is_its_equation(heads: int, contexts: Any, gate: list[int], rows: int) -> None:
    first, second = (contexts, contexts) if contexts is None else contexts
    module = FinalMLP(
        SHAPE, 5, hidden1=[7, 6], hidden2=[12], heads=heads, selection=contexts is not None,
        context1=first or [], context2=second or [], gate_hidden=gate,
    )  # fmt: skip
    check_equation(module, finalmlp(2, 1, heads, contexts, len(gate)), *inputs(rows))


def test_without_a_hidden_layer_the_streams_are_the_features() -> None:
    module = FinalMLP(SHAPE, 5, hidden1=[], hidden2=[], heads=4, selection=False)
    check_equation(module, finalmlp(0, 0, 4, None, 0), *inputs(3))


def test_a_bilinear_form_by_hand() -> None:
    """u = v = (2, 3), two heads of width 1: y = 0 + 5 * 2 * 2 + 7 * 3 * 3 + 1 = 84."""
    shape = FieldShape(1, 2, (0,), (3,))
    module = FinalMLP(shape, 1, hidden1=[], hidden2=[], heads=2, selection=False)
    with torch.no_grad():
        module.fusion.linear.weight.zero_()
        module.fusion.linear.bias.fill_(1.0)
        module.fusion.bilinear.weight.copy_(torch.tensor([[5.0, 7.0]]))
    assert module(torch.tensor([[[2.0, 3.0]]]), torch.tensor([[0]])).item() == 84.0


def test_an_empty_context_gates_all_rows_alike_and_starts_at_zero() -> None:
    module = FinalMLP(SHAPE, 5, context2=[0])
    alike, own = module.gates  # type: ignore[union-attr]
    assert torch.equal(alike.constant, torch.zeros(1, 4))
    assert alike(inputs(5)[0].float()).shape == (1, 12)
    gate = own(inputs(5)[0].float())
    assert gate.shape == (5, 12)
    assert not torch.allclose(gate[0], gate[1])


def test_heads_divide_the_cost_of_the_fusion() -> None:
    """64 * 64 * 256 weights for one head, an eighth of them for eight."""
    sizes = [FinalMLP(SHAPE, 256, heads=heads).fusion.bilinear.weight.numel() for heads in (1, 8)]
    assert sizes == [64 * 64 * 256, 64 * 64 * 256 // 8]


def test_the_bilinear_weight_starts_by_xaviers_normal_rule() -> None:
    """Variance 2 / (in + out): of 512 inputs and 64 outputs, a deviation of .0589."""
    torch.manual_seed(1)
    weight = FinalMLP(SHAPE, 64).fusion.bilinear.weight
    assert weight.shape == (64, 512)
    assert weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"heads": 5}, r"heads: 5 does not divide .* \(64 and 64\); these do: 1, 2, 4, 8, 16, 32, 64"),
        ({"hidden1": [6], "hidden2": [4], "heads": 4}, r"\(6 and 4\); these do: 1, 2$"),
        ({"context1": [3]}, "context1: 3 is not the position of a field: expected 0 to 2"),
        ({"context2": [1, 1]}, r"context2: \[1, 1\] names a field twice"),
    ],
)
def test_what_cannot_be_built_is_said(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        FinalMLP(SHAPE, 5, **options)
