"""Share of the groups that have a positive among their first k rows."""

from __future__ import annotations

import numpy as np

from recbole_dtn.metric.ndcg import Floats, GroupRanking, RankedRuns
from recbole_dtn.registry import METRICS

__all__ = ["Hit"]


@METRICS.register("hit")
class Hit(GroupRanking):
    """Share of the groups with a positive that have one among the k rows with the highest scores.

    Where the k-th place lies in a run of n rows with equal scores, of which m are positive and r have a place, the
    group counts the probability that a positive is among them in a random order::

        1 - C(n - m, r) / C(n, r) = 1 - prod_{i < r} (n - m - i) / (n - i)

    A row of sample weight w takes w places; of a fraction of a place it has that fraction of the next factor.
    Undefined where no group has a positive; groups without one are left out, and counted under ``details`` in the
    record. The name ``hit@5`` is ``hit`` with ``k: 5``.

    >>> import torch
    >>> metric = Hit(k=1)
    >>> scores, labels = torch.tensor([2.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    >>> metric.update(scores, labels, group=torch.tensor([0, 0, 1, 1]))
    >>> metric.compute()  # a miss, and a tie of a positive with a negative
    tensor(0.2500, dtype=torch.float64)
    """

    def of_groups(self, runs: RankedRuns) -> Floats:
        # Places of each run within the first k; none of its rows is a hit with this probability.
        places = np.clip(self.k - runs.before, 0.0, runs.mass)
        miss = np.where((runs.positives > 0) & (places > 0), 0.0, 1.0)
        parted = (places > 0) & (places < runs.mass) & (runs.positives > 0)
        miss[parted] = _none_among(places[parted], runs.mass[parted], runs.positives[parted])
        found: Floats = 1.0 - np.multiply.reduceat(miss, runs.first)
        return found


def _none_among(places: Floats, rows: Floats, positives: Floats) -> Floats:
    """Probability that ``places`` of ``rows`` rows, drawn without replacement, hold no positive.

    >>> _none_among(np.array([2.0]), np.array([4.0]), np.array([1.0])).round(9).tolist()
    [0.5]
    """
    found = np.ones(len(places))
    for step in range(int(np.ceil(places.max(initial=0.0)))):
        share = np.clip(places - step, 0.0, 1.0)  # of this place
        going = share > 0
        left = np.maximum(rows[going] - positives[going] - step, 0.0) / (rows[going] - step)
        found[going] *= 1.0 - share[going] * (1.0 - left)
    return found
