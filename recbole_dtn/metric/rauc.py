"""Share of rightly ordered pairs of a regression within groups, such as users."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.metric.base import undefined
from recbole_dtn.metric.xauc import XAUC
from recbole_dtn.registry import METRICS

__all__ = ["RAUC"]


@METRICS.register("rauc")
class RAUC(XAUC):
    """Ranking AUC of a regression: ``xauc`` within each group (such as a user), averaged over the groups.

    ``sum_g w_g XAUC_g / sum_g w_g`` over the groups that hold two different labels; w_g is the number of the group's
    rows (or the sum of their sample weights), its number of pairs, or 1. With ``weights: pairs`` it is the share of all
    pairs of one group that are in the right order. Papers use the name for several of these; say which was reported.

    Undefined where no group has two different labels. The record keeps the numbers of ``groups`` that count and that
    do not under ``details``.

    >>> metric = RAUC()
    >>> values, labels = torch.tensor([1.0, 2.0, 2.0, 1.0, 0.0]), torch.tensor([1.0, 3.0, 1.0, 3.0, 3.0])
    >>> metric.update(values, labels, group=torch.tensor([7, 7, 9, 9, 9]))  # right; and wrong twice
    >>> metric.compute()  # (2 * 1 + 3 * 0) / 5
    tensor(0.4000, dtype=torch.float64)
    """

    needs_group = True

    def __init__(
        self,
        *,
        weights: Annotated[
            Literal["impressions", "equal", "pairs"],
            Field(description="weight of a group: its rows, all the same, or its pairs with different labels"),
        ] = "impressions",
    ) -> None:
        super().__init__()
        self.by = weights
        self._groups = 0, 0

    def compute(self) -> Tensor:
        found = self.pairs()
        if found is None:
            self._groups = 0, 0
            return undefined()
        has_pairs = found[0] > 0
        pairs, right, rows = (part[has_pairs] for part in found)
        self._groups = len(pairs), int((~has_pairs).sum())
        weights = {"impressions": rows, "equal": np.ones_like(rows), "pairs": pairs}[self.by]
        if not len(pairs):
            return undefined()
        return torch.tensor((weights * right / pairs).sum() / weights.sum(), dtype=torch.float64)

    def details(self) -> dict[str, Any]:
        return dict(zip(("groups", "groups_left_out"), self._groups, strict=True))
