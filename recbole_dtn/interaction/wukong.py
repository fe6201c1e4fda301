"""WuKong: stacked layers of a factorisation machine block and a linear compression of the fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["FactorizationBlock", "WuKong", "WuKongLayer"]


class Projection(nn.Module):
    """Y (n, k) from X (n, D): ``reshape(W_2 MLP(flat(C X)) + b_2)``, C (k, n) a linear compression.

    Args:
        count: n. width: D. rank: k. hidden: widths of the MLP.
    """

    def __init__(self, count: int, width: int, rank: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.shape = count, rank
        self.compress = Linear(count, rank, bias=False)
        self.mlp = MLP(rank * width, hidden)
        self.output = Linear(self.mlp.output_dim, count * rank)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D, n) -> (B, n, k)."""
        # (B, D, k) -> (B, k, D), so that the vectors lie one after another in the flat input.
        compressed = self.compress(vectors).transpose(1, 2).flatten(1)
        projection: Tensor = self.output(self.mlp(compressed)).unflatten(1, self.shape)
        return projection


class FactorizationBlock(nn.Module):
    """``FMB(X) = reshape(W MLP(LN(flat(X (X^T Y)))) + b, (n_F, D))``.

    Args:
        count: n. width: D. outputs: n_F. rank: k. hidden: widths of the MLP. attentive: whether Y depends on X.
    """

    def __init__(
        self, count: int, width: int, outputs: int, *, rank: int, hidden: Sequence[int], attentive: bool
    ) -> None:
        super().__init__()
        self.shape = outputs, width
        # Y^T (k, n) as the weight of a linear map over the vectors.
        self.project = Projection(count, width, rank, hidden) if attentive else Linear(count, rank, bias=False)
        self.attentive = attentive
        self.norm = nn.LayerNorm(count * rank)
        self.mlp = MLP(count * rank, hidden)
        self.output = Linear(self.mlp.output_dim, outputs * width)

    def forward(self, vectors: Tensor, across: Tensor) -> Tensor:
        """X as (B, n, D) and as (B, D, n) -> (B, n_F, D)."""
        projected = self.project(across)
        # X^T Y (B, D, k) first: the products of all pairs, (B, n, n), are never made.
        factors = torch.bmm(across, projected) if self.attentive else projected
        pairs = torch.bmm(vectors, factors).flatten(1)
        mixed: Tensor = self.output(self.mlp(self.norm(pairs))).unflatten(1, self.shape)
        return mixed


class WuKongLayer(nn.Module):
    """``X' = LN([FMB(X) ; W_L X] + R X)``, LN over D; R is the identity where n = n_F + n_L.

    Args:
        count: n. width: D. fm_outputs: n_F. linear_outputs: n_L. rank, hidden, attentive: of the FMB.
    """

    def __init__(self, count: int, width: int, fm_outputs: int, linear_outputs: int, **options: Any) -> None:
        super().__init__()
        self.factorization = FactorizationBlock(count, width, fm_outputs, **options)
        self.compress = Linear(count, linear_outputs, bias=False)
        outputs = fm_outputs + linear_outputs
        self.residual = None if count == outputs else Linear(count, outputs, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, n, D) -> (B, n_F + n_L, D)."""
        # Contiguous: two or three products read it.
        across = vectors.transpose(1, 2).contiguous()
        mixed = torch.cat([self.factorization(vectors, across), self.compress(across).transpose(1, 2)], dim=1)
        residual = vectors if self.residual is None else self.residual(across).transpose(1, 2)
        output: Tensor = self.norm(mixed + residual)
        return output


@INTERACTIONS.register("wukong", paper="Zhang et al., ICML 2024")
class WuKong(FeatureInteraction):
    """Stacked layers, each of pairwise products through an MLP beside a linear compression of the fields.

    WuKong (Zhang et al., ICML 2024, arXiv 2403.02545). X_0 is the embeddings (F, D); a layer maps X (n, D) to
    (n_F + n_L, D), so that its orders double::

        FMB(X) = reshape(W MLP(LN(flat(X (X^T Y)))) + b, (n_F, D))
        LCB(X) = W_L X
        X'     = LN([FMB(X) ; LCB(X)] + R X)
        output = W_o flat(X_L) + b_o

    Y is (n, k), W_L (n_L, n), R (n_F + n_L, n), all without a bias; R is the identity where n = n_F + n_L, as from the
    second layer on. LN inside FMB is over its n k inputs, the other over D. The MLP has ReLU after every layer.

    FuxiCTR ends the FMB with a ReLU and gives R a bias; TorchEasyRec, as here, does neither. With ``attentive``, Y
    depends on X, as specified here (the paper describes it in words)::

        Y = reshape(W_2 MLP_Y(flat(C X)) + b_2, (n, k)),   C (k, n), MLP_Y with the widths of MLP

    Args:
        shape: sizes of the input. output_dim: O.
        layers: L, at least 1.
        fm_outputs: n_F. linear_outputs: n_L. None for F: published settings have 40 on 39 fields.
        rank: k. hidden: widths of the MLP.
        attentive: whether Y depends on the input.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> WuKong(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        layers: Annotated[Count, Field(description="stacked layers")] = 3,
        fm_outputs: Annotated[
            Count | None, Field(description="vectors of a factorisation machine block; null: the number of fields")
        ] = None,
        linear_outputs: Annotated[
            Count | None, Field(description="vectors of a linear compression block; null: the number of fields")
        ] = None,
        rank: Annotated[Count, Field(description="columns of the projection Y")] = 8,
        hidden: Annotated[
            Sequence[Count], Field(description="hidden widths of a factorisation machine block's MLP")
        ] = (32, 32),
        attentive: Annotated[bool, Field(description="Y is computed from the input, not one for all rows")] = False,
    ) -> None:
        super().__init__(shape, output_dim)
        fm_outputs = fm_outputs or shape.num_fields
        linear_outputs = linear_outputs or shape.num_fields
        outputs, width = fm_outputs + linear_outputs, shape.embedding_dim
        self.layers = nn.Sequential(
            *(
                WuKongLayer(count, width, fm_outputs, linear_outputs, rank=rank, hidden=hidden, attentive=attentive)
                for count in [shape.num_fields, *[outputs] * (layers - 1)]
            )
        )
        self.head = Linear(outputs * width, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        output: Tensor = self.head(self.layers(embeddings).flatten(1))
        return output
