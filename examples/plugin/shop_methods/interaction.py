"""Products of all pairs of fields."""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.registry import INTERACTIONS


@INTERACTIONS.register("shop_pairs", paper="an example")
class ShopPairs(FeatureInteraction):
    """Products of all pairs of fields, summed.

    ``y = W 1/2 ((sum_f e_f)^2 - sum_f e_f^2) + b``.
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of the products set to zero")] = 0.0,
    ) -> None:
        super().__init__(shape, output_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(shape.embedding_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """(B, F, D) -> (B, O)."""
        pairs = 0.5 * (embeddings.sum(1).square() - embeddings.square().sum(1))
        output: Tensor = self.head(self.dropout(pairs))
        return output
