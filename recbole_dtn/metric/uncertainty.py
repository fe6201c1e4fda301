"""Sampling error of a metric: how far it would move on another sample of test rows.

A standard error here is that of the rows, with the model held fixed: training again with another seed is another error.
Where rows come in groups (a user's impressions), whole groups are what was sampled, and rows of one group are not
independent: errors that ignore it are too small, or too large where groups hold both classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.metric.pairs import auc_of_classes, float_codes, sorted_placements

__all__ = ["auc_influence", "auc_with_error", "clustered_auc", "error_of_influence", "numbered"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
GROUP_BITS = np.uint64(32)
BLOCK = 1 << 20
"""Rows whose placements are summed by group at a time."""


def auc_with_error(
    scores: Tensor, labels: Tensor, weights: Tensor | None = None, groups: Tensor | None = None
) -> tuple[float, float]:
    """AUC, exact with ties counted half, and its standard error.

    Without groups the error is that of DeLong et al. (Biometrics 1988)::

        var = S_10 / m + S_01 / n

    where S_10 is the variance of the m positives' placements (the share of the negatives that each beats), and S_01
    that of the n negatives'. With groups it is that of Obuchowski (Biometrics 1997), which adds up the
    placements within each group and keeps the covariance of a group's positives and negatives; groups of one row give
    DeLong's. With weights, a row's deviation of placement counts by its weight: one row of weight 2 is one observation,
    and not two. Takes one sort, O(N log N).

    Args:
        scores: (N,) floats; probabilities or logits, only their order counts. labels: (N,), positive above 0.5.
        weights: (N,) or None; rows of weight 0 do not count. groups: (N,) integers, any numbers, or None.

    Returns:
        NaN twice where the AUC is undefined (one class, or a score that is NaN). The error alone is NaN with fewer than
        two rows of a class, or two groups that have it.

    >>> scores, labels = torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1])
    >>> auc_with_error(scores, labels)
    (0.875, 0.1767766952966369)
    >>> auc_with_error(scores, labels, groups=torch.tensor([0, 1, 0, 1]))
    (0.875, 0.0)
    """
    wide = scores.dtype is torch.float64 or not scores.is_floating_point()
    values = (scores.detach().double() if wide else scores.detach().float()).cpu().numpy()
    positive = (labels.detach().cpu() > 0.5).numpy()
    mass = None if weights is None else weights.detach().cpu().double().numpy()
    found = None if groups is None else groups.cpu().numpy()
    if mass is None and found is None:
        return auc_of_classes(values[positive], values[~positive])
    if mass is None and values.dtype == np.float32:
        assert found is not None
        return clustered_auc(values[positive], values[~positive], found[positive], found[~positive])
    if mass is not None:  # a row without weight is no observation
        kept = mass > 0
        values, positive, mass = values[kept], positive[kept], mass[kept]
        found = None if found is None else found[kept]
    auc, influence = auc_influence(values, positive, mass)
    return auc, error_of_influence(influence, positive, found)


def auc_influence(scores: Array, positive: Array, weights: Array | None = None) -> tuple[float, Floats]:
    """AUC, and the influence of each row on it: the deviation of its placement from the AUC, over its class's weight.

    ``u_i = w_i (V_i - AUC) / sum of w over the class of i``. The influences of a class add up to 0, and the variance of
    the AUC is about the sum of their squares.

    Args:
        scores: (N,) without NaN, else the result is NaN. positive: (N,) bool. weights: (N,) above 0, or None.

    >>> auc_influence(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    (0.875, array([ 0.0625, -0.0625, -0.0625,  0.0625]))
    """
    mass = np.ones(len(scores)) if weights is None else weights
    if not len(scores) or np.isnan(scores).any():
        return math.nan, np.full(len(scores), np.nan)
    order = np.argsort(scores)
    ordered, positives = scores[order], np.where(positive, mass, 0.0)[order]
    negatives = mass[order] - positives
    # Rows with one score count together, so that ties count half.
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(starts, append=len(ordered))
    won, lost = np.add.reduceat(positives, starts), np.add.reduceat(negatives, starts)
    whole = won.sum(), lost.sum()
    if not (whole[0] > 0 and whole[1] > 0):
        return math.nan, np.full(len(scores), np.nan)
    # Of a positive, the share of the negatives below it; of a negative, that of the positives above it.
    of_positives = (np.cumsum(lost) - 0.5 * lost) / whole[1]
    of_negatives = 1.0 - (np.cumsum(won) - 0.5 * won) / whole[0]
    auc = float((won * of_positives).sum() / whole[0])
    influence = np.empty(len(scores))
    influence[order] = positives / whole[0] * np.repeat(of_positives - auc, sizes) + negatives / whole[1] * np.repeat(
        of_negatives - auc, sizes
    )
    return auc, influence


def error_of_influence(influence: Floats, positive: Array, groups: Array | None = None) -> float:
    """Standard error of a statistic of two classes from the influence of each row; NaN with under two of a class.

    DeLong's without groups and Obuchowski's with them, see :func:`auc_with_error`. The influence on a difference of two
    AUCs, which is the difference of the influences, gives the error of the difference (the paired test).

    Args:
        influence: (N,). positive: (N,) bool. groups: (N,) integers, or None.
    """
    if groups is None:
        parts = [influence[positive], influence[~positive]]
        if min(map(len, parts)) < 2:
            return math.nan
        return math.sqrt(sum(float(np.square(part).sum()) * len(part) / (len(part) - 1) for part in parts))
    number = numbered(groups)
    length = int(number.max(initial=-1)) + 1
    (own, own_counts), (others, other_counts) = (
        _by_group(influence[rows], number[rows], 0.0, length) for rows in (positive, ~positive)
    )
    return _clustered_error(own, others, own_counts > 0, other_counts > 0)


def clustered_auc(
    positives: Array, negatives: Array, positive_groups: Array, negative_groups: Array
) -> tuple[float, float]:
    """AUC and its standard error with groups (see :func:`auc_with_error`), from float32 scores of each class.

    Score and group of a row are packed into one integer, so that a plain sort keeps them together::

        bit 63 ... 32   order-preserving code of the float32 score
        bit 31 ...  0   group

    >>> scores = np.array([0.4, 0.8], np.float32), np.array([0.1, 0.4], np.float32)
    >>> clustered_auc(*scores, np.array([7, 9]), np.array([3, 5]))
    (0.875, 0.1767766952966369)
    """
    if not len(positives) or not len(negatives) or np.isnan(positives).any() or np.isnan(negatives).any():
        return math.nan, math.nan
    if not all(_narrow(groups, 2 * (len(positives) + len(negatives))) for groups in (positive_groups, negative_groups)):
        numbers = numbered(np.concatenate([positive_groups, negative_groups]))
        positive_groups, negative_groups = numbers[: len(positives)], numbers[len(positives) :]
    # The smaller class first. Swapped, all deviations change their signs, and no product of two does.
    few, few_groups = _sorted(positives, positive_groups)
    many, many_groups = _sorted(negatives, negative_groups)
    swapped = len(many) < len(few)
    if swapped:
        few, few_groups, many, many_groups = many, many_groups, few, few_groups
    share, *placed = sorted_placements(few, many)
    groups = int(max(few_groups.max(), many_groups.max())) + 1
    (own, own_counts), (others, other_counts) = (
        _by_group(values, numbers, share, groups)
        for values, numbers in zip(placed, (few_groups, many_groups), strict=True)
    )
    error = _clustered_error(own / len(few), others / len(many), own_counts > 0, other_counts > 0)
    return (1.0 - share if swapped else share), error


def numbered(groups: Array) -> NDArray[np.int64]:
    """The groups as numbers from 0 up, not necessarily without gaps.

    >>> numbered(np.array([70_000, -3, 70_000])).tolist()
    [1, 0, 1]
    """
    if not len(groups):
        return np.zeros(0, np.int64)
    return groups.astype(np.int64) if _narrow(groups, 2 * len(groups)) else np.unique(groups, return_inverse=True)[1]


def _narrow(groups: Array, limit: int) -> bool:
    """Whether the numbers can index an array of about as many elements as there are rows."""
    limit = max(limit, 1 << 16)
    return groups.dtype.kind in "iu" and (not len(groups) or bool(groups.min() >= 0 and groups.max() < limit))


def _sorted(scores: Array, groups: Array) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Codes of the scores, ascending, and the groups of the same rows."""
    keys = float_codes(scores).astype(np.uint64)
    keys <<= GROUP_BITS
    keys |= groups.astype(np.uint64)
    keys.sort()
    return (keys >> GROUP_BITS).astype(np.uint32), keys.astype(np.uint32)


def _by_group(values: Floats, groups: Array, centre: float, length: int) -> tuple[Floats, NDArray[np.int64]]:
    """(length,) sums of the values' deviations from ``centre``, and how many there are."""
    sums, counts = np.zeros(length), np.zeros(length, np.int64)
    for start in range(0, len(values), BLOCK):
        part = slice(start, start + BLOCK)
        sums += np.bincount(groups[part], values[part] - centre, length)
        counts += np.bincount(groups[part], minlength=length)
    return sums, counts


def _clustered_error(positive: Floats, negative: Floats, has_positive: Array, has_negative: Array) -> float:
    """Obuchowski's error from the influences of each group's positives and negatives, summed (K,)."""
    counts = has_positive.sum(), has_negative.sum(), (has_positive | has_negative).sum()
    if min(counts) < 2:
        return math.nan
    products = (np.square(positive).sum(), np.square(negative).sum(), 2.0 * (positive * negative).sum())
    # Not below 0: the factor of the covariance is the least of the three. Rounding may still give -1e-20.
    variance = sum(float(total) * count / (count - 1) for total, count in zip(products, counts, strict=True))
    return math.sqrt(max(variance, 0.0))
