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

    A pair weighs the product of its rows' weights. 0, with a gradient of 0, where there is no pair. Within groups the
    time grows with the pairs; else with the product of the numbers of higher and lower rows (positives times negatives
    of a binary task), of which some are in memory at a time.

    Args:
        logits: (N,) of observed rows. labels: (N,). weights, group: (N,) or None.

    >>> pairwise_loss(torch.tensor([2.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]))  # softplus(-2) and softplus(-1)
    tensor(0.2201)
    """
    pairs = None if group is None else _pairs_of_groups(labels, group)
    if pairs is None:
        sums = _sums_of_all(logits, labels, weights, group)
    else:
        higher, lower = pairs
        mass = torch.ones_like(logits[higher]) if weights is None else weights[higher] * weights[lower]
        each = functional.softplus(logits[lower] - logits[higher])
        sums = torch.stack([(mass * each).sum(), mass.sum()])
    # Tied to the logits even without a pair, so that there is a gradient.
    return sums[0] / torch.where(sums[1] > 0, sums[1], 1.0).detach() + 0.0 * logits.sum()


def _pairs_of_groups(labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows (P,) and (P,) of the pairs, the higher label first; None where groups are too large for it."""
    _, number, sizes = torch.unique(group, return_inverse=True, return_counts=True)
    if int(sizes.square().sum()) > BLOCK:
        return None
    order = torch.argsort(number)
    size = sizes[number[order]]
    # Every row with every row of its group: the k-th pair of a row is with the k-th row of the group.
    begin, pairs = (sizes.cumsum(0) - sizes)[number[order]], size.cumsum(0) - size
    first = torch.repeat_interleave(torch.arange(len(order), device=order.device), size)
    second = torch.arange(len(first), device=order.device) + torch.repeat_interleave(begin - pairs, size)
    higher, lower = order[first], order[second]
    kept = labels[higher] > labels[lower]
    return higher[kept], lower[kept]


def _sums_of_all(logits: Tensor, labels: Tensor, weights: Tensor | None, group: Tensor | None) -> Tensor:
    """(2,) weighted loss and weight of all pairs, as blocks of a matrix of higher and lower rows."""
    if not len(labels):
        return logits.new_zeros(2)
    higher = torch.nonzero(labels > labels.min()).squeeze(1)
    lower = torch.nonzero(labels < labels.max()).squeeze(1)

    def part(rows: Tensor, scores: Tensor) -> Tensor:
        counted = labels[rows, None] > labels[lower]
        if group is not None:
            counted = counted & (group[rows, None] == group[lower])
        mass = counted.to(scores.dtype)
        if weights is not None:
            mass = mass * weights[rows, None] * weights[lower]
        each = functional.softplus(scores[lower] - scores[rows, None])
        return torch.stack([(mass * each).sum(), mass.sum()])

    # Some rows of `higher` at a time; with several parts, each is computed again in the backward pass.
    parts = torch.split(higher, max(1, BLOCK // max(1, len(lower)))) if len(higher) else ()
    sums = logits.new_zeros(2)
    for rows in parts:
        if len(parts) > 1 and logits.requires_grad:
            sums = sums + checkpoint(part, rows, logits, use_reentrant=False)
        else:
            sums = sums + part(rows, logits)
    return sums
