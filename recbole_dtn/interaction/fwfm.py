"""FwFM: one learned weight for each pair of fields."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import TopFields
from recbole_dtn.interaction.pairs import FieldPairs
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.table import RowTable
from recbole_dtn.registry import INTERACTIONS

__all__ = ["FwFM"]

FEATURE_STD = 0.01
"""Standard deviation of fresh weights and vectors of features."""


@INTERACTIONS.register("fwfm", paper="Pan et al., WWW 2018 (arXiv 1806.03514)")
class FwFM(FeatureInteraction):
    """Field-weighted factorisation machine: inner products of all pairs of fields, one weight per pair of fields.

    FwFM (Pan et al., WWW 2018). For the P = F (F - 1) / 2 pairs i < j of fields, and v_i the id of field i::

        p_ij   = r_ij <e_i, e_j>
        l_i    = w[v_i]              linear: weights           (one number per feature)
                 <e_i, w_i>          linear: field_vectors     (one vector per field)
                 <e_i, w[v_i]>       linear: feature_vectors   (one vector per feature)
        output = W [l_1 ; .. ; l_F ; all p_ij] + b

    The paper's logit is ``w_0 + sum_i l_i + sum_{i<j} p_ij``. Here the F linear terms and the P weighted products stay
    apart, and the head reads them all: each of the O outputs has a weight for each term. A head whose weights are all 1
    gives the paper's logit in every output. Without linear terms (``linear: none``) the head reads the products alone.
    The default is the paper's field vectors: a vector per field costs F*D weights, whatever the fields' sizes.

    ``weights`` and ``feature_vectors`` are tables with one row per id, beside the embeddings, and get the optimiser and
    the penalty of the embedding table. A field without one id per row (multi-valued, or a continuous number) has no row
    there; its linear term is ``<e_i, w_i>``.

    The pair weights start as N(0, 1 / F), F counting the fields that are paired; the vectors of the linear terms start
    as N(0, 1 / D).

    Args:
        shape: sizes of the input. output_dim: O. linear: form of the linear terms, of all fields.
        top_fields: pairs among the q fields with most ids alone; None: all pairs; ``auto``: all of up to 32 fields.

    Raises:
        UsageError: with fewer than two fields, or for ``weights`` and ``feature_vectors`` without a field with ids.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> FwFM(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        linear: Annotated[
            Literal["weights", "field_vectors", "feature_vectors", "none"],
            Field(
                description="linear terms: a weight per feature, a vector per field or a vector per feature (the last "
                "two in a product with the embedding), or none"
            ),
        ] = "field_vectors",
        top_fields: TopFields = "auto",
    ) -> None:
        super().__init__(shape, output_dim)
        self.pairs = FieldPairs(shape, "fwfm", top_fields)
        self.bounded = self.pairs.bounded
        self.pair_weights = nn.Parameter(torch.randn(self.pairs.count) * self.pairs.fields**-0.5)
        self.linear = None if linear == "none" else LinearTerms(shape, linear)
        # The tables are read by id; the vectors of fields need the embeddings only.
        self.reads_ids = linear in {"weights", "feature_vectors"}
        self.head = Linear(self.pairs.count + (0 if linear == "none" else shape.num_fields), output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D), and ids (B, F) for tables of features -> (B, O); ``shared`` is not read."""
        terms = self.pairs.inner_products(embeddings) * self.pair_weights  # (B, P)
        if self.linear is not None:
            terms = torch.cat([self.linear(embeddings, ids), terms], dim=1)  # (B, F + P)
        output: Tensor = self.head(terms)
        return output


class LinearTerms(nn.Module):
    """The linear terms l_i of all fields.

    Args:
        shape: sizes of the input. form: as the option ``linear`` of :class:`FwFM`.

    Attributes:
        field_vectors: (fields without a row in ``features``, D); None where there are none.
        features: the table of weights or vectors; None for ``field_vectors``.
    """

    shift: Tensor
    with_row: Tensor
    without_row: Tensor
    place: Tensor

    def __init__(self, shape: FieldShape, form: Literal["weights", "field_vectors", "feature_vectors"]) -> None:
        super().__init__()
        if form != "field_vectors" and not shape.id_fields:
            raise UsageError(
                f"interaction 'fwfm': 'linear: {form}' has a row for each id of a field, but no field of the data has "
                "one id per row: choose 'linear: field_vectors'"
            )
        self.form = form
        with_row = () if form == "field_vectors" else shape.id_fields
        without_row = [field for field in range(shape.num_fields) if field not in with_row]
        order = [*with_row, *without_row]
        # The rows of fields without one id are left out, so those of later fields move up.
        offsets = [0, *accumulate(shape.field_sizes)]
        starts = [0, *accumulate(shape.field_sizes[field] for field in with_row)]
        shift = [start - offsets[field] for start, field in zip(starts[:-1], with_row, strict=True)]
        place = [order.index(field) for field in range(shape.num_fields)]
        named = {"shift": shift, "with_row": with_row, "without_row": without_row, "place": place}
        for name, numbers in named.items():
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.long), persistent=False)
        width = 1 if form == "weights" else shape.embedding_dim
        self.features = RowTable(starts[-1], width, std=FEATURE_STD) if with_row else None
        vectors = torch.randn(len(without_row), shape.embedding_dim) * shape.embedding_dim**-0.5
        self.field_vectors = nn.Parameter(vectors) if without_row else None

    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Embeddings (B, F, D), ids (B, F) -> (B, F)."""
        found = []
        if self.features is not None:
            rows = ids.index_select(1, self.with_row) + self.shift
            weights = self.features.look_up(rows, batch_size=len(ids))  # (B, fields with a row, 1 or D)
            if self.form == "feature_vectors":
                weights = weights * embeddings.index_select(1, self.with_row)
            found.append(weights.sum(2))
        if self.field_vectors is not None:
            found.append((embeddings.index_select(1, self.without_row) * self.field_vectors).sum(2))
        return torch.cat(found, dim=1).index_select(1, self.place)
