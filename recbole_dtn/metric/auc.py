"""Area under the ROC curve, exact."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from recbole_dtn.metric.base import TaskMetric

__all__ = ["ExactAUC", "exact_auc"]


def exact_auc(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    """P(score of a positive > score of a negative) + P(equal) / 2, exactly: ties count half.

    Any increasing function of the probability will do as a score; logits do not saturate. Without weights and with
    scores of at most 32 bits, score and label are packed into one integer and sorted once, and the count is exact.

    Args:
        scores: (N,) floats. labels: (N,), positive above 0.5. weights: (N,) weights of the rows, or None.

    Returns:
        NaN where it is undefined: no row, one class only (or of no weight), or a score that is NaN.

    >>> exact_auc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
    0.875
    >>> exact_auc(torch.tensor([0.1, 0.4]), torch.tensor([1, 1]))
    nan
    """
    scores = scores.detach()
    if scores.numel() == 0 or bool(scores.isnan().any()):
        return math.nan
    positive = labels.detach() > 0.5
    if weights is None and scores.dtype != torch.float64:
        return _packed_auc(scores.float(), positive)
    return _weighted_auc(scores, positive, weights)


def _group_ends(ordered: Tensor) -> Tensor:
    """Last position of every run of equal values of a sorted (N,)."""
    last = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=last[:-1])
    return last.nonzero().squeeze(1)


def _packed_auc(scores: Tensor, positive: Tensor) -> float:
    # + 0.0 turns -0.0 into 0.0, whose bits differ. A float's bits grow with it when it is positive and fall when it is
    # negative: flipping the low 31 bits of the negative ones makes them grow everywhere.
    keys = (scores + 0.0).view(torch.int32).long()
    keys.bitwise_xor_((keys >> 31).bitwise_and_(0x7FFFFFFF)).mul_(2).add_(positive)
    packed = torch.sort(keys).values
    ends = _group_ends(packed >> 1)
    positives = packed.bitwise_and_(1).cumsum(0)[ends]
    negatives = ends + 1 - positives
    wins = (_steps(positives) * (2 * negatives - _steps(negatives))).sum()
    pairs = int(positives[-1]) * int(negatives[-1])
    return int(wins) / (2 * pairs) if pairs else math.nan


def _weighted_auc(scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
    mass = torch.ones_like(scores, dtype=torch.float64) if weights is None else weights.detach().double()
    ordered, order = torch.sort(scores)
    ends = _group_ends(ordered)
    positives = torch.where(positive, mass, 0.0)[order].cumsum(0)[ends]
    negatives = torch.where(positive, 0.0, mass)[order].cumsum(0)[ends]
    wins = (_steps(positives) * (2 * negatives - _steps(negatives))).sum()
    pairs = float(positives[-1] * negatives[-1])
    return float(wins) / (2 * pairs) if pairs > 0 else math.nan


def _steps(cumulated: Tensor) -> Tensor:
    return torch.diff(cumulated, prepend=cumulated.new_zeros(1))


class ExactAUC(TaskMetric):
    """Area under the ROC curve over all rows, ties counted half (Hanley and McNeil, 1982).

    Undefined (NaN) where only one class is observed. Keeps 5 bytes a row, 9 with sample weights.

    >>> metric = ExactAUC()
    >>> metric.update(torch.tensor([-1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 1.0]))
    >>> metric.compute()
    tensor(1., dtype=torch.float64)
    """

    higher_is_better = True
    scores: list[Tensor] | Tensor
    positive: list[Tensor] | Tensor
    weights: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("scores", "positive", "weights"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def add(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> None:
        assert isinstance(self.scores, list)
        assert isinstance(self.positive, list)
        assert isinstance(self.weights, list)
        self.scores.append(logits.float())
        self.positive.append((labels > 0.5).to(torch.uint8))
        if weights is not None:
            self.weights.append(weights.float())

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        # A process without a row must send an empty tensor of the type that the others send.
        for name, dtype in (("scores", torch.float32), ("positive", torch.uint8), ("weights", torch.float32)):
            if not len(getattr(self, name)):
                setattr(self, name, [torch.empty(0, dtype=dtype)])
        super()._sync_dist(dist_sync_fn, process_group)

    def compute(self) -> Tensor:
        if not len(self.scores):
            return torch.tensor(math.nan, dtype=torch.float64)
        scores, positive = dim_zero_cat(self.scores), dim_zero_cat(self.positive)
        weights = dim_zero_cat(self.weights) if len(self.weights) else None
        if weights is not None and weights.numel() == 0:
            weights = None
        if weights is not None and len(weights) != len(scores):
            raise ValueError(f"sample weights of all rows or of none: {len(weights)} weights for {len(scores)} rows")
        return torch.tensor(exact_auc(scores, positive, weights), dtype=torch.float64)
