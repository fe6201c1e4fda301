"""CIN: xDeepFM's compressed interaction network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.kernels.products import linear
from recbole_dtn.layers.linear import Linear
from recbole_dtn.registry import INTERACTIONS

__all__ = ["CIN"]


@INTERACTIONS.register("cin", paper="Lian et al., KDD 2018 (arXiv 1803.05170)")
class CIN(FeatureInteraction):
    """Compressed interaction network of xDeepFM: each layer multiplies its vectors by all fields, and compresses them.

    CIN (Lian et al., KDD 2018). With X^0 the F embeddings, layer k has H_k vectors of width D::

        X^k_h  = act( sum_ij W^k_hij (X^{k-1}_i * X^0_j) )
        s^k_h  = sum over D of X^k_h
        output = W_o [s^1 ; .. ; s^L] + b_o

    ``half_split``: of every layer but the last, the first H_k / 2 vectors go on to layer k + 1 and only the others into
    the output (RecBole, DeepCTR). Without it all vectors do both, as in the paper. The activation is the identity by
    default, which the paper found best for CIN; RecBole and DeepCTR apply a ReLU. W^k has no bias (RecBole: one per
    vector).

    A layer keeps H_{k-1} F D numbers per row for the backward pass. Fused and without an activation, vectors that are
    in the output alone (all of the last layer, and the second halves of split ones) take much less: the sum over D is
    moved inside, ``s^k_h = sum_ij W^k_hij <X^{k-1}_i, X^0_j>``.

    Args:
        shape: sizes of the input. output_dim: O.
        layers: H_k, the vectors of every layer. activation: act. half_split: whether layers are split.

    Raises:
        UsageError: for no layers, or with ``half_split`` an odd number of vectors in a layer before the last.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> CIN(shape, 6, layers=[8])(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        layers: Annotated[Sequence[Count], Field(description="number of vectors in each layer")] = (64, 64),
        activation: Annotated[
            Literal["none", "relu"], Field(description="activation of each layer: none, or relu (RecBole, DeepCTR)")
        ] = "none",
        half_split: Annotated[
            bool,
            Field(description="half of a layer's vectors goes to the next layer, the other half to the output"),
        ] = False,
    ) -> None:
        super().__init__(shape, output_dim)
        self.activation = activation
        self.passed = _passed(list(layers), half_split)
        reads = [shape.num_fields, *self.passed[:-1]]
        self.layers = nn.ModuleList(
            Linear(read * shape.num_fields, vectors, bias=False) for read, vectors in zip(reads, layers, strict=True)
        )
        # Layers that pass nothing on or all of it are in the output as a whole, the others without what they pass on.
        kept = [size if passed == size else size - passed for size, passed in zip(layers, self.passed, strict=True)]
        self.head = Linear(sum(kept), output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        first = current = embeddings.transpose(1, 2)  # (B, D, F): a layer is one map of the last axis
        sums = []
        for layer, passed in zip(cast(Iterable[Linear], self.layers), self.passed, strict=True):
            # Vectors that no layer reads. Without an activation their sums over D need only those of the products.
            alone = layer.out_features - passed
            if alone and self.fused and self.activation == "none":
                pooled = torch.bmm(current.transpose(1, 2), first).flatten(1)  # (B, H' F)
                sums.append(linear(pooled, layer.weight[passed:]))
                current = linear(_products(current, first), layer.weight[:passed]) if passed else current
            else:
                vectors = layer(_products(current, first))  # (B, D, H)
                vectors = torch.relu(vectors) if self.activation == "relu" else vectors
                sums.append((vectors[..., passed:] if alone else vectors).sum(1))
                current = vectors[..., :passed]
        output: Tensor = self.head(torch.cat(sums, dim=1))
        return output


def _products(current: Tensor, first: Tensor) -> Tensor:
    """All ``X_i * X^0_j``: (B, D, H'), (B, D, F) -> (B, D, H' F), column ``i F + j``."""
    batch, width, vectors = current.shape
    # As a product of matrices: the gradients are products too, without a temporary of this size.
    outer = torch.bmm(current.reshape(batch * width, vectors, 1), first.reshape(batch * width, 1, -1))
    return outer.view(batch, width, -1)


def _passed(layers: list[int], half_split: bool) -> list[int]:
    """How many vectors of every layer the next one reads; the others are in the output alone."""
    if not layers:
        raise UsageError("interaction 'cin': 'layers' is an empty list: it needs a number of vectors for each layer")
    if not half_split:
        return [*layers[:-1], 0]
    odd = [vectors for vectors in layers[:-1] if vectors % 2]
    if odd:
        raise UsageError(
            "interaction 'cin': with 'half_split' every layer but the last needs an even number of vectors, found "
            f"{odd[0]} in 'layers: {layers}': {odd[0] + 1}, say, or 'half_split: false'"
        )
    return [*(vectors // 2 for vectors in layers[:-1]), 0]
