"""FM and its neural form against their equations, in plain numpy, one row and one pair of fields at a time."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.fm import FM
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("hidden", [[], [6, 3]])
def test_fm_is_its_equation(hidden: list[int], rows: int) -> None:
    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        found = []
        for row in e:
            x = row[0] * row[1] + row[0] * row[2] + row[1] * row[2]
            for depth in range(len(hidden)):
                x = np.maximum(0.0, w[f"mlp.layers.{2 * depth}.weight"] @ x + w[f"mlp.layers.{2 * depth}.bias"])
            found.append(w["head.weight"] @ x + w["head.bias"])
        return np.array(found)

    generator = torch.Generator().manual_seed(7)
    embeddings = torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    check_equation(FM(SHAPE, 5, hidden=hidden), equation, embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1))


def test_by_hand() -> None:
    """Three fields of width 1 with 1, 2, 3: 2 + 3 + 6 = 11, output = 10 * 11 + 4."""
    module = FM(FieldShape(3, 1, (0,), (3, 2, 2)), 1).double()
    torch.nn.init.constant_(module.head.weight, 10.0)
    torch.nn.init.constant_(module.head.bias, 4.0)
    assert module(torch.tensor([[[1.0], [2.0], [3.0]]]).double(), torch.tensor([[0, -1, -1]])).item() == 114.0


@pytest.mark.parametrize("name", ["fm", "fwfm", "fmfm", "fibinet"])
def test_one_field_has_no_pairs(name: str) -> None:
    with pytest.raises(UsageError, match=f"interaction '{name}': .* needs at least 2, but the data has 1"):
        INTERACTIONS.load(name)(FieldShape(1, 4, (0,), (9,)), 5)
