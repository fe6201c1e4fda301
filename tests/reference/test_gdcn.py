"""GDCN against its equations, in plain numpy, one row and one layer at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.gdcn import GDCN
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def square(w: Mapping[str, np.ndarray], name: str, low_rank: int | None) -> np.ndarray:
    if low_rank is None:
        assert w[f"{name}.weight"].shape == (12, 12)
        return w[f"{name}.weight"]
    assert w[f"{name}.0.weight"].shape == (low_rank, 12)
    return w[f"{name}.1.weight"] @ w[f"{name}.0.weight"]


def gdcn(layers: int, structure: str, hidden: int, low_rank: int | None) -> Callable[..., np.ndarray]:
    bias = "bias" if low_rank is None else "1.bias"

    def mlp(w: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        for depth in range(hidden):
            x = np.maximum(0.0, w[f"mlp.layers.{2 * depth}.weight"] @ x + w[f"mlp.layers.{2 * depth}.bias"])
        return x

    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            c0 = np.concatenate([row[0], row[1], row[2]])
            c = c0
            for layer in range(layers):
                crossed = square(w, f"crosses.{layer}", low_rank) @ c + w[f"crosses.{layer}.{bias}"]
                gate = 1.0 / (1.0 + np.exp(-square(w, f"gates.{layer}", low_rank) @ c))
                c = c0 * crossed * gate + c
            h = mlp(w, c) if structure == "stacked" else np.concatenate([c, mlp(w, c0)])
            rows.append(w["head.weight"] @ h + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("low_rank", [None, 2])
@pytest.mark.parametrize("hidden", [[], [6, 3]])
@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("layers", [1, 3])
def test_gdcn_is_its_equation(layers: int, structure: Any, hidden: list[int], low_rank: int | None, rows: int) -> None:
    module = GDCN(SHAPE, 5, layers=layers, structure=structure, hidden=hidden, low_rank=low_rank)
    check_equation(module, gdcn(layers, structure, len(hidden), low_rank), *inputs(rows))


def test_one_layer_by_hand() -> None:
    """One field of width 1: c0 = 2, c1 = 2 * (3 * 2 + 1) * sigmoid(0) + 2 = 9, output = 10 * 9 + 4 = 94."""
    module = GDCN(FieldShape(1, 1, (0,), (3,)), 1, layers=1).double()
    for name, value in {"crosses.0.weight": 3, "crosses.0.bias": 1, "gates.0.weight": 0,
                        "head.weight": 10, "head.bias": 4}.items():  # fmt: skip
        torch.nn.init.constant_(module.get_parameter(name), value)
    assert module(torch.tensor([[[2.0]]]).double(), torch.tensor([[0]])).item() == 94.0


def test_no_bias_but_the_crosses_own() -> None:
    names = {name for name, _ in GDCN(SHAPE, 5, layers=1, low_rank=2).named_parameters()}
    assert names == {
        "crosses.0.0.weight", "crosses.0.1.weight", "crosses.0.1.bias",
        "gates.0.0.weight", "gates.0.1.weight", "head.weight", "head.bias",
    }  # fmt: skip


def test_low_rank_saves_what_it_says() -> None:
    """2 layers x 2 matrices of 2 * 12 * 3 instead of 12 * 12."""
    full, low = (sum(p.numel() for p in GDCN(SHAPE, 5, low_rank=rank).parameters()) for rank in (None, 3))
    assert full - low == 4 * (144 - 72)
