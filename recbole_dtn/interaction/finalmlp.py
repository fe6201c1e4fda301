"""FinalMLP: two MLPs over gated features, fused by a bilinear form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Rate
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["BilinearFusion", "ContextGate", "FinalMLP"]


class ContextGate(nn.Module):
    """``2 sigmoid(W_2 MLP(c) + b_2)``, one factor per column of the flat embeddings.

    c is the embeddings of the context fields, or a learned constant (D,), zero at first, if there is none: the gate
    is then the same for all rows.

    Args:
        shape: sizes of the input. context: positions of the context fields. hidden: widths of the MLP.
    """

    def __init__(self, shape: FieldShape, context: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        self.context = list(context)
        self.constant = None if context else nn.Parameter(torch.zeros(1, shape.embedding_dim))
        self.mlp = MLP(max(1, len(self.context)) * shape.embedding_dim, hidden)
        self.output = Linear(self.mlp.output_dim, shape.flat_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, F*D), or (1, F*D) without a context."""
        read = embeddings[:, self.context].flatten(1) if self.constant is None else self.constant
        gate: Tensor = 2.0 * torch.sigmoid(self.output(self.mlp(read)))
        return gate


class BilinearFusion(nn.Module):
    """``y = W_u u + W_v v + sum_h u_h^T W_h v_h + b``; u_h and v_h are the parts of u and v of head h.

    ``bilinear.weight`` holds all W_h: row o, column ``(h * a + i) * c + j`` is entry (i, j) of head h for output o,
    with a and c the widths of u_h and v_h.

    Args:
        width_u: of u. width_v: of v. output_dim: O. heads: H, which divides both widths.
    """

    def __init__(self, width_u: int, width_v: int, output_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear = Linear(width_u + width_v, output_dim)
        self.bilinear = Linear(width_u * width_v // heads, output_dim, bias=False)
        nn.init.xavier_normal_(self.bilinear.weight)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(B, width_u), (B, width_v) -> (B, O)."""
        parts_u, parts_v = u.unflatten(1, (self.heads, -1)), v.unflatten(1, (self.heads, -1))  # type: ignore[no-untyped-call]
        # (B, H, a, c): all heads and outputs are then one product.
        pairs = parts_u.unsqueeze(3) * parts_v.unsqueeze(2)
        fused: Tensor = self.linear(torch.cat([u, v], dim=1)) + self.bilinear(pairs.flatten(1))
        return fused


@INTERACTIONS.register("finalmlp", paper="Mao et al., AAAI 2023")
class FinalMLP(FeatureInteraction):
    """Two MLPs read differently gated features; a bilinear form of their outputs joins the linear one.

    FinalMLP (Mao et al., AAAI 2023, arXiv 2304.00902). With x = flat(embeddings) and, for stream s = 1, 2, the
    context c_s (embeddings of some fields, or a learned constant)::

        x_s    = x * 2 sigmoid(W_s MLP_gate_s(c_s) + b_s)        (x without ``selection``)
        u      = MLP_1(x_1),   v = MLP_2(x_2)
        output = W_u u + W_v v + sum_h u_h^T W_h v_h + b

    u_h and v_h are the h-th of H equal parts of u and v; W_h is (width of u / H, width of v / H, O). Every layer of
    the MLPs has ReLU, the last too. The bilinear term takes width_u * width_v * O / H products for a row. The
    published code has H = 1 for its single logit; here H is 8 by default, since there are O outputs. It also gives
    the contexts embedding tables of their own; here a context is the embeddings that the method reads anyway. W_h is
    drawn by Xavier's normal rule, as there.

    Args:
        shape: sizes of the input. output_dim: O.
        hidden1: widths of MLP_1. hidden2: widths of MLP_2. dropout: after each layer of both.
        heads: H.
        selection: whether the features are gated.
        context1: positions of the fields of c_1, in the order of the data set's ``fields``. context2: those of c_2.
        gate_hidden: widths of the gates' MLPs.

    Raises:
        UsageError: if H does not divide both last widths, or a context is not one of positions 0 to F-1.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> FinalMLP(shape, 6, context1=[0])(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        hidden1: Annotated[Sequence[Count], Field(description="hidden widths of the first MLP")] = (64, 64, 64),
        hidden2: Annotated[Sequence[Count], Field(description="hidden widths of the second MLP")] = (64, 64, 64),
        dropout: Annotated[Rate, Field(description="dropout after each layer of both MLPs")] = 0.0,
        heads: Annotated[Count, Field(description="heads of the bilinear fusion; divides both last widths")] = 8,
        selection: Annotated[bool, Field(description="a gate on the features of each MLP")] = True,
        context1: Annotated[
            Sequence[Annotated[int, Field(ge=0)]],
            Field(description="positions of the fields that the first gate reads; []: a learned constant"),
        ] = (),
        context2: Annotated[
            Sequence[Annotated[int, Field(ge=0)]],
            Field(description="positions of the fields that the second gate reads; []: a learned constant"),
        ] = (),
        gate_hidden: Annotated[Sequence[Count], Field(description="hidden widths of the gates")] = (64,),
    ) -> None:
        super().__init__(shape, output_dim)
        self.gates = None
        if selection:
            contexts = {"context1": context1, "context2": context2}
            for name, context in contexts.items():
                _check_context(name, context, shape.num_fields)
            self.gates = nn.ModuleList(ContextGate(shape, context, gate_hidden) for context in contexts.values())
        self.first = MLP(shape.flat_dim, hidden1, dropout=dropout)
        self.second = MLP(shape.flat_dim, hidden2, dropout=dropout)
        widths = self.first.output_dim, self.second.output_dim
        _check_heads(heads, *widths)
        self.fusion = BilinearFusion(*widths, output_dim, heads)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        x = embeddings.flatten(1)
        if self.gates is None:
            first = second = x
        else:
            first, second = (x * gate(embeddings) for gate in self.gates)
        fused: Tensor = self.fusion(self.first(first), self.second(second))
        return fused


def _check_context(name: str, context: Sequence[int], num_fields: int) -> None:
    wrong = [position for position in context if not 0 <= position < num_fields]
    if wrong:
        raise UsageError(
            f"finalmlp: {name}: {wrong[0]} is not the position of a field: expected 0 to {num_fields - 1}, in the "
            "order of the data set's fields"
        )
    if len(set(context)) < len(context):
        raise UsageError(f"finalmlp: {name}: {list(context)} names a field twice: leave one out")


def _check_heads(heads: int, width_u: int, width_v: int) -> None:
    if width_u % heads or width_v % heads:
        valid = [h for h in range(1, min(width_u, width_v) + 1) if width_u % h == 0 and width_v % h == 0]
        raise UsageError(
            f"finalmlp: heads: {heads} does not divide the last widths of hidden1 and hidden2 ({width_u} and "
            f"{width_v}); these do: {', '.join(map(str, valid))}"
        )
