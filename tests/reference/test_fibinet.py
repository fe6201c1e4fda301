"""FiBiNET against its equations, in plain numpy, one row and one pair of fields at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.fibinet import FiBiNET
from recbole_dtn.testing.interactions import check_equation

FIELDS, WIDTH = 4, 3
SHAPE = FieldShape(num_fields=FIELDS, embedding_dim=WIDTH, id_fields=(0, 2), field_sizes=(9, 2, 7, 2))


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = torch.randn(rows, FIELDS, WIDTH, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12, -1]]).repeat(rows, 1)


def fibinet(bilinear: str, hidden: int, seen: list[np.ndarray]) -> Callable[..., np.ndarray]:
    def products(w: Mapping[str, np.ndarray], fields: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for i in range(FIELDS):
            for j in range(i + 1, FIELDS):
                matrix = w["maps"][{"all": 0, "each": i, "interaction": len(found)}[bilinear]]
                found.append((fields[i] @ matrix) * fields[j])
        return found

    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            z = np.array([sum(row[i]) / WIDTH for i in range(FIELDS)])
            a = np.maximum(0.0, w["excite.weight"] @ np.maximum(0.0, w["squeeze.weight"] @ z))
            seen.append(a)
            weighed = np.array([a[i] * row[i] for i in range(FIELDS)])
            x = np.concatenate([*products(w, row), *products(w, weighed)])
            for depth in range(hidden):
                x = np.maximum(0.0, w[f"mlp.layers.{2 * depth}.weight"] @ x + w[f"mlp.layers.{2 * depth}.bias"])
            rows.append(w["head.weight"] @ x + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("hidden", "reduction"), [([], 1), ([5], 2)])
@pytest.mark.parametrize("bilinear", ["all", "each", "interaction"])
def test_fibinet_is_its_equations(bilinear: Any, hidden: list[int], reduction: int, rows: int) -> None:
    module = FiBiNET(SHAPE, 5, bilinear=bilinear, reduction=reduction, hidden=hidden)
    seen: list[np.ndarray] = []
    check_equation(module, fibinet(bilinear, len(hidden), seen), *inputs(rows))
    if rows > 1:  # weights that are all zero would hide the second half of the products
        assert max((a > 0).sum() for a in seen) >= 2


@pytest.mark.parametrize(("bilinear", "count"), [("all", 1), ("each", 3), ("interaction", 6)])
def test_number_of_matrices(bilinear: Any, count: int) -> None:
    """The last of the four fields is on the left of no pair."""
    assert FiBiNET(SHAPE, 5, bilinear=bilinear).maps.shape == (count, WIDTH, WIDTH)


@pytest.mark.parametrize(("fields", "reduction", "width"), [(4, 1, 4), (4, 3, 1), (23, 3, 7), (2, 3, 1)])
def test_width_of_the_squeezed_layer(fields: int, reduction: int, width: int) -> None:
    module = FiBiNET(FieldShape(fields, 2, (), (2,) * fields), 5, reduction=reduction)
    assert module.squeeze.weight.shape == (width, fields)
    assert module.excite.weight.shape == (fields, width)


def test_no_field_starts_without_a_weight() -> None:
    """At the start every field has a weight above zero in some row, whatever the seed: else it would never have one."""
    for seed in range(30):
        torch.manual_seed(seed)
        module = FiBiNET(SHAPE, 5)
        weights = torch.relu(module.excite(torch.relu(module.squeeze(torch.randn(100, FIELDS)))))
        assert (weights.amax(0) > 0).all()
