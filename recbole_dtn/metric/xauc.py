"""Share of the pairs of rows that a regression orders rightly."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.metric.base import undefined
from recbole_dtn.metric.concordance import ordered_pairs
from recbole_dtn.metric.kept import RowsMetric
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskKind

__all__ = ["XAUC"]


@METRICS.register("xauc", paper="Zhan et al., KDD 2022")
class XAUC(RowsMetric):
    """Share of the pairs of rows with different labels that the predictions order alike, ties counted half.

    ``sum_{y_i > y_j} [v_i > v_j] + [v_i = v_j] / 2``, over the number of such pairs; a pair weighs the product of its
    rows' sample weights. For labels 0 and 1 it is the AUC. All pairs are counted, in O(N log N)
    (:func:`~recbole_dtn.metric.concordance.ordered_pairs`), and none are drawn. Undefined where all labels are equal.

    >>> metric = XAUC()
    >>> metric.update(torch.tensor([5.0, 5.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]))
    >>> metric.compute()  # one tie among three pairs
    tensor(0.1667, dtype=torch.float64)
    """

    task_kind: ClassVar[TaskKind] = "regression"
    higher_is_better = True
    by_default = False

    def pairs(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
        """What :func:`ordered_pairs` gives for all rows; None without rows, or with a prediction that is NaN."""
        rows = self.rows()
        values = rows.logits.numpy()
        if not len(rows) or np.isnan(values).any():
            return None
        groups = np.zeros(len(rows), np.int64) if rows.group is None else rows.group.numpy()
        weights = None if rows.weights is None else rows.weights.numpy()
        return ordered_pairs(values, rows.labels.numpy(), groups, weights)

    def compute(self) -> Tensor:
        found = self.pairs()
        if found is None or not found[0][0] > 0:
            return undefined()
        return torch.tensor(found[1][0] / found[0][0], dtype=torch.float64)
