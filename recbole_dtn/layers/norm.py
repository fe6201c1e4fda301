"""Batch norm that a batch of one row does not stop."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor, nn

__all__ = ["BatchNorm"]


class BatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d``, with running statistics where a batch has one value per channel.

    In training, the mean and the variance are those of the batch, as ever. One value has no variance, and
    ``nn.BatchNorm1d`` raises there, which would end an epoch whose last batch has one row. Here such a batch is
    normalised by the running statistics, as in evaluation, and leaves them as they are.

    Args:
        num_features: C, channels of an input (B, C) or (B, C, L).

    >>> import torch
    >>> norm = BatchNorm(2)
    >>> norm.training, norm(torch.tensor([[3.0, -1.0]])).round(decimals=3).tolist(), norm.running_mean.tolist()
    (True, [[3.0, -1.0]], [0.0, 0.0])
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) or (B, C, L) -> the same shape."""
        if self.training and input.numel() == self.num_features:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)
