"""Area under the ROC curve, exact."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.kept import KeepingMetric
from recbole_dtn.registry import METRICS

__all__ = ["ExactAUC", "exact_auc"]

Scores = NDArray[Any]
SLICE = 1 << 14
"""Scores searched for at a time. They and the part of the other class that they fall into fit in a core's cache."""
LEAST_PER_THREAD = 1 << 18


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
    return _auc_of_classes(values[mask], values[~mask])


def _sortable(scores: Tensor) -> Tensor:
    """As float32 where that holds every value, else as float64."""
    # An integer may need more than float32's 24 bits.
    wide = scores.dtype is torch.float64 or not scores.is_floating_point()
    return scores.double() if wide else scores.float()


def _auc_of_classes(positives: Scores, negatives: Scores) -> float:
    """AUC of two arrays of scores; both are sorted in place."""
    pairs = len(positives) * len(negatives)
    if not pairs:
        return math.nan
    # P(+ > -) = 1 - P(- > +) - P(=), and ties count half on both sides: counted the other way round, AUC is 1 - count.
    swapped = len(negatives) < len(positives)
    few, many = (negatives, positives) if swapped else (positives, negatives)
    # The larger class is cut into one piece per thread. The count is a sum over the pieces, so they are never merged.
    threads = max(1, min(torch.get_num_threads(), len(many) // LEAST_PER_THREAD))
    pieces = [few, *np.array_split(many, threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(np.ndarray.sort, pieces))
        if any(math.isnan(piece[-1]) for piece in pieces):  # NaN sorts last
            return math.nan
        below = sum(pool.map(_twice_below, [few] * threads, pieces[1:]))
    return (2 * pairs - below if swapped else below) / (2 * pairs)


def _twice_below(few: Scores, many: Scores) -> int:
    """Twice the pairs of a score of ``few`` and a smaller one of ``many``, plus the pairs of equals; both sorted."""
    # ``low`` is the number of elements of ``many`` below the whole slice. Only the part that the slice spans is
    # searched.
    total = low = 0
    for start in range(0, len(few), SLICE):
        part = few[start : start + SLICE]
        high = low + int(many[low:].searchsorted(part[-1], side="right"))
        found = many[low:high]
        left = found.searchsorted(part)
        total += 2 * (int(left.sum()) + low * len(part))
        # Clipped for the scores above all of ``found``, which tie with none.
        if len(found):
            tied = found[np.minimum(left, len(found) - 1)] == part
            if tied.any():
                total += int((found.searchsorted(part[tied], side="right") - left[tied]).sum())
        # The next slice starts at the last score of this one or above it.
        low += int(left[-1])
    return total


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

    Undefined (NaN) where only one class is observed. Keeps 4 bytes a row (8 where logits are float64), and as much
    again with sample weights: the scores of each class are kept separately, since their order does not matter.
    ``compute`` needs as much again to join a class.

    >>> metric = ExactAUC()
    >>> metric.update(torch.tensor([-1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 1.0]))
    >>> metric.compute()
    tensor(1., dtype=torch.float64)
    """

    higher_is_better = True
    kept = ("positives", "negatives", "positive_weights", "negative_weights")

    def add(self, rows: Rows) -> None:
        positive = rows.labels.float().numpy() > 0.5
        self._keep("positives", rows.logits, positive)
        self._keep("negatives", rows.logits, ~positive)
        if rows.weights is not None:
            self._keep("positive_weights", rows.weights, positive)
            self._keep("negative_weights", rows.weights, ~positive)

    def _keep(self, name: str, values: Tensor, rows: NDArray[np.bool_]) -> None:
        self.keep(name, torch.from_numpy(values.numpy()[rows]))  # numpy selects by a mask faster than torch

    def compute(self) -> Tensor:
        positives, negatives, *weights = map(self.whole, self.kept)
        rows, weighted = len(positives) + len(negatives), len(weights[0]) + len(weights[1])
        if weighted not in (0, rows):
            raise ValueError(f"sample weights of all rows or of none: {weighted} weights for {rows} rows")
        if weighted:
            labels = torch.cat([torch.ones_like(positives), torch.zeros_like(negatives)])
            found = exact_auc(torch.cat([positives, negatives]), labels, torch.cat(weights))
        else:
            found = _auc_of_classes(positives.numpy(), negatives.numpy())
        return torch.tensor(found, dtype=torch.float64)
