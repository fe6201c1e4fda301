"""Area under the precision-recall curve: the average precision, exact."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.kept import RowsMetric
from recbole_dtn.metric.runs import run_starts
from recbole_dtn.registry import METRICS

__all__ = ["AveragePrecision", "average_precision"]


def average_precision(rows: Rows) -> float:
    """``sum_n (R_n - R_{n-1}) P_n`` over the distinct scores from the top; NaN without a positive.

    >>> average_precision(Rows(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0.0, 0.0, 1.0, 1.0])))
    0.8333333333333333
    """
    scores = rows.logits.numpy()
    mass = rows.mass.numpy()
    if not len(scores) or np.isnan(scores).any():
        return math.nan
    order = np.argsort(-scores)
    starts = run_starts(scores[order])
    positives = np.add.reduceat(np.where(rows.labels.numpy()[order] > 0.5, mass[order], 0.0), starts)
    precision = np.cumsum(positives) / np.cumsum(np.add.reduceat(mass[order], starts))
    whole = positives.sum()
    return float((positives * precision).sum() / whole) if whole > 0 else math.nan


@METRICS.register("pr_auc")
class AveragePrecision(RowsMetric):
    """Area under the precision-recall curve, as the average precision.

    ``sum_n (R_n - R_{n-1}) P_n``, with recall R_n and precision P_n of the rows whose score is at least the n-th
    distinct one: rows of one score count together, in any order, and nothing is interpolated (scikit-learn's
    ``average_precision_score``). Scores that tell nothing have the share of positives, so that values of tasks with
    different shares cannot be compared. Undefined without a positive.

    >>> metric = AveragePrecision()
    >>> metric.update(torch.tensor([-1.0, 2.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    >>> metric.compute()
    tensor(0.8333, dtype=torch.float64)
    """

    higher_is_better = True
    by_default = False

    def compute(self) -> Tensor:
        return torch.tensor(average_precision(self.rows()), dtype=torch.float64)
