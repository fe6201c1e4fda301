"""DCNv2 against its equations, in plain numpy, one row, one layer and one expert at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.dcnv2 import DCNv2
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=2, id_fields=(0, 2), field_sizes=(9, 2, 7))
WIDTH = 6


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, 3, 2, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def mixture(w: Mapping[str, np.ndarray], layer: int, gate: str, experts: int, first: Any, x: Any) -> Any:
    """``sum_k g_k x_0 * (U_k tanh(C_k tanh(V_k x)) + b)``, each expert with the bias, as the paper writes it."""
    name = f"crosses.{layer}."
    rank = len(w[name + "down.weight"]) // experts
    weights = np.ones(1)
    if experts > 1:
        scores = np.exp(w[gate] @ x)
        weights = scores / scores.sum()
    total = np.zeros(WIDTH)
    for k in range(experts):
        own = slice(k * rank, (k + 1) * rank)
        down, core, up = w[name + "down.weight"][own], w[name + "core"][k], w[name + "up.weight"][:, own]
        assert (down.shape, core.shape, up.shape) == ((rank, WIDTH), (rank, rank), (WIDTH, rank))
        expert = first * (up @ np.tanh(core @ np.tanh(down @ x)) + w[name + "up.bias"])
        total = total + weights[k] * expert
    return total


def dcnv2(layers: int, structure: str, hidden: int, experts: int, shared_gates: bool) -> Callable[..., np.ndarray]:
    """``experts`` 0: full matrices."""

    def mlp(w: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        for depth in range(hidden):
            x = np.maximum(0.0, w[f"mlp.layers.{2 * depth}.weight"] @ x + w[f"mlp.layers.{2 * depth}.bias"])
        return x

    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            first = x = np.concatenate([row[0], row[1], row[2]])
            for layer in range(layers):
                if experts:
                    gate = f"gates.{0 if shared_gates else layer}.linear.weight"
                    x = x + mixture(w, layer, gate, experts, first, x)
                else:
                    x = first * (w[f"crosses.{layer}.weight"] @ x + w[f"crosses.{layer}.bias"]) + x
            if structure == "stacked":
                x = mlp(w, x)
            elif structure == "parallel":
                x = np.concatenate([x, mlp(w, first)])
            rows.append(w["head.weight"] @ x + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("structure", "hidden"), [("cross", [9]), ("stacked", [5, 3]), ("parallel", [5, 3])])
@pytest.mark.parametrize("layers", [1, 3])
def test_full_matrices(layers: int, structure: Any, hidden: list[int], rows: int) -> None:
    module = DCNv2(SHAPE, 5, layers=layers, structure=structure, hidden=hidden)
    check_equation(module, dcnv2(layers, structure, len(hidden), 0, False), *inputs(rows))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    ("structure", "experts", "rank", "shared_gates"),
    [("cross", 1, 2, False), ("cross", 2, 1, True), ("cross", 3, 2, False), ("parallel", 3, 2, True)],
)
def test_low_rank_mixture(structure: Any, experts: int, rank: int, shared_gates: bool, rows: int) -> None:
    module = DCNv2(
        SHAPE, 5, layers=2, structure=structure, hidden=[5], low_rank=rank, experts=experts, shared_gates=shared_gates
    )
    check_equation(module, dcnv2(2, structure, 1, experts, shared_gates), *inputs(rows))


def test_one_layer_by_hand() -> None:
    """One field of width 1: x1 = 2 * (3 * 2 + 1) + 2 = 16, output = 10 * 16 + 4 = 164."""
    module = DCNv2(FieldShape(1, 1, (0,), (3,)), 1, layers=1, structure="cross").double()
    for name, value in {"crosses.0.weight": 3, "crosses.0.bias": 1, "head.weight": 10, "head.bias": 4}.items():
        torch.nn.init.constant_(module.get_parameter(name), value)
    assert module(torch.tensor([[[2.0]]]).double(), torch.tensor([[0]])).item() == 164.0


@pytest.mark.parametrize(
    ("experts", "shared_gates", "sets"), [(4, False, 3), (4, True, 1), (1, False, 0), (1, True, 0)]
)
def test_sets_of_gates(experts: int, shared_gates: bool, sets: int) -> None:
    """A gate for one expert would be a softmax over one number: it has no gradient."""
    module = DCNv2(SHAPE, 5, layers=3, low_rank=2, experts=experts, shared_gates=shared_gates)
    assert [tuple(p.shape) for p in module.gates.parameters()] == [(experts, WIDTH)] * sets


def test_cross_only_has_no_mlp() -> None:
    assert not list(DCNv2(SHAPE, 5, structure="cross", hidden=[7]).mlp.parameters())
