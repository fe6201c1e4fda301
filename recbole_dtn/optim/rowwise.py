"""Adagrad and plain gradient descent over the rows a batch looks up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from recbole_dtn.optim.rows import RowOptimizer

__all__ = ["SGD", "Adagrad", "RowwiseAdagrad"]


class RowwiseAdagrad(RowOptimizer):
    """Adagrad with one accumulator per row: 1/D of Adagrad's memory.

    For each touched row r with gradient g (duplicates summed first)::

        a_r <- a_r + mean_d(g_d^2)          w_r <- w_r - lr * g / (sqrt(a_r) + eps)

    which is ``EXACT_ROWWISE_ADAGRAD`` of FBGEMM and TorchRec.

    Args:
        params: tables, each (R, D). lr, eps: as above.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    def update(self, weight: Tensor, rows: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        if not state:
            state["sum"] = self.zeros(weight, weight.shape[0])
        # index_select copies: after it is written back, the copy may change in place.
        total = state["sum"].index_select(0, rows).add_(gradient.square().mean(1))
        state["sum"].index_copy_(0, rows, total)
        # (n, 1), the same for all D elements of a row; eps is outside of the root, as FBGEMM has it.
        root = total.sqrt_().add_(group["eps"]).unsqueeze(1)
        self.write(weight, rows, self.read(weight, rows).addcdiv_(gradient, root, value=-group["lr"]))


class Adagrad(RowOptimizer):
    """Adagrad (Duchi et al., JMLR 2011), one accumulator per element.

    For each touched row with gradient g: ``a <- a + g^2``, ``w <- w - lr * g / (sqrt(a) + eps)``. A row without a
    gradient would not move under dense Adagrad either, so the two are the same.

    Args:
        params: tables, each (R, D). lr, eps: as above.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    def update(self, weight: Tensor, rows: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        if not state:
            state["sum"] = self.zeros(weight, *weight.shape)
        total = state["sum"].index_select(0, rows).addcmul_(gradient, gradient)
        state["sum"].index_copy_(0, rows, total)
        root = total.sqrt_().add_(group["eps"])
        self.write(weight, rows, self.read(weight, rows).addcdiv_(gradient, root, value=-group["lr"]))


class SGD(RowOptimizer):
    """Gradient descent: ``w <- w - lr * g`` for each touched row. Keeps no state.

    Args:
        params: tables, each (R, D). lr: as above.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    def update(self, weight: Tensor, rows: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        self.write(weight, rows, self.read(weight, rows).sub_(gradient, alpha=group["lr"]))
