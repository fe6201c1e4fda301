"""AutoInt: self-attention between fields."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.linear import Linear
from recbole_dtn.registry import INTERACTIONS

__all__ = ["AutoInt"]


@INTERACTIONS.register("autoint", paper="Song et al., CIKM 2019 (arXiv 1810.11921)")
class AutoInt(FeatureInteraction):
    """Multi-head self-attention between fields, with a linear residual.

    AutoInt (Song et al., CIKM 2019). Layer l, with E (F, I) what it reads (at first the embeddings), head h of H::

        A_h  = softmax( (E Q_h) (E K_h)^T )                          (F, F), each row sums to 1
        E'   = ReLU( [A_1 (E V_1) ; .. ; A_H (E V_H)] + E R )        (F, H d)
        output = W flat(E_L) + b

    Q_h, K_h and V_h are (I, d), R is (I, H d); none has a bias. R is there also where I and H d agree. With ``scale``
    the products in the softmax are divided by sqrt(d), as in Transformers; the paper does not. Without ``residual``
    the term E R is absent.

    Args:
        shape: sizes of the input. output_dim: O.
        layers: L. heads: H. head_dim: d. scale: whether scores are divided by sqrt(d). residual: whether there is an R.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> AutoInt(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        layers: Annotated[Count, Field(description="attention layers")] = 3,
        heads: Annotated[Count, Field(description="heads of each layer")] = 2,
        head_dim: Annotated[Count, Field(description="width of each head")] = 32,
        scale: Annotated[bool, Field(description="scores divided by the square root of head_dim")] = False,
        residual: Annotated[bool, Field(description="a linear map of a layer's input is added to its output")] = True,
    ) -> None:
        super().__init__(shape, output_dim)
        width = heads * head_dim
        reads = [shape.embedding_dim, *[width] * (layers - 1)]
        self.layers = nn.ModuleList(
            FieldAttention(read, heads, head_dim, scale=scale, residual=residual) for read in reads
        )
        self.head = Linear(shape.num_fields * width, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        current = embeddings
        for layer in self.layers:
            current = layer(current)
        output: Tensor = self.head(current.flatten(1))
        return output


class FieldAttention(nn.Module):
    """One layer of :class:`AutoInt`.

    Args:
        input_dim: I. heads: H. head_dim: d. scale, residual: as of :class:`AutoInt`.

    Attributes:
        projections: Q, K, V of all heads and R, one below the other: (4 H d, I), or (3 H d, I) without R.
    """

    def __init__(self, input_dim: int, heads: int, head_dim: int, *, scale: bool, residual: bool) -> None:
        super().__init__()
        self.heads, self.residual = heads, residual
        self.factor = head_dim**-0.5 if scale else 1.0
        # One product for all of them: each alone is narrow.
        self.projections = Linear(input_dim, (4 if residual else 3) * heads * head_dim, bias=False)

    def forward(self, fields: Tensor) -> Tensor:
        """(B, F, I) -> (B, F, H d)."""
        parts = self.projections(fields).chunk(4 if self.residual else 3, dim=2)
        # (B, H, F, d) of each of the three
        queries, keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts[:3])
        weights = torch.softmax(self.factor * (queries @ keys.transpose(2, 3)), dim=3)  # (B, H, F, F)
        mixed = (weights @ values).transpose(1, 2).flatten(2)
        return torch.relu(mixed + parts[3] if self.residual else mixed)
