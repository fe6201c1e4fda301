"""DCN: crosses of the input with itself, one vector of weights per layer."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.linear import Linear
from recbole_dtn.registry import INTERACTIONS

__all__ = ["DCN"]


@INTERACTIONS.register("dcn", paper="Wang et al., ADKDD 2017")
class DCN(FeatureInteraction):
    """Deep and cross network: every layer multiplies the input by one number.

    With x_0 = flat(embeddings), width F*D, and L cross layers (eq. 3)::

        x_{l+1} = x_0 (w_l . x_l) + b_l + x_l
        output  = W x_L + b_o

    Args:
        shape: sizes of the input. output_dim: O. layers: L, at least 1.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> DCN(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self, shape: FieldShape, output_dim: int, *, layers: Annotated[Count, Field(description="cross layers")] = 3
    ) -> None:
        super().__init__(shape, output_dim)
        width = shape.flat_dim
        self.crosses = nn.ModuleList(Linear(width, 1, bias=False) for _ in range(layers))
        # Apart from the maps, whose output has the width 1: b_l is added after the product with x_0.
        self.biases = nn.ParameterList(torch.zeros(width) for _ in range(layers))
        self.head = Linear(width, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        first = current = embeddings.flatten(1)
        for cross, bias in zip(self.crosses, self.biases, strict=True):
            current = first * cross(current) + bias + current
        output: Tensor = self.head(current)
        return output
