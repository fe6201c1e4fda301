"""WuKong against its equations, in plain numpy, one row and one layer at a time."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.wukong import WuKong
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))
Weights = Mapping[str, np.ndarray]


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def layer_norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def perceptron(w: Weights, name: str, x: np.ndarray, depth: int) -> np.ndarray:
    for number in range(depth):
        x = np.maximum(0.0, w[f"{name}.mlp.layers.{2 * number}.weight"] @ x + w[f"{name}.mlp.layers.{2 * number}.bias"])
    return w[f"{name}.output.weight"] @ x + w[f"{name}.output.bias"]


def wukong(layers: int, depth: int, attentive: bool) -> Callable[..., np.ndarray]:
    def layer(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
        fmb = f"{name}.factorization"
        if attentive:
            compressed = w[f"{fmb}.project.compress.weight"] @ x  # (k, D)
            y = perceptron(w, f"{fmb}.project", compressed.ravel(), depth).reshape(len(x), -1)
        else:
            y = w[f"{fmb}.project.weight"].T
        pairs = (x @ x.T) @ y  # by the products of all pairs
        mixed = perceptron(w, fmb, layer_norm(pairs.ravel(), w, f"{fmb}.norm"), depth).reshape(-1, x.shape[1])
        both = np.concatenate([mixed, w[f"{name}.compress.weight"] @ x])
        residual = w[f"{name}.residual.weight"] @ x if f"{name}.residual.weight" in w else x
        return layer_norm(both + residual, w, f"{name}.norm")

    def equation(w: Weights, e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for x in e:
            for number in range(layers):
                x = layer(w, f"layers.{number}", x)
            rows.append(w["head.weight"] @ x.ravel() + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize(
    ("layers", "fm", "linear", "hidden", "attentive", "rows"),
    [(1, 2, 3, [6, 5], False, 3), (3, 2, 1, [6], False, 1), (2, 1, 2, [], True, 2), (2, 3, 2, [5], True, 1)],
)
def test_wukong_is_its_equation(
    layers: int, fm: int, linear: int, hidden: list[int], attentive: bool, rows: int
) -> None:
    module = WuKong(
        SHAPE, 5, layers=layers, fm_outputs=fm, linear_outputs=linear, rank=2, hidden=hidden, attentive=attentive
    )
    check_equation(module, wukong(layers, len(hidden), attentive), *inputs(rows))


def test_as_many_vectors_as_fields_by_default() -> None:
    first, second, third = WuKong(SHAPE, 5).layers
    assert WuKong(SHAPE, 5).head.weight.shape == (5, 6 * 4)
    assert first.residual is not None
    assert first.residual.weight.shape == (6, 3)
    assert second.residual is None  # six vectors in and out
    assert third.residual is None


def test_no_bias_where_the_equation_has_none() -> None:
    names = {name for name, _ in WuKong(SHAPE, 5, layers=1, hidden=[7], attentive=True).named_parameters()}
    assert {name for name in names if name.startswith(("layers.0.compress", "layers.0.residual"))} == {
        "layers.0.compress.weight", "layers.0.residual.weight",
    }  # fmt: skip
    assert "layers.0.factorization.project.compress.bias" not in names


def test_pairwise_products_by_hand() -> None:
    """X = (2, 3), D = 1, Y = (1, 10): X^T Y = 32 and X (X^T Y) = (64, 96); LN makes (-1, 1) of two numbers."""
    module = WuKong(FieldShape(2, 1, (0, 1), (3, 3)), 1, layers=1, fm_outputs=1, linear_outputs=1, rank=1, hidden=[])
    block = module.layers[0].factorization
    with torch.no_grad():
        block.project.weight.copy_(torch.tensor([[1.0, 10.0]]))
        block.output.weight.copy_(torch.tensor([[1.0, 5.0]]))
        block.output.bias.fill_(7.0)
    x = torch.tensor([[[2.0], [3.0]]])
    seen: list[torch.Tensor] = []
    handle = block.norm.register_forward_hook(lambda m, args, output: seen.append(args[0]))
    assert block(x, x.transpose(1, 2)).item() == pytest.approx(-1 + 5 + 7)
    handle.remove()
    assert seen[0].tolist() == [[64.0, 96.0]]
