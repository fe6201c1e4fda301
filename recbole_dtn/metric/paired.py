"""Tests of the difference of two predictions for the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from recbole_dtn.config.metric_names import metric_name
from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.parts import metric_class
from recbole_dtn.metric.sums import SUMS, units_of_sums
from recbole_dtn.metric.uncertainty import auc_influence, error_of_influence

__all__ = ["LEAST_DRAWS", "Paired", "holm", "normal", "paired_auc", "paired_bootstrap"]

Floats = NDArray[np.float64]
LEAST_DRAWS = 2000
BLOCK = 1 << 22
"""Numbers in memory at a time in the bootstrap."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class Paired:
    """The difference of a metric between two predictions for the same rows.

    Attributes:
        difference: value of the first less that of the second. standard_error: of the difference.
        low, high: 95 % interval. p: two-sided, of no difference. NaN where undefined.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    p: float


def paired_auc(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, groups: Any = None
) -> Paired:
    """Test of the difference of two AUCs on the same rows (DeLong et al., Biometrics 1988).

    Normal, with the variance of the difference of the two predictions' influences, which takes in their covariance.
    Clustered where there are groups (Obuchowski, Biometrics 1997).

    Args:
        first, second: (N,) scores. labels: (N,), positive above 0.5. weights: (N,) or None. groups: (N,) or None.

    >>> found = paired_auc([0.1, 0.4, 0.35, 0.8], [0.1, 0.9, 0.35, 0.8], [0, 0, 1, 1])
    >>> found.difference, round(found.p, 3)
    (0.25, 0.48)
    """
    scores = [np.asarray(part, np.float64) for part in (first, second)]
    positive = np.asarray(labels) > 0.5
    mass = None if weights is None else np.asarray(weights, np.float64)
    clusters = None if groups is None else np.asarray(groups)
    if mass is not None:  # a row without weight is no observation
        kept = mass > 0
        scores, positive, mass = [part[kept] for part in scores], positive[kept], mass[kept]
        clusters = None if clusters is None else clusters[kept]
    (one, own), (two, other) = (auc_influence(part, positive, mass) for part in scores)
    error = math.nan if math.isnan(one - two) else error_of_influence(own - other, positive, clusters)
    return normal(one - two, error)


def normal(difference: float, error: float) -> Paired:
    """A difference with its standard error, tested as normal; NaN where the error is not above 0."""
    if not error > 0:  # NaN, or the two order all rows alike
        return Paired(difference, error, difference, difference, 1.0 if difference == 0 and error == 0 else math.nan)
    half = NORMAL.inv_cdf(0.975) * error
    return Paired(difference, error, difference - half, difference + half, 2 * NORMAL.cdf(-abs(difference) / error))


def paired_bootstrap(
    metric: str, first: Rows, second: Rows, *, draws: int = LEAST_DRAWS, seed: int = 2020, **options: Any
) -> Paired:
    """Test of the difference of any metric on the same rows, by resampling them with replacement.

    Whole groups are drawn where rows have groups, single rows otherwise; both predictions see the same draws. The
    interval is that of the percentiles. ``p`` is twice the smaller share of draws on one side of 0, at least
    ``2 / (draws + 1)``. A draw where the metric is undefined is left out.

    Args:
        metric: registered name. AUC and the sums (:data:`recbole_dtn.metric.sums.SUMS`) are vectorised; of others
            each draw costs two evaluations. options: of the metric.
        first, second: labels, weights, groups and domains must be the same. draws: at least 1; 2,000 for a p of .001.
        seed: of the draws.
    """
    if first.weights is not None:  # a row without weight is no observation
        first, second = (rows.take(rows.mass > 0) for rows in (first, second))
    units = _units(metric, first)
    values = [_values(metric, rows, units, options) for rows in (first, second)]
    number = int(units.max(initial=-1)) + 1
    one, two = (float(value(np.ones((1, number), np.int64))[0]) if number else math.nan for value in values)
    if math.isnan(one - two):
        return Paired(*[math.nan] * 5)
    difference = one - two
    blocks = _drawn(number, len(first), draws, seed)
    with np.errstate(invalid="ignore"):  # inf - inf: the NE where no positive was drawn
        differences = np.concatenate([values[0](counts) - values[1](counts) for counts in blocks])
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return Paired(difference, *[math.nan] * 4)
    if not differences.any() and difference == 0:
        return Paired(0.0, 0.0, 0.0, 0.0, 1.0)
    low, high = np.quantile(differences, [0.025, 0.975]).tolist()
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))
    return Paired(difference, float(differences.std(ddof=1)), low, high, p)


def _drawn(units: int, rows: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """(draws, units) how often each unit was drawn, some draws at a time."""
    random, done = np.random.default_rng(seed), 0
    while done < draws:
        size = min(draws - done, max(1, BLOCK // max(units, rows, 1)))
        taken = random.integers(units, size=(size, units))
        taken += units * np.arange(size)[:, None]
        yield np.bincount(taken.ravel(), minlength=size * units).reshape(size, units)
        done += size


def _units(metric: str, rows: Rows) -> NDArray[np.int64]:
    """Of each row the number of the unit that is drawn with it: its group or itself; of ``gauc``, each group."""
    if metric == "gauc":
        return np.arange(len(units_of_sums(metric, rows)))
    return np.arange(len(rows)) if rows.group is None else np.unique(rows.group.numpy(), return_inverse=True)[1]


def _values(
    metric: str, rows: Rows, units: NDArray[np.int64], options: dict[str, Any]
) -> Callable[[NDArray[np.int64]], Floats]:
    """A function that gives the metric, (draws,), when each unit counts as often as (draws, units) says."""
    if metric in SUMS and not options:
        terms, value = units_of_sums(metric, rows), SUMS[metric].value
        return lambda counts: value(torch.from_numpy(counts).double() @ terms).numpy()
    if metric == "auc":
        return _drawn_aucs(rows, units)
    return lambda counts: np.array([_evaluated(metric, rows, each[units], options) for each in counts])


def _drawn_aucs(rows: Rows, units: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], Floats]:
    """:func:`_values` of the AUC; the rows are sorted once for all draws."""
    order = np.argsort(rows.logits.numpy())
    ordered, units, mass = rows.logits.numpy()[order], units[order], rows.mass.numpy()[order]
    positive = (rows.labels.numpy() > 0.5)[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))

    def values(counts: NDArray[np.int64]) -> Floats:
        weights = counts[:, units] * mass
        # (draws, distinct scores): rows with one score count together, so that ties count half.
        won = np.add.reduceat(np.where(positive, weights, 0.0), starts, axis=1)
        lost = np.add.reduceat(np.where(positive, 0.0, weights), starts, axis=1)
        wins = (won * (np.cumsum(lost, axis=1) - 0.5 * lost)).sum(1)
        with np.errstate(invalid="ignore"):  # 0 / 0 where one class was not drawn: NaN
            found: Floats = wins / (won.sum(1) * lost.sum(1))
        return found

    return values


def _evaluated(metric: str, rows: Rows, counts: NDArray[np.int64], options: dict[str, Any]) -> float:
    """Any registered metric, by its contract that a row of weight k counts as k rows."""
    built = metric_class(metric)(**{**metric_name(metric).options, **options})
    mass = rows.mass * torch.from_numpy(counts)
    built.update(rows.logits, rows.labels, None, mass, rows.group, rows.domain)
    return float(built.compute())


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm, Scandinavian Journal of Statistics 1979); None stays uncounted.

    The i-th smallest of m is multiplied by ``m - i + 1``, is at least the one before it, and at most 1.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    found: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, value * (len(order) - rank)))
        found[place] = largest
    return found
