"""Log loss measured against that of the base rate."""

from __future__ import annotations

import math

from torch import Tensor

from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.logloss import LogLoss
from recbole_dtn.registry import METRICS

__all__ = ["NormalisedEntropy", "entropy"]


def entropy(rate: float) -> float:
    """``-p log p - (1 - p) log(1 - p)`` in nats; NaN where at most one class occurs.

    >>> round(entropy(0.5), 6), entropy(0.0)
    (0.693147, nan)
    """
    if not 0.0 < rate < 1.0:
        return math.nan
    return -rate * math.log(rate) - (1.0 - rate) * math.log1p(-rate)


@METRICS.register("ne", paper="He et al., ADKDD 2014")
class NormalisedEntropy(LogLoss):
    """Log loss over the entropy of the mean label; below 1 is better than always predicting the base rate.

    ``logloss / (-r log r - (1 - r) log(1 - r))``, r = sum w y / sum w (He et al., ADKDD 2014, section 3). Undefined
    where only one class is observed.

    >>> import torch
    >>> metric = NormalisedEntropy()
    >>> metric.update(torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    >>> metric.compute()
    tensor(1., dtype=torch.float64)
    """

    needs_calibrated = True
    positives: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("positives")

    def add(self, rows: Rows) -> None:
        super().add(rows)
        self.positives += (rows.mass * rows.labels.double()).sum()

    def compute(self) -> Tensor:
        # The rate is NaN without a row, and the entropy of one class is NaN too.
        return self.loss / self.weight / entropy(float(self.positives / self.weight))
