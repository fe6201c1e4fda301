"""FwFM with every form of its linear terms against its equations, in plain numpy, one row and one pair at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.fwfm import FwFM
from recbole_dtn.testing.interactions import check_equation

# Fields 1 and 4 have no id: the tables have rows for the fields 0, 2 and 3 alone, 9 + 7 + 3.
SHAPE = FieldShape(num_fields=5, embedding_dim=3, id_fields=(0, 2, 3), field_sizes=(9, 2, 7, 3, 2))
ALL_IDS = FieldShape(num_fields=3, embedding_dim=3, id_fields=(0, 1, 2), field_sizes=(9, 2, 7))
FORMS = ["none", "weights", "field_vectors", "feature_vectors"]


def inputs(shape: FieldShape, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = torch.randn(rows, shape.num_fields, 3, dtype=torch.float64, generator=generator)
    ids = torch.full((rows, shape.num_fields), -1)
    for field in shape.id_fields:  # rows of the joint table; the first and the last of a field are among them
        first, size = sum(shape.field_sizes[:field]), shape.field_sizes[field]
        ids[:, field] = first + torch.tensor([size - 1, 0, 1, size - 1, 0])[:rows]
    return embeddings, ids


def fwfm(shape: FieldShape, form: str) -> Callable[..., np.ndarray]:
    with_row = [] if form in {"none", "field_vectors"} else list(shape.id_fields)

    def term(w: Mapping[str, np.ndarray], field: int, vector: np.ndarray, row_of_table: int) -> float:
        if field not in with_row:
            without = [other for other in range(shape.num_fields) if other not in with_row]
            return float(vector @ w["linear.field_vectors"][without.index(field)])
        # The row within its field, behind the rows of the fields with ids before it.
        local = row_of_table - sum(shape.field_sizes[:field])
        before = sum(shape.field_sizes[other] for other in with_row if other < field)
        found = w["linear.features.weight"][before + local]
        return float(found[0] if form == "weights" else vector @ found)

    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        found = []
        for row, row_ids in zip(e, ids, strict=True):
            terms = []
            if form != "none":
                terms += [term(w, field, row[field], row_ids[field]) for field in range(shape.num_fields)]
            pair = 0
            for i in range(shape.num_fields):
                for j in range(i + 1, shape.num_fields):
                    terms.append(w["pair_weights"][pair] * (row[i] @ row[j]))
                    pair += 1
            found.append(w["head.weight"] @ np.array(terms) + w["head.bias"])
        return np.array(found)

    return equation


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("shape", [SHAPE, ALL_IDS], ids=["some ids", "all ids"])
@pytest.mark.parametrize("form", FORMS)
def test_fwfm_is_its_equation(form: Any, shape: FieldShape, rows: int) -> None:
    check_equation(FwFM(shape, 4, linear=form), fwfm(shape, form), *inputs(shape, rows))


@pytest.mark.parametrize("form", FORMS)
def test_a_head_of_ones_gives_the_logit_of_the_paper(form: Any) -> None:
    """``w_0 + sum_i l_i + sum_{i<j} r_ij <e_i, e_j>`` in every output."""
    module = FwFM(ALL_IDS, 2, linear=form).double()
    torch.nn.init.ones_(module.head.weight)
    embeddings, ids = inputs(ALL_IDS, 5)
    logit = module.head.bias.repeat(5, 1)
    r = module.pair_weights
    pairs = ((0, 1), (0, 2), (1, 2))
    logit = logit + sum(
        r[k] * (embeddings[:, i] * embeddings[:, j]).sum(1, keepdim=True) for k, (i, j) in enumerate(pairs)
    )
    if form == "weights":
        logit = logit + module.linear.features.weight[ids].sum(1)
    elif form == "feature_vectors":
        logit = logit + (module.linear.features.weight[ids] * embeddings).sum((1, 2)).unsqueeze(1)
    elif form == "field_vectors":
        logit = logit + (module.linear.field_vectors * embeddings).sum((1, 2)).unsqueeze(1)
    torch.testing.assert_close(module(embeddings, ids), logit)


@pytest.mark.parametrize(("form", "count"), list(zip(FORMS, [0, 18, 9, 54], strict=True)))
def test_numbers_of_the_linear_terms(form: Any, count: int) -> None:
    """n features = 18, F = 3, D = 3: n, F D and n D as in the paper's comparison."""
    linear = FwFM(ALL_IDS, 4, linear=form).linear
    assert sum(p.numel() for p in linear.parameters()) == count if linear is not None else count == 0


@pytest.mark.parametrize("form", FORMS)
def test_only_a_table_reads_the_ids(form: Any) -> None:
    assert FwFM(SHAPE, 4, linear=form).reads_ids == (form in {"weights", "feature_vectors"})


def test_only_looked_up_rows_of_a_table_have_a_sparse_gradient() -> None:
    """Rows of a table over the fields 0, 2 and 3: their first ids are 0, 9 and 16 (field 1 has none)."""
    module = FwFM(SHAPE, 4, linear="weights")
    module.linear.features.sparse = True
    embeddings, ids = torch.randn(1, 5, 3), torch.tensor([[2, -1, 11, 20, -1]])
    module(embeddings, ids).sum().backward()
    gradient = module.linear.features.weight.grad
    assert gradient.is_sparse
    assert gradient.coalesce().indices().tolist() == [[2, 9, 18]]


def test_a_width_of_one_still_multiplies_the_embedding() -> None:
    """Vectors of width 1 are not plain weights: l = e * w."""
    shape = FieldShape(2, 1, (0, 1), (3, 3))
    embeddings, ids = torch.tensor([[[2.0], [5.0]]]), torch.tensor([[1, 4]])
    for form, expected in (("weights", [1.0, 4.0]), ("feature_vectors", [2.0, 20.0])):
        module = FwFM(shape, 4, linear=form)  # type: ignore[arg-type]
        module.linear.features.weight.data = torch.arange(6.0).unsqueeze(1)
        assert module.linear(embeddings, ids).tolist() == [expected]


def test_pair_weights_start_with_variance_one_over_fields() -> None:
    torch.manual_seed(0)
    weights = FwFM(FieldShape(100, 1, (), (2,) * 100), 4, top_fields=None).pair_weights
    assert weights.shape == (4950,)
    assert weights.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("form", ["weights", "feature_vectors"])
def test_a_table_needs_a_field_with_ids(form: Any) -> None:
    with pytest.raises(UsageError, match=f"'linear: {form}' has a row for each id .* 'linear: field_vectors'"):
        FwFM(FieldShape(3, 4, (), (2, 2, 2)), 5, linear=form)
