"""Plain mean of the groups' AUC."""

from __future__ import annotations

from recbole_dtn.metric.gauc import GAUC
from recbole_dtn.registry import METRICS

__all__ = ["EqualGAUC"]


@METRICS.register("gauc_equal")
class EqualGAUC(GAUC):
    """AUC within each group, averaged over the groups with both classes, each group the same.

    ``gauc`` with ``weights: equal`` under a name of its own, so that both means can be computed side by side.

    >>> import torch
    >>> metric = EqualGAUC()
    >>> scores, labels = torch.tensor([2.0, -1.0, 0.5, 3.0, 1.0]), torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])
    >>> metric.update(scores, labels, group=torch.tensor([0, 0, 1, 1, 1]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    by_default = False

    def __init__(self) -> None:
        super().__init__(weights="equal")
