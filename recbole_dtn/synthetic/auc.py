"""The AUC of true probabilities over any number of rows, in fixed memory."""

from __future__ import annotations

import numpy as np

from recbole_dtn.data.hashing import Floats

__all__ = ["AucSketch"]

BINS = 1 << 16
# Bins of 0.00073 in log-odds. Rare events have log-odds far below 0, hence the asymmetry.
LOW, HIGH = -32.0, 16.0


class AucSketch:
    """A histogram of log-odds: 65,536 bins from -32 to 16; rows of one bin count as ties (half a point a pair).

    Two AUCs come from it. ``best`` is the expected one, ``P(p_i > p_j)`` for i drawn with weight p and j with weight
    1 - p: what a model that knows every probability reaches on average. ``drawn`` is that model's AUC on the labels
    that were drawn. ``error`` bounds how far ties within bins can be off.
    """

    def __init__(self) -> None:
        # [0]: negatives, [1]: positives; expected ones, and those drawn.
        self.mass = np.zeros((2, BINS))
        self.labels = np.zeros((2, BINS))
        self.rows = 0
        self.expected = 0.0

    def add(self, p: Floats, label: Floats, weight: Floats | None = None, seen: Floats | None = None) -> None:
        """Add rows.

        Args:
            p: (n,) true probability. label: (n,) 0 or 1. weight: (n,) probability that the row counts at all.
            seen: (n,) 1 where it did count.
        """
        # log1p keeps the digits of a small p.
        odds = np.log(p) - np.log1p(-p)
        where = np.clip(((odds - LOW) * (BINS / (HIGH - LOW))).astype(np.int64), 0, BINS - 1)
        w = np.ones_like(p) if weight is None else weight
        s = np.ones_like(p) if seen is None else seen
        # A row counts as both classes in ``mass``, with the probability of each, and as one of them in ``labels``.
        for side, mass, drawn in ((0, w * (1 - p), s * (1 - label)), (1, w * p, s * label)):
            self.mass[side] += np.bincount(where, weights=mass, minlength=BINS)
            self.labels[side] += np.bincount(where, weights=drawn, minlength=BINS)
        self.rows += int(s.sum())
        self.expected += float((w * p).sum())

    @property
    def positives(self) -> int:
        """Positive labels among the rows that counted."""
        return int(self.labels[1].sum())

    @property
    def best(self) -> float | None:
        """Expected AUC of the true probabilities; None without rows."""
        return _auc(self.mass)

    @property
    def drawn(self) -> float | None:
        """AUC of the true probabilities on the labels drawn; None where one class is missing."""
        return _auc(self.labels)

    @property
    def error(self) -> float:
        """The most that ``best`` can be off: half the share of pairs that fell into one bin."""
        total = self.mass[0].sum() * self.mass[1].sum()
        return float((self.mass[0] * self.mass[1]).sum() / (2 * total)) if total else 0.0


def _auc(counts: Floats) -> float | None:
    negatives, positives = counts
    total = negatives.sum() * positives.sum()
    # Negatives in lower bins; those in the same bin count half.
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / total) if total else None
