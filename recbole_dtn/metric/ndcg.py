"""NDCG of the first k rows of each group."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recbole_dtn.metric.base import Rows, undefined
from recbole_dtn.metric.kept import RowsMetric
from recbole_dtn.metric.runs import run_starts
from recbole_dtn.registry import METRICS

__all__ = ["NDCG", "GroupRanking", "RankedRuns"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankedRuns:
    """Rows of groups with a positive, ranked within their group; rows of one score form a run.

    Attributes:
        mass, positives: (R,) mass of each run's rows, and of its positive ones. before: (R,) mass of the group's rows
            with a higher score. first: (G,) the first run of each group.
    """

    mass: Floats
    positives: Floats
    before: Floats
    first: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows) -> tuple[RankedRuns, int]:
        """The ranking of at least one row, and the number of groups that are left out: without a positive."""
        assert rows.group is not None
        groups, scores, mass = rows.group.numpy(), rows.logits.numpy(), rows.mass.numpy()
        ones = np.where(rows.labels.numpy() > 0.5, mass, 0.0)
        order = np.lexsort((-scores, groups))
        groups, scores, mass, ones = groups[order], scores[order], mass[order], ones[order]
        starts = run_starts(groups, scores)
        mass, ones = np.add.reduceat(mass, starts), np.add.reduceat(ones, starts)
        first = run_starts(groups[starts])
        sizes = np.diff(first, append=len(starts))
        has_positive = np.add.reduceat(ones, first) > 0
        before = np.cumsum(mass) - mass
        before -= np.repeat(before[first], sizes)
        kept = np.repeat(has_positive, sizes)
        sizes = sizes[has_positive]
        return cls(mass[kept], ones[kept], before[kept], np.cumsum(sizes) - sizes), int((~has_positive).sum())

    def sums(self, values: Floats) -> Floats:
        """(G,) sums of (R,) values over the runs of each group."""
        found: Floats = np.add.reduceat(values, self.first)
        return found


class GroupRanking(RowsMetric):
    """Base of a mean over groups of a function of the first k rows; a subclass writes :meth:`of_groups`."""

    higher_is_better = True
    needs_group = True
    by_default = False

    def __init__(
        self, *, k: Annotated[int, Field(ge=1, le=10_000, description="rows at the top of each group")] = 10
    ) -> None:
        super().__init__()
        self.k = k
        self._groups = 0, 0

    @abstractmethod
    def of_groups(self, runs: RankedRuns) -> Floats:
        """(G,) the value of each group."""

    def compute(self) -> Tensor:
        rows = self.rows()
        self._groups = 0, 0
        if not len(rows) or bool(rows.logits.isnan().any()):
            return undefined()
        runs, left_out = RankedRuns.of(rows)
        self._groups = len(runs.first), left_out
        return torch.tensor(self.of_groups(runs).mean(), dtype=torch.float64) if len(runs.first) else undefined()

    def details(self) -> dict[str, Any]:
        return dict(zip(("groups", "groups_left_out"), self._groups, strict=True))


@METRICS.register("ndcg", paper="Järvelin and Kekäläinen, TOIS 2002; McSherry and Najork, ECIR 2008")
class NDCG(GroupRanking):
    """Normalised discounted cumulative gain of the first k rows, averaged over the groups with a positive.

    ``DCG = sum_{i <= k} y_(i) / log2(i + 1)`` over the group's rows by descending score, divided by that of the best
    order; every group weighs the same. Rows of one score share their places evenly, which is the expected value over
    their orders (McSherry and Najork, and scikit-learn's ``ndcg_score``).

    A row of sample weight w takes w places; of a fraction of a place it has that fraction of the discount. Undefined
    where no group has a positive; groups without one are left out, and counted under ``details`` in the record. The
    name ``ndcg@5`` is ``ndcg`` with ``k: 5``.

    >>> metric = NDCG(k=2)
    >>> metric.update(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.0, 1.0, 1.0]), group=torch.tensor([4, 4, 4]))
    >>> metric.compute()  # 1 / log2(3) over 1 + 1 / log2(3)
    tensor(0.3869, dtype=torch.float64)
    """

    def of_groups(self, runs: RankedRuns) -> Floats:
        depth = np.arange(min(self.k, int(np.ceil((runs.before + runs.mass).max()))) + 1)
        discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(depth[1:] + 1))])

        def total(places: Floats) -> Floats:
            """The discounts of the places down to here; a fraction of a place has that fraction of its discount."""
            found: Floats = np.interp(places, depth, discounts)  # beyond k the last value
            return found

        shared = total(runs.before + runs.mass) - total(runs.before)
        found: Floats = runs.sums(runs.positives / runs.mass * shared) / total(runs.sums(runs.positives))
        return found
