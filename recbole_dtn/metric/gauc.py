"""AUC within groups, such as users."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recbole_dtn.metric.base import Rows, undefined
from recbole_dtn.metric.kept import KeepingMetric
from recbole_dtn.metric.pairs import float_codes
from recbole_dtn.registry import METRICS

__all__ = ["GAUC", "group_aucs", "grouped_auc", "grouped_auc_with_error"]

Array = NDArray[Any]
By = Literal["impressions", "equal"]
RANK_BITS = 32
MOST_GROUPS = 1 << (63 - RANK_BITS)
BLOCK = 1 << 14
"""Rows that are counted at a time: the dozen arrays made of them stay in a core's cache."""


def grouped_auc(
    scores: Tensor, labels: Tensor, group: Tensor, weights: Tensor | None = None, by: By = "impressions"
) -> float:
    """Mean of the groups' AUC over the groups with both classes, each AUC exact, ties counted half.

    Every row becomes one unsigned 64-bit key, so that a single sort orders all groups at once::

        bit 63 ... 33   group        (31 bits)
        bit 32 ...  1   score        (32 bits: of float32 an order-preserving code, of float64 the rank)
        bit 0           label

    Args:
        scores: (N,) floats. labels: (N,), positive above 0.5. group: (N,) int64, any numbers.
        weights: (N,) weights of the rows, or None.
        by: what a group weighs in the mean: its ``impressions`` (the weights of its rows, 1 each without any), or all
            groups the same.

    Returns:
        NaN where no group has both classes (of some weight), or a score is NaN.

    >>> scores, labels = torch.tensor([0.9, 0.1, 0.2, 0.8, 0.5]), torch.tensor([1, 0, 1, 0, 0])
    >>> grouped_auc(scores, labels, torch.tensor([7, 7, 4, 4, 4])), grouped_auc(scores, labels, torch.zeros(5))
    (0.4, 0.6666666666666666)
    """
    return grouped_auc_with_error(scores, labels, group, weights, by)[0]


def grouped_auc_with_error(
    scores: Tensor, labels: Tensor, group: Tensor, weights: Tensor | None = None, by: By = "impressions"
) -> tuple[float, float]:
    """:func:`grouped_auc` and its standard error over the sample of groups.

    That of a ratio of means over the K groups with both classes, AUC_g with weight w_g (linearised)::

        var = K / (K - 1) sum_g w_g^2 (AUC_g - GAUC)^2 / (sum_g w_g)^2

    Returns:
        NaN twice where the mean is undefined; the error alone is NaN with one group.
    """
    values = scores.detach().numpy()
    if not len(values) or np.isnan(values).any():
        return math.nan, math.nan
    count, sums = 0, np.zeros(5)
    for found, size in _found(scores, labels, group, weights):
        share = size.astype(np.float64) if by == "impressions" else np.ones_like(found)
        moments = (share, share * found, share**2, share**2 * found, (share * found) ** 2)
        sums += [part.sum() for part in moments]
        count += len(found)
    whole, total, *squares = sums.tolist()
    if not whole > 0:
        return math.nan, math.nan
    mean = total / whole
    # sum_g w_g^2 (a_g - mean)^2, multiplied out; rounding may leave -1e-20.
    spread = max(squares[2] - 2 * mean * squares[1] + mean**2 * squares[0], 0.0)
    return mean, math.sqrt(spread * count / (count - 1)) / whole if count > 1 else math.nan


