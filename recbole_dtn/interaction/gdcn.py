"""GDCN: crosses whose every order passes an information gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import Auto, auto_rank
from recbole_dtn.kernels.crosses import gated_cross
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["GDCN"]


@INTERACTIONS.register("gdcn", paper="Wang et al., CIKM 2023")
class GDCN(FeatureInteraction):
    """Gated deep cross network: every cross layer passes an information gate.

    GDCN (Wang et al., CIKM 2023). With c_0 = flat(embeddings), width F*D, and L gated cross layers::

        c_{l+1} = c_0 * (W_c c_l + b) * sigmoid(W_g c_l) + c_l
        stacked  (GDCN-S):  output = W MLP(c_L) + b_o
        parallel (GDCN-P):  output = W [c_L ; MLP(c_0)] + b_o

    W_c and W_g are (F*D, F*D), without a bias of their own; with ``low_rank`` r each is a product
    (F*D, r) (r, F*D). ``auto`` keeps them full up to F*D = 512, and has r = 64 beyond. The MLP has ReLU after every
    layer; without widths it is the identity.

    Args:
        shape: sizes of the input. output_dim: O.
        layers: L, at least 1.
        structure: position of the MLP, after the cross layers or parallel to them.
        hidden: widths of the MLP.
        low_rank: rank r of the cross and gate matrices; None keeps them full; ``auto``: as above.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> GDCN(shape, 6, layers=1)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        layers: Annotated[int, Field(ge=1, description="gated cross layers")] = 2,
        structure: Annotated[
            Literal["stacked", "parallel"],
            Field(description="the MLP follows the cross layers (stacked, GDCN-S) or is parallel to them (GDCN-P)"),
        ] = "stacked",
        hidden: Annotated[
            Sequence[Count], Field(description="hidden widths of the MLP; [] leaves one linear map to the output")
        ] = (),
        low_rank: Annotated[
            Count | Auto | None,
            Field(description="rank of the cross and gate matrices; null: full; auto: 64 where F*D is above 512"),
        ] = "auto",
    ) -> None:
        super().__init__(shape, output_dim)
        width = shape.flat_dim
        rank, bounded = auto_rank(low_rank, width)
        self.bounded = bounded and f"gdcn: {bounded}"
        self.structure = structure
        self.crosses = nn.ModuleList(_square(width, rank, bias=True) for _ in range(layers))
        self.gates = nn.ModuleList(_square(width, rank, bias=False) for _ in range(layers))
        self.mlp = MLP(width, hidden)
        # Parallel: [c_L ; MLP(c_0)], F*D more columns.
        self.head = Linear(self.mlp.output_dim + (width if structure == "parallel" else 0), output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        first = current = embeddings.flatten(1)
        # ``first`` stays c_0: every layer raises the order of the cross by one.
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            current = gated_cross(first, current, cross, gate)
        if self.structure == "stacked":
            output: Tensor = self.head(self.mlp(current))
        else:
            output = self.head(torch.cat([current, self.mlp(first)], dim=1))
        return output


def _square(width: int, rank: int | None, *, bias: bool) -> nn.Module:
    """A linear map of ``width`` onto itself, full or through ``rank``; the bias is added last."""
    if rank is None:
        return Linear(width, width, bias=bias)
    return nn.Sequential(Linear(width, rank, bias=False), Linear(rank, width, bias=bias))
