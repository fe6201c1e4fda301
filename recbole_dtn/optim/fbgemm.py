"""FBGEMM's update rules for the tables that FBGEMM looks up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.layers.backends.fbgemm import TableBatched
from recbole_dtn.optim.rows import RowOptimizer

__all__ = ["FbgemmOptimizer"]


class FbgemmOptimizer(RowOptimizer):
    """FBGEMM's ``EXACT_ROWWISE_ADAGRAD``, ``EXACT_ADAGRAD`` or ``EXACT_SGD``, in ``step`` and not in the backward.

    A step hands the gradients of all look-ups to FBGEMM's kernel, which sums those of each row and updates the row. By
    then the balancer, AMP and DDP have done their part; updating inside the backward pass, as FBGEMM does, would save
    one look-up. The state has the names and shapes of :class:`RowwiseAdagrad` and :class:`Adagrad`, and can be loaded
    into them.

    Args:
        params: tables, each (R, D) float32, D a multiple of 4. rule: ``rowwise_adagrad``, ``adagrad`` or ``sgd``.
        lr, eps: as in :mod:`recbole_dtn.optim.rowwise`.
    """

    def __init__(self, params: Iterable[Tensor], rule: str, lr: float = 1e-2, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr} if rule == "sgd" else {"lr": lr, "eps": eps})
        self.rule = rule
        self.kernels: dict[Tensor, TableBatched] = {}

    # FBGEMM sums the look-ups of a row itself, so touched_rows is left out.
    def move(self, weight: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        if gradient.is_sparse:
            rows, values = gradient._indices().squeeze(0), gradient._values()
        else:
            rows, values = torch.arange(len(weight), device=weight.device), gradient
        self.update(weight, rows, values, state, group)

    def update(self, weight: Tensor, rows: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        """As :meth:`RowOptimizer.update`, but a row may come several times."""
        if not state and self.rule != "sgd":
            shape = weight.shape if self.rule == "adagrad" else weight.shape[:1]
            state["sum"] = self.zeros(weight, *shape)
        # Loading a state or moving the model gives other memory, over which a new kernel is built.
        kernel, total = self.kernels.get(weight), state.get("sum")
        if kernel is None or not kernel.lies_over(weight, total):
            kernel = self.kernels[weight] = TableBatched(weight, self.rule, total)
        kernel.update(rows, gradient, lr=float(group["lr"]), eps=float(group.get("eps", 0.0)))
