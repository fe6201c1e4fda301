"""FM: the products of all pairs of fields, pooled into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.pairs import need_pairs
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["FM"]


@INTERACTIONS.register("fm", paper="Rendle, ICDM 2010; He and Chua, SIGIR 2017")
class FM(FeatureInteraction):
    """Factorisation machine: elementwise products of all pairs of fields, summed into one vector (bi-interaction).

    The sum over pairs is that of Rendle (ICDM 2010). It is kept as a vector of width D, as in the bi-interaction
    pooling of neural FM (He and Chua, SIGIR 2017), where a factorisation machine sums it to one number::

        pooled = sum_{i<j} e_i * e_j = 1/2 ( (sum_i e_i)^2 - sum_i e_i^2 )
        output = W MLP(pooled) + b

    The first-order term and the logit are left out. The MLP has ReLU after every layer; without widths it is the
    identity. With widths this is neural FM. The output does not depend on the order of the fields.

    Args:
        shape: sizes of the input. output_dim: O. hidden: widths of the MLP.

    Raises:
        UsageError: with fewer than two fields.

    >>> import torch
    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> FM(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    ignores_field_order = True

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        hidden: Annotated[
            Sequence[Count],
            Field(description="hidden widths of an MLP on the pooled vector (neural FM); [] leaves one linear map"),
        ] = (),
    ) -> None:
        super().__init__(shape, output_dim)
        need_pairs(shape, "fm")
        self.mlp = MLP(shape.embedding_dim, hidden)
        self.head = Linear(self.mlp.output_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        pooled = 0.5 * (embeddings.sum(1).square() - embeddings.square().sum(1))  # (B, D)
        output: Tensor = self.head(self.mlp(pooled))
        return output
