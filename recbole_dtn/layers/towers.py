"""The towers that end every model: one per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.towers import batched_towers, worth_batching
from recbole_dtn.layers.mlp import Tower

__all__ = ["Towers"]


class Towers(nn.Module):
    """One :class:`Tower` per task.

    Each tower has separate parameters, so that task-specific and shared parameters can be distinguished.

    Args:
        input_dim: H. hidden: hidden widths of each tower. count: T. dropout: after each hidden layer.

    >>> Towers(3, [4], count=2)(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], *, count: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.towers = nn.ModuleList(Tower(input_dim, hidden, dropout=dropout) for _ in range(count))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) -> logits (B, T); tower t reads ``x[:, t]``."""
        # Dropout draws its units tower by tower, so that a seed drops the same ones on both paths.
        if not (self.training and self.dropout > 0.0):
            layers = [*zip(*(cast(Tower, tower).linear_maps() for tower in self.towers), strict=True)]
            if worth_batching(layers, x):
                return batched_towers(layers, x)
        return torch.stack([tower(part) for tower, part in zip(self.towers, x.unbind(1), strict=True)], dim=1)
