"""The plain MLP against its equation, in plain numpy, one row and one layer at a time."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.mlp import PlainMLP
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("hidden", [[], [6], [6, 3]])
def test_mlp_is_its_equation(hidden: list[int], rows: int) -> None:
    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        found = []
        for row in e:
            h = np.concatenate([row[0], row[1], row[2]])
            for depth in range(len(hidden)):
                h = np.maximum(0.0, w[f"mlp.layers.{2 * depth}.weight"] @ h + w[f"mlp.layers.{2 * depth}.bias"])
            found.append(w["head.weight"] @ h + w["head.bias"])  # no ReLU after the last layer
        return np.array(found)

    generator = torch.Generator().manual_seed(7)
    embeddings = torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    check_equation(PlainMLP(SHAPE, 5, hidden=hidden), equation, embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1))


def test_the_default_width() -> None:
    assert [tuple(p.shape) for p in PlainMLP(SHAPE, 5).parameters()] == [(256, 12), (256,), (5, 256), (5,)]
