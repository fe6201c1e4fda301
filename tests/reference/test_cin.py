"""CIN against its equations, in plain numpy, one row, one vector and one pair at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.cin import CIN
from recbole_dtn.testing.interactions import check_equation

FIELDS, WIDTH = 3, 4
SHAPE = FieldShape(num_fields=FIELDS, embedding_dim=WIDTH, id_fields=(0, 2), field_sizes=(9, 2, 7))


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.7 * torch.randn(rows, FIELDS, WIDTH, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def cin(layers: list[int], activation: str, half_split: bool) -> Callable[..., np.ndarray]:
    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            current, sums = [row[i] for i in range(FIELDS)], []
            for k, vectors in enumerate(layers):
                weight = w[f"layers.{k}.weight"].reshape(vectors, len(current), FIELDS)
                found = []
                for h in range(vectors):
                    vector = np.zeros(WIDTH)
                    for i, mine in enumerate(current):
                        for j in range(FIELDS):
                            vector = vector + weight[h, i, j] * (mine * row[j])
                    found.append(np.maximum(0.0, vector) if activation == "relu" else vector)
                kept = found
                if half_split and k < len(layers) - 1:
                    found, kept = found[: vectors // 2], found[vectors // 2 :]
                sums += [vector.sum() for vector in kept]
                current = found
            rows.append(w["head.weight"] @ np.array(sums) + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("half_split", [True, False])
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("layers", [[3], [4, 2, 3]])
def test_cin_is_its_equation(layers: list[int], activation: Any, half_split: bool, rows: int) -> None:
    module = CIN(SHAPE, 5, layers=layers, activation=activation, half_split=half_split)
    check_equation(module, cin(layers, activation, half_split), *inputs(rows))


def test_no_bias_but_the_heads() -> None:
    names = {name for name, _ in CIN(SHAPE, 5, layers=[4, 2]).named_parameters()}
    assert names == {"layers.0.weight", "layers.1.weight", "head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("half_split", "shapes"), [(False, [(4, 9), (6, 12), (5, 10)]), (True, [(4, 9), (6, 6), (5, 8)])]
)
def test_sizes(half_split: bool, shapes: list[tuple[int, int]]) -> None:
    """A layer reads H' F products: all of the layer before (4 * 3), or half of it (2 * 3); the head likewise."""
    module = CIN(SHAPE, 5, layers=[4, 6], half_split=half_split)
    assert [tuple(p.shape) for p in module.parameters() if p.dim() == 2] == shapes


def test_wrong_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="'layers' is an empty list"):
        CIN(SHAPE, 5, layers=[])
    with pytest.raises(UsageError, match=r"even number of vectors, found 3 in 'layers: \[4, 3, 5\]': 4, say"):
        CIN(SHAPE, 5, layers=[4, 3, 5], half_split=True)
    CIN(SHAPE, 5, layers=[4, 3], half_split=True)  # the last one is not split
    CIN(SHAPE, 5, layers=[3, 3])
