"""AutoInt against its equations, in plain numpy, one row, one head and one field at a time."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from recbole_dtn.interaction.autoint import AutoInt
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.testing.interactions import check_equation

FIELDS, WIDTH = 3, 4
SHAPE = FieldShape(num_fields=FIELDS, embedding_dim=WIDTH, id_fields=(0, 2), field_sizes=(9, 2, 7))


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = torch.randn(rows, FIELDS, WIDTH, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def autoint(layers: int, heads: int, d: int, scale: bool, residual: bool) -> Callable[..., np.ndarray]:
    def attend(weight: np.ndarray, fields: list[np.ndarray]) -> list[np.ndarray]:
        # Rows of the weight: Q of head 1, of head 2, ...; then K, V, and R.
        parts = weight.reshape(4 if residual else 3, heads * d, -1)
        found = []
        for i in range(FIELDS):
            outputs = []
            for h in range(heads):
                query, key, value = (part[h * d : (h + 1) * d] for part in parts[:3])
                scores = np.array([(query @ fields[i]) @ (key @ fields[j]) for j in range(FIELDS)])
                attention = np.exp(scores / np.sqrt(d) if scale else scores)
                attention = attention / attention.sum()
                outputs.append(sum(attention[j] * (value @ fields[j]) for j in range(FIELDS)))
            mixed = np.concatenate(outputs)
            found.append(np.maximum(0.0, mixed + parts[3] @ fields[i] if residual else mixed))
        return found

    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            fields = [row[i] for i in range(FIELDS)]
            for layer in range(layers):
                fields = attend(w[f"layers.{layer}.projections.weight"], fields)
            rows.append(w["head.weight"] @ np.concatenate(fields) + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("scale", "residual"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize(("layers", "heads", "d"), [(1, 1, 3), (2, 2, 2)])
def test_autoint_is_its_equation(layers: int, heads: int, d: int, scale: bool, residual: bool, rows: int) -> None:
    module = AutoInt(SHAPE, 5, layers=layers, heads=heads, head_dim=d, scale=scale, residual=residual)
    check_equation(module, autoint(layers, heads, d, scale, residual), *inputs(rows))


def test_the_residual_has_its_matrix_also_where_the_widths_agree() -> None:
    """H d = 4 = D, and 4 = 4 from layer to layer: Q, K, V and R in both layers, 16 rows each."""
    module = AutoInt(SHAPE, 5, layers=2, heads=2, head_dim=2)
    assert [tuple(p.shape) for p in module.parameters()] == [(16, 4), (16, 4), (5, 12), (5,)]