def group_aucs(
    scores: Tensor, labels: Tensor, group: Tensor, weights: Tensor | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC and weight (of its rows) of each group with both classes, in the order of the groups' numbers.

    >>> scores, labels = torch.tensor([0.9, 0.1, 0.2, 0.8, 0.5]), torch.tensor([1, 0, 1, 0, 0])
    >>> group_aucs(scores, labels, torch.tensor([7, 7, 4, 4, 4]))
    (array([0., 1.]), array([3., 2.]))
    """
    found = list(_found(scores, labels, group, weights)) if len(scores) else []
    return tuple(np.concatenate([[], *(part[side] for part in found)]) for side in (0, 1))  # type: ignore[return-value]


def _found(scores: Tensor, labels: Tensor, group: Tensor, weights: Tensor | None) -> Iterator[tuple[Array, Array]]:
    """:func:`group_aucs`, some groups at a time."""
    keys = _keys(scores.detach().numpy(), labels.numpy() > 0.5, group.numpy())
    mass = None
    if weights is None:
        keys.sort()  # in place
    else:
        order = keys.argsort()
        keys, mass = keys[order], weights.detach().double().numpy()[order]
    for start, stop in _blocks(keys):
        yield _auc_of_groups(keys[start:stop], None if mass is None else mass[start:stop])


def _keys(scores: Array, positive: Array, groups: Array) -> NDArray[np.uint64]:
    # Groups of other numbers are renumbered; the usual ones, from 0 up, are taken as they are.
    if groups.dtype.kind != "i" or groups.min() < 0 or groups.max() >= MOST_GROUPS:
        groups = np.unique(groups, return_inverse=True)[1]
    ranks = None if scores.dtype == np.float32 else np.unique(scores, return_inverse=True)[1]
    keys = np.empty(len(scores), np.uint64)
    for start in range(0, len(scores), BLOCK):  # a block at a time, so that nothing else is as long as the keys
        part = slice(start, start + BLOCK)
        codes = float_codes(scores[part]) if ranks is None else ranks[part].astype(np.uint64)
        keys[part] = (groups[part].astype(np.uint64) << np.uint64(RANK_BITS)) | codes
        keys[part] = (keys[part] << np.uint64(1)) | positive[part]
    return keys


def _blocks(keys: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Stretches of about ``BLOCK`` rows that end where a group does; a group longer than that is one stretch."""
    start = 0
    while start < len(keys):
        stop = min(start + BLOCK, len(keys))
        after = (int(keys[stop - 1]) >> (RANK_BITS + 1)) + 1
        # The first key of the next group; for the last possible group it does not fit into 64 bits.
        if after < MOST_GROUPS:
            stop += int(keys[stop:].searchsorted(np.uint64(after << (RANK_BITS + 1))))
        else:
            stop = len(keys)
        yield start, stop
        start = stop


def _auc_of_groups(keys: NDArray[np.uint64], mass: Array | None) -> tuple[Array, Array]:
    """AUC and weight of each group with both classes; without ``mass`` counted in integers."""
    positive = (keys & np.uint64(1)).astype(bool)
    # A run holds the rows of one group with one score: pairs within it are ties.
    starts = _starts(keys >> np.uint64(1))
    one = np.ones(len(keys), np.int64) if mass is None else mass
    positives = np.add.reduceat(np.where(positive, one, 0), starts)
    negatives = np.add.reduceat(np.where(positive, 0, one), starts)
    first = _starts(keys[starts] >> np.uint64(RANK_BITS + 1))  # the first run of each group
    # Weight of the negatives in lower runs; what lies before the group's first run is taken off.
    below = np.cumsum(negatives) - negatives
    below -= np.repeat(below[first], np.diff(first, append=len(starts)))
    # Twice the pairs in the right order, ties once.
    wins = np.add.reduceat(positives * (2 * below + negatives), first)
    positives, negatives = np.add.reduceat(positives, first), np.add.reduceat(negatives, first)
    both = (positives > 0) & (negatives > 0)
    positives, negatives = positives[both], negatives[both]
    return wins[both] / (2 * positives * negatives), positives + negatives


def _starts(ordered: Array) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    changes = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:])
    return np.flatnonzero(changes)


@METRICS.register("gauc", paper="Zhu et al., KDD 2017")
class GAUC(KeepingMetric):
    """AUC within each group (such as a user), averaged over the groups with both classes.

    ``sum_g w_g AUC_g / sum_g w_g``; w_g is the number of the group's rows (or the sum of their sample weights), or 1.
    Groups come from the setting ``group_field``, numbered over all splits; rows without a group form one group. The
    standard error is that of the sample of groups.

    Undefined (NaN) where no group has both classes. Keeps 8 bytes a row: 4 of the score (8 where logits are float64)
    and 4 of group and label (8 from 2^30 groups up), and 4 more with sample weights. ``compute`` joins them (as
    much again) and takes 13 bytes a row beside, and about 40 more with float64 logits or sample weights.

    >>> metric = GAUC()
    >>> scores, labels = torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    >>> metric.update(scores, labels, group=torch.tensor([0, 0, 1, 1]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = True
    needs_group = True
    kept = ("scores", "marks", "weights")

    def __init__(
        self,
        *,
        weights: Annotated[
            Literal["impressions", "equal"], Field(description="weight of a group: its rows, or all the same")
        ] = "impressions",
    ) -> None:
        super().__init__()
        self.by: By = weights

    def add(self, rows: Rows) -> None:
        assert rows.group is not None
        # Group and label in one number, which is narrow for all but huge numbers of groups.
        marks = rows.group * 2 + (rows.labels > 0.5)
        narrow = len(marks) == 0 or int(marks.max()) < 2**31
        self.keep("scores", rows.logits)
        self.keep("marks", marks.to(torch.int32 if narrow else torch.int64))
        if rows.weights is not None:
            self.keep("weights", rows.weights)

    def compute(self) -> Tensor:
        scores, marks, weights = map(self.whole, self.kept)
        if len(weights) not in (0, len(scores)):
            raise ValueError(f"sample weights of all rows or of none: {len(weights)} weights for {len(scores)} rows")
        if not len(scores):
            self.sampling_error = undefined()
            return undefined()
        given = weights if len(weights) else None
        found, error = grouped_auc_with_error(scores, (marks & 1).bool(), marks >> 1, given, self.by)
        self.sampling_error = torch.tensor(error, dtype=torch.float64)
        return torch.tensor(found, dtype=torch.float64)
