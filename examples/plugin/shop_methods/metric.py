"""The Brier score."""

from torch import Tensor

from recbole_dtn.metric.base import Rows, TaskMetric, undefined
from recbole_dtn.registry import METRICS


@METRICS.register("shop_brier", paper="Brier, 1950")
class ShopBrier(TaskMetric):
    """Mean squared distance of the probability from the label; undefined without rows.

    ``sum_i w_i (p_i - y_i)^2 / sum_i w_i``.
    """

    higher_is_better = False
    needs_calibrated = True
    squares: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("squares")
        self.add_sum("total")

    def add(self, rows: Rows) -> None:
        """Count rows."""
        self.squares += (rows.mass * (rows.probabilities - rows.labels).square()).sum()
        self.total += rows.mass.sum()

    def compute(self) -> Tensor:
        """The score, NaN without rows."""
        return self.squares / self.total if self.total > 0 else undefined()
