"""DCNv3: cross layers with a mask in half of their columns, of exponential and of linear order."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Rate
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import Auto, auto_rank
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.norm import BatchNorm
from recbole_dtn.layers.precision import full_precision, without_autocast
from recbole_dtn.registry import INTERACTIONS

__all__ = ["DCNv3", "MaskedCross"]

Depth = Annotated[int, Field(ge=0)]


class MaskedCross(nn.Module):
    """``x' = dropout(y * ([h ; h * ReLU(LN(h))] + b) + x)`` with ``h = W x``, BN of h first with ``batch_norm``.

    Args:
        width: d, even; W is (d/2, d), b (d,). heads: H, channels of BN. layer_norm: whether there is LN.
        batch_norm: whether there is BN. dropout: of x'. rank: of W, the product of two matrices; None: W itself.
    """

    def __init__(
        self, width: int, heads: int, *, layer_norm: bool, batch_norm: bool, dropout: float, rank: int | None = None
    ) -> None:
        super().__init__()
        self.linear: nn.Module
        if rank is None:
            self.linear = Linear(width, width // 2, bias=False)
        else:
            self.linear = nn.Sequential(Linear(width, rank, bias=False), Linear(rank, width // 2, bias=False))
        self.bias = nn.Parameter(torch.rand(width))
        self.batch_norm = BatchNorm(heads) if batch_norm else None
        self.layer_norm = nn.LayerNorm(width // 2) if layer_norm else None
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        """x and y (B, H, d) -> (B, H, d)."""
        crossed = self.linear(x)
        if self.batch_norm is not None:
            crossed = self.batch_norm(crossed)
        # The norm decides what the mask lets pass; the masked values are not normalised.
        mask = torch.relu(crossed if self.layer_norm is None else self.layer_norm(crossed))
        both = torch.cat([crossed, crossed * mask], dim=2) + self.bias
        output: Tensor = self.dropout(torch.addcmul(x, factor, both))
        return output


@INTERACTIONS.register("dcnv3", paper="Li et al., 2024 (arXiv 2407.13349)")
class DCNv3(FeatureInteraction):
    """Two cross networks side by side, one of exponential order (ECN) and one of linear order (LCN).

    DCNv3 (Li et al., 2024, arXiv 2407.13349). With x_0 the embeddings, the first halves of all fields before the
    second halves, d = F*D::

        h_l     = W_l x_l                               (d/2; BN(W_l x_l) with ``batch_norm``)
        m_l     = [h_l ; h_l * ReLU(LN(h_l))] + b_l     (ReLU(h_l) without ``layer_norm``)
        ECN:    x_{l+1} = x_l * m_l + x_l
        LCN:    x_{l+1} = x_0 * m_l + x_l               (order l + 1 after l layers, against 2^l of ECN)
        output  = W_o [x_ECN ; x_LCN] + b_o

    W_l has no bias, LN is inside the mask only, and dropout follows every layer. b_l starts as U(0, 1). With H heads
    every embedding is cut into H parts, each with halves of its own, d = F*D/H; the layers are the same for all
    heads, and the output reads them side by side.

    The paper trains a logit of each network too, with weights that compare their losses (Tri-BCE). That needs the
    label, which an interaction has not, so that it is no part of this module; nor is the mean of the two logits.

    ECN has order 2^L in the embeddings. It and the output map compute in float32 in mixed precision: a half-precision
    ECN overflows, or loses its digits, from about five layers on. With BN, an output depends on the other rows of the
    batch in training.

    Args:
        shape: sizes of the input. output_dim: O.
        exponential_layers: L of ECN; 0 leaves it out. linear_layers: L of LCN; 0 leaves it out.
        heads: H. layer_norm: whether there is LN. batch_norm: whether there is BN, over the rows and columns of a head.
        exponential_dropout: of ECN's layers. linear_dropout: of LCN's.
        low_rank: rank of W_l, then a product (d/2, r) (r, d); None: full, as in the paper; ``auto``: full up to d =
            512, 64 beyond.

    Raises:
        UsageError: if D is no multiple of 2 H, or there is no layer at all.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> DCNv3(shape, 6, heads=2)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        exponential_layers: Annotated[Depth, Field(description="cross layers of ECN; 0 leaves it out")] = 4,
        linear_layers: Annotated[Depth, Field(description="cross layers of LCN; 0 leaves it out")] = 4,
        heads: Annotated[int, Field(ge=1, description="parts of every embedding; embedding_dim / heads is even")] = 1,
        layer_norm: Annotated[bool, Field(description="layer norm inside the mask")] = True,
        batch_norm: Annotated[bool, Field(description="batch norm of every layer's product")] = False,
        exponential_dropout: Annotated[Rate, Field(description="dropout of ECN's layers")] = 0.1,
        linear_dropout: Annotated[Rate, Field(description="dropout of LCN's layers")] = 0.3,
        low_rank: Annotated[
            Count | Auto | None,
            Field(description="rank of the layers' matrices; null: full; auto: 64 where F*D / heads is above 512"),
        ] = "auto",
    ) -> None:
        super().__init__(shape, output_dim)
        _check(shape.embedding_dim, heads, exponential_layers + linear_layers)
        self.heads = heads
        width = shape.flat_dim // heads
        rank, bounded = auto_rank(low_rank, width)
        self.bounded = bounded and f"dcnv3: {bounded}"

        def network(layers: int, dropout: float) -> nn.ModuleList:
            return nn.ModuleList(
                MaskedCross(width, heads, layer_norm=layer_norm, batch_norm=batch_norm, dropout=dropout, rank=rank)
                for _ in range(layers)
            )

        self.exponential = network(exponential_layers, exponential_dropout)
        self.linear = network(linear_layers, linear_dropout)
        networks = (exponential_layers > 0) + (linear_layers > 0)
        self.head = Linear(networks * shape.flat_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        first = _halves(embeddings, self.heads)
        read: list[Tensor] = []
        if len(self.exponential):
            with without_autocast(embeddings):
                current = full_precision(first)
                for layer in self.exponential:
                    current = layer(current, current)
            read.append(current)
        if len(self.linear):
            current = first
            for layer in self.linear:
                current = layer(current, first)
            read.append(current)
        with without_autocast(embeddings):
            output: Tensor = self.head(full_precision(torch.cat(read, dim=2)).flatten(1))
        return output


def _halves(embeddings: Tensor, heads: int) -> Tensor:
    """(B, F, D) -> (B, H, F*D/H): head by head, the first halves of all fields, then the second halves."""
    rows, fields, width = embeddings.shape
    # (B, F, H, half, D/2H) -> (B, H, half, F, D/2H).
    parts = embeddings.reshape(rows, fields, heads, 2, width // (2 * heads)).permute(0, 2, 3, 1, 4)
    return parts.reshape(rows, heads, fields * width // heads)


def _check(width: int, heads: int, layers: int) -> None:
    if layers == 0:
        raise UsageError("dcnv3: exponential_layers and linear_layers are both 0: expected at least one layer")
    if width % (2 * heads):
        valid = [h for h in range(1, width + 1) if width % (2 * h) == 0]
        advice = f"these fit: {', '.join(map(str, valid))}" if valid else "choose an even embedding_dim"
        raise UsageError(
            f"dcnv3: heads: every head needs two halves of an embedding, and embedding_dim {width} is no multiple of "
            f"2 x {heads}; {advice}"
        )
