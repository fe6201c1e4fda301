"""Area under the ROC curve, exact."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.kept import KeepingMetric, narrowed
from recbole_dtn.metric.pairs import auc_of_classes
from recbole_dtn.metric.uncertainty import auc_with_error
from recbole_dtn.registry import METRICS

__all__ = ["ExactAUC", "exact_auc"]


def exact_auc(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    """P(score of a positive > score of a negative) + P(equal) / 2, exactly: ties count half.

    A score may be any increasing function of the probability; logits are best, as they do not saturate. Without
    weights each class is sorted separately. For every score of the smaller class, the scores of the other class below
    it and equal to it are counted in integers, which are exact for up to 4e9 rows. On a CPU the work is spread over
    torch's threads.

    Args:
        scores: (N,) floats. labels: (N,), positive above 0.5. weights: (N,) weights of the rows, or None.

    Returns:
        NaN where it is undefined: no row, one class only (or of no weight), or a score that is NaN.

    >>> exact_auc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
    0.875
    >>> exact_auc(torch.tensor([0.1, 0.4]), torch.tensor([1, 1]))
    nan
    """
    scores = _sortable(scores.detach())
    labels = labels.detach()
    if weights is not None:
        return _weighted_auc(scores, labels > 0.5, weights)
    if scores.device.type != "cpu":
        positive = labels > 0.5
        return _device_auc(scores[positive], scores[~positive])
    values, mask = scores.numpy(), (labels.cpu() > 0.5).numpy()
    return auc_of_classes(values[mask], values[~mask])[0]


def _sortable(scores: Tensor) -> Tensor:
    """As float32 where that holds every value, else as float64."""
    # An integer may need more than float32's 24 bits.
    wide = scores.dtype is torch.float64 or not scores.is_floating_point()
    return scores.double() if wide else scores.float()


def _device_auc(positives: Tensor, negatives: Tensor) -> float:
    """AUC of two tensors of scores by torch's sort and search, for tensors on an accelerator."""
    pairs = len(positives) * len(negatives)
    if not pairs or bool(positives.isnan().any()) or bool(negatives.isnan().any()):
        return math.nan
    many, few = torch.sort(negatives + 0.0).values, torch.sort(positives + 0.0).values  # + 0.0: no -0.0
    left, right = torch.searchsorted(many, few), torch.searchsorted(many, few, right=True)
    return int(left.sum() + right.sum()) / (2 * pairs)


def _weighted_auc(scores: Tensor, positive: Tensor, weights: Tensor) -> float:
    if scores.numel() == 0 or bool(scores.isnan().any()):
        return math.nan
    mass = weights.detach().double()
    ordered, order = torch.sort(scores)
    ends = _group_ends(ordered)  # rows with one score count together, so that ties count half
    # Weight of all rows up to and including each distinct score.
    positives = torch.where(positive, mass, 0.0)[order].cumsum(0)[ends]
    negatives = torch.where(positive, 0.0, mass)[order].cumsum(0)[ends]
    # p (2 below + equal) = p (2 cumulated - own): below and equal are weights of negatives.
    wins = (_steps(positives) * (2 * negatives - _steps(negatives))).sum()
    pairs = float(positives[-1] * negatives[-1])
    return float(wins) / (2 * pairs) if pairs > 0 else math.nan


def _group_ends(ordered: Tensor) -> Tensor:
    """Last position of every run of equal values of a sorted (N,)."""
    last = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=last[:-1])
    return last.nonzero().squeeze(1)


def _steps(cumulated: Tensor) -> Tensor:
    return torch.diff(cumulated, prepend=cumulated.new_zeros(1))


@METRICS.register("auc", paper="Hanley and McNeil, 1982")
class ExactAUC(KeepingMetric):
    """Area under the ROC curve, exact, ties counted half.

    Undefined (NaN) where only one class is observed. Keeps 4 bytes a row (8 where logits are float64), as much again
    with sample weights, and 4 more with groups (8 from 2^31 groups up): the scores of each class are kept separately,
    since their order does not matter. ``compute`` needs as much again to join a class, and with groups 24 bytes a row
    (about 100 with sample weights or float64 logits).

    The standard error is DeLong's, or with groups Obuchowski's (:func:`auc_with_error`).

    >>> metric = ExactAUC()
    >>> metric.update(torch.tensor([-1.0, 2.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    >>> metric.compute(), metric.standard_error()
    (tensor(0.7500, dtype=torch.float64), tensor(0.3536, dtype=torch.float64))
    """

    higher_is_better = True
    kept = (
        "positives", "negatives", "positive_weights", "negative_weights", "positive_groups", "negative_groups"
    )  # fmt: skip

    def add(self, rows: Rows) -> None:
        positive = rows.labels.float().numpy() > 0.5
        groups = None if rows.group is None else narrowed(rows.group)
        for name, values in (("s", rows.logits), ("_weights", rows.weights), ("_groups", groups)):
            if values is not None:
                self._keep(f"positive{name}", values, positive)
                self._keep(f"negative{name}", values, ~positive)

    def _keep(self, name: str, values: Tensor, rows: NDArray[np.bool_]) -> None:
        self.keep(name, torch.from_numpy(values.numpy()[rows]))  # numpy selects by a mask faster than torch

    def compute(self) -> Tensor:
        positives, negatives, *rest = map(self.whole, self.kept)
        rows = len(positives) + len(negatives)
        for name, parts in (("sample weights", rest[:2]), ("groups", rest[2:])):
            if (given := len(parts[0]) + len(parts[1])) not in (0, rows):
                raise ValueError(f"{name} of all rows or of none: {given} {name.split()[-1]} for {rows} rows")
        weights, groups = (
            torch.cat(parts) if len(parts[0]) + len(parts[1]) else None for parts in (rest[:2], rest[2:])
        )
        if weights is None and groups is None:
            found = auc_of_classes(positives.numpy(), negatives.numpy())
        else:
            labels = torch.cat([torch.ones_like(positives), torch.zeros_like(negatives)])
            found = auc_with_error(torch.cat([positives, negatives]), labels, weights, groups)
        self.sampling_error = torch.tensor(found[1], dtype=torch.float64)
        return torch.tensor(found[0], dtype=torch.float64)
