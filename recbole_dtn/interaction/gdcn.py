"""GDCN: crosses whose every order passes an information gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.first_order import first_order
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.product import Linear, autocasting, outer, product, product_plus, product_times
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
    (F*D, r) (r, F*D). The MLP has ReLU after every layer; without widths it is the identity.

    Args:
        shape: sizes of the input. output_dim: O.
        layers: L, at least 1.
        structure: where the MLP stands, after the crosses or beside them.
        hidden: widths of the MLP.
        low_rank: rank r of the cross and gate matrices; None keeps them full.

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
            Field(description="the MLP stands after the crosses (stacked, GDCN-S) or beside them (parallel, GDCN-P)"),
        ] = "stacked",
        hidden: Annotated[
            Sequence[Count], Field(description="hidden widths of the MLP; [] leaves one linear map to the output")
        ] = (),
        low_rank: Annotated[Count | None, Field(description="rank of the cross and gate matrices; null: full")] = None,
    ) -> None:
        super().__init__(shape, output_dim)
        width = shape.flat_dim
        self.structure = structure
        self.crosses = nn.ModuleList(_square(width, low_rank, bias=True) for _ in range(layers))
        self.gates = nn.ModuleList(_square(width, low_rank, bias=False) for _ in range(layers))
        self.mlp = MLP(width, hidden)
        self.head = Linear(self.mlp.output_dim + (width if structure == "parallel" else 0), output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        first = current = embeddings.flatten(1)
        by_hand = self.fused and not (autocasting(first) or torch.compiler.is_compiling())
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            if by_hand and isinstance(cross, nn.Linear):
                weights = cross.weight, cross.bias, gate.weight
                current = _GatedCross.apply(first, current, *weights)  # type: ignore[no-untyped-call]
            else:
                current = first * cross(current) * torch.sigmoid(gate(current)) + current
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


class _GatedCross(torch.autograd.Function):
    """``c_0 * (W_c c + b) * sigmoid(W_g c) + c`` in three passes over (B, F*D).

    With s = sigmoid(W_g c) and p = (W_c c + b) * s, which the products write themselves, the backward pass needs no
    other value: d(W_c c) = g c_0 s and d(W_g c) = g c_0 p (1 - s). Both lie side by side, so that the gradients of c
    and of the two weights are one product each.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, current: Tensor, cross: Tensor, bias: Tensor, gate: Tensor) -> Tensor:
        passed = product(current, gate, None, "sigmoid")
        crossed = product_times(current, cross, bias, passed)
        ctx.save_for_backward(first, current, cross, gate, passed, crossed)
        return torch.addcmul(current, first, crossed)

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, current, cross, gate, passed, crossed = ctx.saved_tensors
        width = current.shape[1]
        scaled = gradient * first
        sides = gradient.new_empty(len(gradient), 2 * width)
        to_cross, to_gate = sides[:, :width], sides[:, width:]
        torch.mul(scaled, passed, out=to_cross)
        scaled.mul_(crossed)
        torch.addcmul(scaled, scaled, passed, value=-1, out=to_gate)
        weights = outer(sides, current)
        return (
            gradient * crossed,
            product_plus(sides, torch.cat([cross, gate]).t(), gradient),
            weights[:width],
            to_cross.sum(0),
            weights[width:],
        )
