"""DCN against its equation, in plain numpy, one row and one layer at a time."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.dcn import DCN
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("layers", [1, 3])
def test_dcn_is_its_equation(layers: int, rows: int) -> None:
    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        found = []
        for row in e:
            first = x = np.concatenate([row[0], row[1], row[2]])
            for layer in range(layers):
                x = first * np.sum(w[f"crosses.{layer}.weight"][0] * x) + w[f"biases.{layer}"] + x
            found.append(w["head.weight"] @ x + w["head.bias"])
        return np.array(found)

    module = DCN(SHAPE, 5, layers=layers)
    for bias in module.biases:  # zeros at the start, which would hide a bias that is not added
        torch.nn.init.normal_(bias)
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    check_equation(module, equation, embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1))


def test_one_layer_by_hand() -> None:
    """One field of width 1: x1 = 2 * (3 * 2) + 1 + 2 = 15, output = 10 * 15 + 4 = 154."""
    module = DCN(FieldShape(1, 1, (0,), (3,)), 1, layers=1).double()
    for name, value in {"crosses.0.weight": 3, "biases.0": 1, "head.weight": 10, "head.bias": 4}.items():
        torch.nn.init.constant_(module.get_parameter(name), value)
    assert module(torch.tensor([[[2.0]]]).double(), torch.tensor([[0]])).item() == 154.0
