"""FmFM: one learned matrix, or vector, for each pair of fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import TopFields
from recbole_dtn.interaction.pairs import FieldPairs
from recbole_dtn.layers.linear import Linear
from recbole_dtn.registry import INTERACTIONS

__all__ = ["FmFM"]


@INTERACTIONS.register("fmfm", paper="Sun et al., WWW 2021 (arXiv 2102.12994)")
class FmFM(FeatureInteraction):
    """Field-matrixed factorisation machine: an inner product with a matrix of its own for every pair of fields.

    FmFM (Sun et al., WWW 2021). For the P = F (F - 1) / 2 pairs i < j of fields::

        matrix:  p_ij = <e_i M_ij, e_j>,   M_ij (D, D)
        vector:  p_ij = <e_i * m_ij, e_j>, m_ij (D)        (M_ij diagonal)
        output = W [all p_ij] + b

    The paper's logit sums the p_ij; here they stay apart and the head reads all of them. The first-order term is left
    out.

    The matrices have P D^2 weights in every module, 1.04 million for 23 fields of width 64; the vectors have P D. M_ij
    starts as Xavier's N(0, 1 / D), m_ij as N(0, 1): the p_ij then start with the same variance.

    Args:
        shape: sizes of the input. output_dim: O. weight: what every pair of fields has.
        top_fields: pairs among the q fields with most ids alone; None: all pairs; ``auto``: all of up to 32 fields.

    Raises:
        UsageError: with fewer than two fields.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> FmFM(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        weight: Annotated[
            Literal["matrix", "vector"], Field(description="each pair of fields has a D x D matrix, or its diagonal")
        ] = "matrix",
        top_fields: TopFields = "auto",
    ) -> None:
        super().__init__(shape, output_dim)
        width = shape.embedding_dim
        self.pairs = FieldPairs(shape, "fmfm", top_fields)
        self.bounded = self.pairs.bounded
        size, std = ((width, width), width**-0.5) if weight == "matrix" else ((width,), 1.0)
        self.pair_weights = nn.Parameter(std * torch.randn(self.pairs.count, *size))
        self.head = Linear(self.pairs.count, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        left, right = self.pairs.lefts(embeddings), self.pairs.rights(embeddings)  # (B, P, D)
        if self.pair_weights.dim() == 3:
            mapped = torch.einsum("bpd,pde->bpe", left, self.pair_weights)
        else:
            mapped = left * self.pair_weights
        output: Tensor = self.head((mapped * right).sum(2))
        return output
