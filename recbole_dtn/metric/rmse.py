"""Root of the mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_dtn.metric.mae import MAE
from recbole_dtn.registry import METRICS

__all__ = ["RMSE"]


@METRICS.register("rmse")
class RMSE(MAE):
    """Root of the mean squared error of a regression.

    ``sqrt(sum w (v - y)^2 / sum w)``, w the sample weight or 1.

    >>> metric = RMSE()
    >>> metric.update(torch.tensor([1.0, 9.0]), torch.tensor([2.0, 2.0]))
    >>> metric.compute()
    tensor(5., dtype=torch.float64)
    """

    def _error(self, difference: Tensor) -> Tensor:
        return difference.square()

    def compute(self) -> Tensor:
        return torch.sqrt(self.error / self.weight)
