"""FiBiNET: fields weighed by a squeeze-and-excitation network, pairs of fields by bilinear maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import TopFields
from recbole_dtn.interaction.pairs import FieldPairs
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["FiBiNET"]


@INTERACTIONS.register("fibinet", paper="Huang et al., RecSys 2019 (arXiv 1905.09433)")
class FiBiNET(FeatureInteraction):
    """Bilinear products of all pairs of fields, of the embeddings and of embeddings weighed by their importance.

    FiBiNET (Huang et al., RecSys 2019). SENET gives every field one weight per row; the products are then computed
    twice, for the P = F (F - 1) / 2 pairs i < j::

        SENET:     z_i = mean of e_i over D,   a = ReLU(W_2 ReLU(W_1 z)),   v_i = a_i e_i
        bilinear:  p_ij(e) = (e_i W) * e_j
        output   = W_o MLP([all p_ij(e) ; all p_ij(v)]) + b_o

    W (D, D) is one for all pairs (``all``), one for every left field i (``each``) or one for every pair
    (``interaction``); it is the same in p(e) and p(v). W_1 is (F / reduction, F), rounded down, with at least one row;
    neither W_1 nor W_2 has a bias. The MLP has ReLU after every layer; without widths it is the identity.

    Since v_i = a_i e_i, ``p_ij(v) = a_i a_j p_ij(e)``: the bilinear maps are computed once.

    W_2 starts without negative numbers. Otherwise a field whose row of W_2 is negative has a_i = 0 in every row of the
    data, hence no gradient, and remains without a weight for good.

    Args:
        shape: sizes of the input. output_dim: O.
        bilinear: which pairs share W. reduction: of the width of SENET's hidden layer. hidden: widths of the MLP.
        top_fields: pairs among the q fields with most ids alone; None: all pairs; ``auto``: all of up to 32 fields.

    Raises:
        UsageError: with fewer than two fields.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> FiBiNET(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        bilinear: Annotated[
            Literal["all", "each", "interaction"],
            Field(description="matrices: one for all pairs, one for each left field, or one for each pair"),
        ] = "interaction",
        reduction: Annotated[
            Count, Field(description="SENET's hidden width is the number of fields / reduction, at least 1")
        ] = 3,
        hidden: Annotated[
            Sequence[Count], Field(description="hidden widths of the MLP; [] leaves one linear map to the output")
        ] = (),
        top_fields: TopFields = "auto",
    ) -> None:
        super().__init__(shape, output_dim)
        fields, width = shape.num_fields, shape.embedding_dim
        self.bilinear = bilinear
        self.pairs = FieldPairs(shape, "fibinet", top_fields)
        self.bounded = self.pairs.bounded
        squeezed = max(1, fields // reduction)
        self.squeeze = Linear(fields, squeezed, bias=False)
        self.excite = Linear(squeezed, fields, bias=False)
        with torch.no_grad():
            self.excite.weight.abs_()
        # The last field is on the left of no pair.
        count = {"all": 1, "each": fields - 1, "interaction": self.pairs.count}[bilinear]
        self.maps = nn.Parameter(width**-0.5 * torch.randn(count, width, width))
        self.mlp = MLP(2 * self.pairs.count * width, hidden)
        self.head = Linear(self.mlp.output_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        importance = torch.relu(self.excite(torch.relu(self.squeeze(embeddings.mean(2)))))  # (B, F)
        if self.bilinear == "interaction":
            mapped = torch.einsum("bpd,pde->bpe", self.pairs.lefts(embeddings), self.maps)
        elif self.bilinear == "each":
            mapped = self.pairs.lefts(torch.einsum("bfd,fde->bfe", embeddings[:, :-1], self.maps))
        else:
            mapped = self.pairs.lefts(embeddings @ self.maps[0])
        products = mapped * self.pairs.rights(embeddings)  # (B, P, D)
        weights = self.pairs.lefts(importance.unsqueeze(2)) * self.pairs.rights(importance.unsqueeze(2))  # (B, P, 1)
        both = torch.cat([products, weights * products], dim=1)
        output: Tensor = self.head(self.mlp(both.flatten(1)))
        return output
