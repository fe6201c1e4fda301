"""Pairwise ranking loss within a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["pairwise_loss"]

BLOCK = 1 << 22
"""Pairs in memory at a time."""


def pairwise_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None, group: Tensor | None = None) -> Tensor:
    """Mean of ``softplus(-(z_i - z_j))`` over pairs of rows with ``y_i > y_j``, within groups where there are some.

    A pair weighs the product of its rows' weights. 0, with a gradient of 0, where there is no pair. Takes the product
    of the numbers of higher and lower rows in time (positives times negatives of a binary task), some at a time in
    memory.

    Args:
        logits: (N,) of observed rows. labels: (N,). weights, group: (N,) or None.

    >>> pairwise_loss(torch.tensor([2.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]))  # softplus(-2) and softplus(-1)
    tensor(0.2201)
    """
    higher = torch.nonzero(labels > labels.min()).squeeze(1) if len(labels) else torch.zeros_like(labels).long()
    lower = torch.nonzero(labels < labels.max()).squeeze(1) if len(labels) else higher

    def part(rows: Tensor, scores: Tensor) -> Tensor:
        """(2,) weighted loss and weight of the pairs whose higher row is one of ``rows``."""
        counted = labels[rows, None] > labels[lower]
        if group is not None:
            counted = counted & (group[rows, None] == group[lower])
        mass = counted.to(scores.dtype)
        if weights is not None:
            mass = mass * weights[rows, None] * weights[lower]
        each = functional.softplus(scores[lower] - scores[rows, None])
        return torch.stack([(mass * each).sum(), mass.sum()])

    # Rows of `higher` at a time; with several parts, each is computed again in the backward pass.
    parts = torch.split(higher, max(1, BLOCK // max(1, len(lower)))) if len(higher) else ()
    sums = logits.sum() * logits.new_zeros(2)
    for rows in parts:
        if len(parts) > 1 and logits.requires_grad:
            sums = sums + checkpoint(part, rows, logits, use_reentrant=False)
        else:
            sums = sums + part(rows, logits)
    return sums[0] / torch.where(sums[1] > 0, sums[1], 1.0).detach()
