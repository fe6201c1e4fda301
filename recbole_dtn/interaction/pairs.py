"""Pairs of fields, for interactions that compute something for each of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.bounds import Auto, auto_fields

__all__ = ["FieldPairs", "need_pairs"]


def need_pairs(shape: FieldShape, method: str) -> None:
    """Refuse fewer than two fields.

    Args:
        shape: sizes of the input. method: registered name of the interaction.

    Raises:
        UsageError: when there is no pair of fields.
    """
    if shape.num_fields < 2:
        raise UsageError(
            f"interaction '{method}': it multiplies pairs of fields and needs at least 2, but the data has "
            f"{shape.num_fields}: leave '{method}' out, or add an input field"
        )


class FieldPairs(nn.Module):
    """The P = F (F - 1) / 2 pairs of fields (i, j), i < j, in the order (0, 1), (0, 2), ..., (1, 2), ...

    Args:
        shape: sizes of the input. method: registered name of the interaction, for the error.
        top_fields: pairs among the q fields with most ids alone; None: all; ``auto``: all of up to 32 fields, else q
            = 32.

    Attributes:
        count: P. fields: number of fields that are in a pair. left, right: i and j of every pair, (P,).
        bounded: what ``auto`` left out, in words.

    Raises:
        UsageError: with fewer than two fields.

    >>> pairs = FieldPairs(FieldShape(3, 4, (), (5, 5, 5)), "fm")
    >>> pairs.left.tolist(), pairs.right.tolist()
    ([0, 0, 1], [1, 2, 2])
    """

    left: Tensor
    right: Tensor
    chosen: Tensor | None
    squares: Tensor

    def __init__(self, shape: FieldShape, method: str, top_fields: int | Auto | None = None) -> None:
        super().__init__()
        need_pairs(shape, method)
        fields, bounded = auto_fields(top_fields, shape)
        self.bounded = bounded and f"{method}: {bounded}"
        places = torch.triu_indices(len(fields), len(fields), offset=1)
        left, right = torch.tensor(fields)[places]
        self.register_buffer("left", left.contiguous(), persistent=False)
        self.register_buffer("right", right.contiguous(), persistent=False)
        self.count, self.fields = len(left), len(fields)
        # For inner products: the fields that are in a pair, None for all, and the pairs' places in a square of them.
        chosen = None if len(fields) == shape.num_fields else torch.tensor(fields)
        self.register_buffer("chosen", chosen, persistent=False)
        self.register_buffer("squares", places[0] * len(fields) + places[1], persistent=False)

    def lefts(self, fields: Tensor) -> Tensor:
        """The first field of every pair: (B, F, D) -> (B, P, D)."""
        # index_select takes half the time of fields[:, left] on a CPU, forward.
        return fields.index_select(1, self.left)

    def rights(self, fields: Tensor) -> Tensor:
        """The second field of every pair: (B, F, D) -> (B, P, D)."""
        return fields.index_select(1, self.right)

    def inner_products(self, embeddings: Tensor) -> Tensor:
        """``<e_i, e_j>`` of every pair: (B, F, D) -> (B, P)."""
        # All F * F products at once take less time than copies of both sides of P pairs.
        paired = embeddings if self.chosen is None else embeddings.index_select(1, self.chosen)
        return torch.bmm(paired, paired.transpose(1, 2)).flatten(1).index_select(1, self.squares)
