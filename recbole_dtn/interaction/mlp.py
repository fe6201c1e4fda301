"""MLP: a plain network on the concatenated embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["PlainMLP"]


@INTERACTIONS.register("mlp")
class PlainMLP(FeatureInteraction):
    """Plain multi-layer perceptron: no product of fields, the control for every other interaction.

    With h_0 = flat(embeddings), width F*D, and L hidden layers::

        h_{l+1} = ReLU(W_l h_l + b_l)
        output  = W h_L + b

    Args:
        shape: sizes of the input. output_dim: O. hidden: widths of the hidden layers; none leaves a linear map.

    >>> import torch
    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> PlainMLP(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        hidden: Annotated[
            Sequence[Count], Field(description="widths of the hidden layers (ReLU); [] leaves one linear map")
        ] = (256,),
    ) -> None:
        super().__init__(shape, output_dim)
        self.mlp = MLP(shape.flat_dim, hidden)
        self.head = Linear(self.mlp.output_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        output: Tensor = self.head(self.mlp(embeddings.flatten(1)))
        return output
