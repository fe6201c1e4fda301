"""A table of rows that a batch looks up: the fused embedding table, and a codebook."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

__all__ = ["RowTable"]


class RowTable(nn.Embedding):
    """``rows`` vectors of width ``dim``, initialised N(0, std).

    A subclass of ``nn.Embedding`` because DDP learns only from that class that a gradient may be sparse.

    Attributes:
        sparse: whether gradients are sparse (for lazy and row-wise optimisers); the trainer sets it.
        l2: coefficient of the penalty on the rows a batch looks up; the trainer sets it.
        penalty: ``l2 / 2 * sum over look-ups of |row|^2 / B`` of the last training forward, else None.
    """

    def __init__(
        self, rows: int, dim: int, *, std: float, kind: Literal["embedding", "codebook"] = "embedding"
    ) -> None:
        super().__init__(rows, dim, _weight=torch.empty(rows, dim).normal_(0.0, std))
        self.kind = kind
        self.l2 = 0.0
        self.penalty: Tensor | None = None

    def look_up(self, rows: Tensor, *, batch_size: int) -> Tensor:
        """Rows (any shape of int64) -> the same shape + (dim,). ``batch_size`` is B of the penalty."""
        found = functional.embedding(rows, self.weight, sparse=self.sparse)
        self.penalty = None
        if self.training and self.l2 > 0.0:
            self.penalty = self.l2 / 2 * found.float().square().sum() / batch_size
        return found
