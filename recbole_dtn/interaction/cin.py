"""CIN: xDeepFM's compressed interaction network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
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

    A layer keeps H_{k-1} F D numbers per row for the backward pass.

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
        self.activation, self.half_split = activation, half_split
        passed, kept = _split(list(layers), half_split)
        reads = [shape.num_fields, *passed[:-1]]
        self.layers = nn.ModuleList(
            Linear(read * shape.num_fields, vectors, bias=False) for read, vectors in zip(reads, layers, strict=True)
        )
        self.passed = passed
        self.head = Linear(sum(kept), output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        first = current = embeddings.transpose(1, 2)  # (B, D, F): a layer is one map of the last axis
        sums = []
        for position, layer in enumerate(self.layers):
            # (B, D, H', F): column i F + j of a layer's weight is W^k_hij.
            products = current.unsqueeze(3) * first.unsqueeze(2)
            found = layer(products.flatten(2))  # (B, D, H)
            if self.activation == "relu":
                found = torch.relu(found)
            last = position == len(self.layers) - 1
            split = self.half_split and not last
            sums.append(found[..., self.passed[position] :].sum(1) if split else found.sum(1))
            current = found[..., : self.passed[position]]
        output: Tensor = self.head(torch.cat(sums, dim=1))
        return output


def _split(layers: list[int], half_split: bool) -> tuple[list[int], list[int]]:
    """Vectors of every layer that the next one reads, and those that the head reads."""
    if not layers:
        raise UsageError("interaction 'cin': 'layers' is an empty list: it needs a number of vectors for each layer")
    odd = [vectors for vectors in layers[:-1] if vectors % 2]
    if half_split and odd:
        raise UsageError(
            f"interaction 'cin': with 'half_split' every layer but the last needs an even number of vectors, found "
            f"{odd[0]} in 'layers: {layers}': {odd[0] + 1}, say, or 'half_split: false'"
        )
    if not half_split:
        return layers, layers
    halves = [vectors // 2 for vectors in layers[:-1]]
    return [*halves, layers[-1]], [*halves, layers[-1]]
