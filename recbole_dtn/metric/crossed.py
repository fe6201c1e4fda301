"""Bootstrap over seeds x users: the difference of two models, each trained with several seeds, on one test set.

A bootstrap of two crossed factors is conservative: what varies with seed and user together is counted up to three times
(Owen, Annals of Applied Statistics 2007, "The pigeonhole bootstrap").

Two things are drawn with replacement: the seeds, which both models share, and the users of the test rows (single rows
where there are no users). One set of draws of the users serves all models, seeds and tasks of a data set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recbole_dtn.metric.paired import Paired, normal
from recbole_dtn.metric.uncertainty import auc_influence, error_of_influence

__all__ = ["DRAWABLE", "Draws", "Sample", "drawn_values", "of_sample", "over_both", "sample_error"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DRAWABLE = ("auc", "rmse")
"""The metrics that can be drawn."""
COLUMNS = 64
"""Draws that are computed at a time: the block of counts of 10,000 rows then fits the cache of a core."""
EXACT = 30_000_000_000
"""Most rows x scores x draws of which every AUC is computed; beyond it an AUC is expanded to first order."""
MOST_KEPT = 1 << 29
"""Most bytes of counts that are kept from one model to the next."""
WHOLE = 1 << 24
"""Whole numbers up to this are exact in float32."""


@dataclass(frozen=True)
class Sample:
    """Test rows of one task.

    Attributes:
        labels: (N,) of the observed rows. units: (N,) number of the user of each row, or of the row.
        mass: (N,) sample weights, or None. grouped: whether units are users.
    """

    labels: NDArray[Any]
    units: Ints
    mass: Floats | None = None
    grouped: bool = True


class Draws:
    """How often each unit is drawn, ``units`` of them with replacement in each draw: the same whenever they are read.

    Args:
        units: number of units. number: of draws. seed: of the draws.

    >>> Draws(3, 2, seed=0).whole.sum(1).tolist()
    [3, 3]
    """

    def __init__(self, units: int, number: int, seed: int) -> None:
        self.units, self.number, self.seed = units, number, seed
        self._known: dict[int, NDArray[np.uint8]] = {}

    @classmethod
    def of(cls, counts: ArrayLike) -> Draws:
        """Of given counts (draws, units)."""
        given = np.asarray(counts, np.uint8)
        draws = cls(given.shape[1], len(given), 0)
        draws._known = {start: given[start : start + COLUMNS] for start in range(0, len(given), COLUMNS)}
        return draws

    def __len__(self) -> int:
        return self.number

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """The draws of each block, and their counts (draws, units). A count above 255 has a probability of nil."""
        for start in range(0, self.number, COLUMNS):
            place = slice(start, min(start + COLUMNS, self.number))
            counts = self._known.get(start)
            if counts is None:
                random = np.random.default_rng([self.seed, start])
                size = place.stop - start
                taken = (random.integers(self.units, size=self.units) for _ in range(size))
                counts = np.stack([np.bincount(of, minlength=self.units).astype(np.uint8) for of in taken])
                if self.number * self.units <= MOST_KEPT:
                    self._known[start] = counts
            yield place, counts

    @property
    def whole(self) -> NDArray[np.uint8]:
        """(draws, units), all of them."""
        return np.concatenate([counts for _, counts in self.blocks()])


def drawn_values(metric: str, scores: NDArray[Any], sample: Sample, draws: Draws) -> tuple[Floats, Floats]:
    """A metric of several models on the test rows as they are, and on every draw of them.

    Args:
        metric: one of :data:`DRAWABLE`. scores: (S, N), a line per model. sample: the rows. draws: of their units.

    Returns:
        (S,) values and (S, draws) drawn ones; NaN where a draw has one class.

    >>> sample = Sample(np.array([0, 1, 1]), np.arange(3))
    >>> drawn_values("auc", np.array([[0.1, 0.2, 0.0]]), sample, Draws.of([[1, 2, 0], [1, 1, 1], [0, 1, 2]]))
    (array([0.5]), array([[1. , 0.5, nan]]))
    """
    work = scores.size * len(draws)
    kinds = {"auc": _aucs if work <= EXACT else _expanded_aucs, "rmse": _rmses}
    return kinds[metric](scores, sample, draws)


def _aucs(scores: NDArray[Any], sample: Sample, draws: Draws) -> tuple[Floats, Floats]:
    # Whole counts are added exactly in float32 while they are small; it halves the memory that is read.
    exact = sample.mass is None and len(sample.labels) * 16 < WHOLE
    kind: Any = np.float32 if exact else np.float64
    ranked = [_Ranked(line, sample) for line in scores]
    space = _Space({}, kind)
    values = np.array([of.auc(np.ones((of.units, 1)), space)[0] for of in ranked])
    drawn = np.empty((len(scores), len(draws)))
    for place, counts in draws.blocks():
        # (units, draws): a row of the block is read whole for each test row of its unit.
        block = np.ascontiguousarray(counts.T)
        for line, of in enumerate(ranked):
            drawn[line, place] = of.auc(block, space)
    return values, drawn


@dataclass(frozen=True)
class _Space:
    """Arrays that are used again for every block of draws: new ones of this size would be cleared page by page."""

    arrays: dict[str, NDArray[Any]]
    kind: Any

    def __call__(self, name: str, rows: int, columns: int) -> NDArray[Any]:
        known = self.arrays.get(name)
        if known is None or known.shape[1] != columns or len(known) < rows:
            known = self.arrays[name] = np.empty((rows, columns), self.kind)
        return known[:rows]


class _Ranked:
    """The test rows of one model, sorted by score once for all draws.

    Running sums over the N negatives are taken in blocks of about sqrt(N) rows whose k-th rows are added at once, since
    numpy's own ``cumsum`` along the first axis takes ten times as long. Row ``k`` of block ``q`` is kept at ``(k, q)``.
    """

    def __init__(self, scores: NDArray[Any], sample: Sample) -> None:
        positive = sample.labels > 0.5
        high, low = (
            rows[np.argsort(scores[rows], kind="stable")] for rows in map(np.flatnonzero, (positive, ~positive))
        )
        self.units = int(sample.units.max(initial=-1)) + 1
        # Before the first negative the sum is 0; that and what fills the last block reads an added unit of count 0.
        self.size = max(1, math.isqrt(len(low) + 1))
        self.blocks = -(-(len(low) + 1) // self.size)
        read = np.full(self.size * self.blocks, self.units)
        read[1 : len(low) + 1] = sample.units[low]
        self.positives, self.negatives = sample.units[high], self._placed(read)
        self.mass: tuple[Floats, Floats] | None = None
        if sample.mass is not None:
            mass = np.zeros(len(read))
            mass[1 : len(low) + 1] = sample.mass[low]
            self.mass = sample.mass[high, None], self._placed(mass)[:, None]
        # Negatives below each positive, and below or equal: they differ where scores are tied, which count half.
        below, upto = (np.searchsorted(scores[low], scores[high], side) for side in ("left", "right"))
        self.tied = np.flatnonzero(below != upto)
        self.below, self.upto, self.last = map(self._place, (below, upto[self.tied], np.array([len(low)])))

    def _placed(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(values.reshape(self.blocks, self.size).T).ravel()

    def _place(self, number: Ints) -> Ints:
        found: Ints = number % self.size * self.blocks + number // self.size
        return found

    def auc(self, counts: NDArray[Any], space: _Space) -> Floats:
        """(draws,) from (units, draws) counts."""
        columns = counts.shape[1]
        known = space("counts", self.units + 1, columns)
        known[:-1], known[-1] = counts[: self.units], 0
        won = _taken(known, self.positives, space("won", len(self.positives), columns))
        sums = _taken(known, self.negatives, space("sums", len(self.negatives), columns))
        if self.mass is not None:
            won *= self.mass[0]
            sums *= self.mass[1]
        parts = sums.reshape(self.size, self.blocks, columns)
        for place in range(1, self.size):
            parts[place] += parts[place - 1]
        parts[:, 1:] += np.cumsum(parts[-1, :-1], axis=0)
        beaten = _taken(sums, self.below, space("beaten", len(self.below), columns))
        beaten[self.tied] = 0.5 * (beaten[self.tied] + sums[self.upto])
        wins = np.einsum("nb,nb->b", won, beaten).astype(np.float64)
        whole = (np.ones(len(won), won.dtype) @ won).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where one class was not drawn: NaN
            found: Floats = wins / (whole * sums[self.last[0]])
        return found


def _taken(values: NDArray[Any], rows: Ints, out: NDArray[Any]) -> NDArray[Any]:
    # mode="clip" writes into ``out`` directly.
    return np.take(values, rows, axis=0, out=out, mode="clip")


def _expanded_aucs(scores: NDArray[Any], sample: Sample, draws: Draws) -> tuple[Floats, Floats]:
    """First order: ``AUC + sum over units of count x influence``. Of many units the rest is small beside the spread."""
    values, influences = _influences(scores, sample)
    units = int(sample.units.max(initial=-1)) + 1
    of_units = np.stack([np.bincount(sample.units, line, units) for line in influences], axis=1)
    drawn = np.empty((len(scores), len(draws)))
    for place, counts in draws.blocks():
        drawn[:, place] = values[:, None] + (counts[:, :units] @ of_units).T
    return values, drawn


def _influences(scores: NDArray[Any], sample: Sample) -> tuple[Floats, Floats]:
    """AUC of each model (S,), and the influence of every row on it (S, N)."""
    found = [auc_influence(line, sample.labels > 0.5, sample.mass) for line in scores]
    return np.array([value for value, _ in found]), np.array([influence for _, influence in found])


def _rmses(scores: NDArray[Any], sample: Sample, draws: Draws) -> tuple[Floats, Floats]:
    mass = np.ones(len(sample.labels)) if sample.mass is None else sample.mass
    units = int(sample.units.max(initial=-1)) + 1
    squares = [np.bincount(sample.units, mass * (line - sample.labels) ** 2, units) for line in scores.astype(float)]
    terms = np.stack([np.bincount(sample.units, mass, units), *squares], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = [counts[:, :units] @ terms for _, counts in draws.blocks()]
        sums = np.concatenate([np.ones((1, units)) @ terms, *drawn])
        found = np.sqrt(sums[:, 1:] / sums[:, :1])
    return found[0], found[1:].T


# ---- differences ----------------------------------------------------------------------------------------------------


def over_both(mine: Floats, theirs: Floats, seed: int) -> Paired:
    """The difference of two models' means over seeds, with the interval of draws of seeds and of users at once.

    ``standard_error`` is the standard deviation of the draws, the interval that of their percentiles. ``p`` is twice
    the smaller share of draws on one side of 0, and at least ``2 / (draws + 1)``.

    Args:
        mine, theirs: (S, 1 + draws) values with the same S seeds; column 0 are the test rows as they are.
        seed: of the draws of seeds; each is of S seeds with replacement, the same of both models.
    """
    differences = mine - theirs  # (S, 1 + draws)
    number, draws = len(differences), differences.shape[1] - 1
    taken = np.random.default_rng([seed, number]).integers(number, size=(draws, number))
    weights = np.stack([(taken == place).mean(1) for place in range(number)])
    return _summed(float(differences[:, 0].mean()), _mean_of(differences[:, 1:], weights))


def of_sample(mine: Floats, theirs: Floats) -> Paired:
    """:func:`over_both` with all seeds in every draw: the uncertainty of the test sample alone."""
    differences = (mine - theirs).mean(0)
    return _summed(float(differences[0]), differences[1:])


def sample_error(mine: NDArray[Any], theirs: NDArray[Any], sample: Sample) -> Paired:
    """The test sample's uncertainty of a difference of mean AUCs over seeds, from DeLong's influences of the rows.

    The influence on a mean over seeds is the mean of the influences; see
    :func:`~recbole_dtn.metric.uncertainty.error_of_influence`.

    Args:
        mine, theirs: (S, N) scores of the same rows. sample: the rows, which are what was sampled.

    >>> scores = np.array([[0.1, 0.4, 0.35, 0.8]]), np.array([[0.1, 0.9, 0.35, 0.8]])
    >>> found = sample_error(*scores, Sample(np.array([0, 0, 1, 1]), np.arange(4), grouped=False))
    >>> found.difference, round(found.p, 3)
    (0.25, 0.48)
    """
    (one, own), (two, other) = (_influences(scores, sample) for scores in (mine, theirs))
    influence = own.mean(0) - other.mean(0)
    error = error_of_influence(influence, sample.labels > 0.5, sample.units if sample.grouped else None)
    return normal(float(one.mean() - two.mean()), error)


def _mean_of(differences: Floats, weights: Floats) -> Floats:
    """(draws,) weighted means over seeds; a seed of weight 0 does not count, whatever its value is."""
    found: Floats = np.where(weights > 0, weights * differences, 0.0).sum(0)
    return found


def _summed(difference: float, drawn: Floats) -> Paired:
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 2 or not math.isfinite(difference):
        return Paired(difference, *[math.nan] * 4)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    sides = int((drawn <= 0).sum()), int((drawn >= 0).sum())
    p = min(1.0, 2 * (min(sides) + 1) / (len(drawn) + 1))
    return Paired(difference, float(drawn.std(ddof=1)), low, high, p)
