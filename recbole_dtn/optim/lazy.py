"""Adam that moves touched rows only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from recbole_dtn.optim.rows import RowOptimizer

__all__ = ["LazyAdam"]


class LazyAdam(RowOptimizer):
    """Adam (Kingma and Ba, ICLR 2015) over the rows a batch looks up.

    At step t, counted for the whole table and not per row, for each touched row r with gradient g (duplicates summed)::

        m_r <- b1 m_r + (1 - b1) g          v_r <- b2 v_r + (1 - b2) g^2
        w_r <- w_r - lr * (m_r / (1 - b1^t)) / (sqrt(v_r / (1 - b2^t)) + eps)

    Moments of rows that are not touched neither decay nor move their row, unlike in ``torch.optim.Adam``; where every
    row is touched at every step the two are the same. ``torch.optim.SparseAdam`` differs in the place of eps only
    (it adds it before the correction of v) and is slower.

    Args:
        params: tables, each (R, D). lr, betas, eps: as above.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def update(self, weight: Tensor, rows: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        if not state:
            state["step"] = 0
            state["exp_avg"] = self.zeros(weight, *weight.shape)
            state["exp_avg_sq"] = self.zeros(weight, *weight.shape)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        first, second = state["exp_avg"], state["exp_avg_sq"]
        # lerp_: m + (1 - b1)(g - m). The selected rows are copies, written back before they change in place.
        mean = first.index_select(0, rows).lerp_(gradient, 1.0 - beta1)
        first.index_copy_(0, rows, mean)
        square = second.index_select(0, rows).mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        second.index_copy_(0, rows, square)
        root = square.sqrt_().div_(math.sqrt(1.0 - beta2 ** state["step"])).add_(group["eps"])
        # The correction of m is one number, so it goes into the rate.
        rate = group["lr"] / (1.0 - beta1 ** state["step"])
        self.write(weight, rows, self.read(weight, rows).addcdiv_(mean, root, value=-rate))
