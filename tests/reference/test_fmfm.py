"""FmFM against its equations, in plain numpy, one row and one pair of fields at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.fmfm import FmFM
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=4, embedding_dim=3, id_fields=(0, 2), field_sizes=(9, 2, 7, 2))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("weight", ["matrix", "vector"])
def test_fmfm_is_its_equation(weight: Any, rows: int) -> None:
    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        found = []
        for row in e:
            products = []
            for i in range(4):
                for j in range(i + 1, 4):
                    own = w["pair_weights"][len(products)]
                    matrix = own if weight == "matrix" else np.diag(own)
                    assert matrix.shape == (3, 3)
                    products.append(sum(row[i][d] * matrix[d, k] * row[j][k] for d in range(3) for k in range(3)))
            found.append(w["head.weight"] @ np.array(products) + w["head.bias"])
        return np.array(found)

    generator = torch.Generator().manual_seed(7)
    embeddings = torch.randn(rows, 4, 3, dtype=torch.float64, generator=generator)
    module = FmFM(SHAPE, 5, weight=weight)
    assert module.pair_weights.shape[0] == 6
    check_equation(module, equation, embeddings, torch.tensor([[3, -1, 12, -1]]).repeat(rows, 1))


@pytest.mark.parametrize("weight", ["matrix", "vector"])
def test_products_start_with_the_same_variance(weight: Any) -> None:
    """Of <e_i M, e_j> with e ~ N(0, 1): D^2 / D = D with a matrix of N(0, 1 / D), D with a diagonal of N(0, 1)."""
    torch.manual_seed(0)
    module = FmFM(FieldShape(30, 16, (), (2,) * 30), 435, weight=weight)
    torch.nn.init.eye_(module.head.weight)
    torch.nn.init.zeros_(module.head.bias)
    products = module(torch.randn(50, 30, 16), torch.full((50, 30), -1))
    assert products.square().mean().item() == pytest.approx(16.0, rel=0.1)


def test_the_size_in_the_docstring() -> None:
    module = FmFM(FieldShape(23, 64, (), (2,) * 23), 1)
    assert module.pair_weights.numel() == 253 * 64 * 64 == 1_036_288
