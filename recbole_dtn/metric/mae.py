"""Mean absolute error."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from recbole_dtn.metric.base import Rows, TaskMetric
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskKind

__all__ = ["MAE"]


@METRICS.register("mae")
class MAE(TaskMetric):
    """Mean absolute error of a regression.

    ``sum w |v - y| / sum w``, w the sample weight or 1.

    >>> import torch
    >>> metric = MAE()
    >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    >>> metric.compute()
    tensor(2., dtype=torch.float64)
    """

    task_kind: ClassVar[TaskKind] = "regression"
    higher_is_better = False
    error: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("error")
        self.add_sum("weight")

    def add(self, rows: Rows) -> None:
        self.error += (rows.mass * self._error(rows.logits.double() - rows.labels.double())).sum()
        self.weight += rows.mass.sum()

    def _error(self, difference: Tensor) -> Tensor:
        return difference.abs()

    def compute(self) -> Tensor:
        # 0 / 0 is NaN: undefined without a row.
        return self.error / self.weight
