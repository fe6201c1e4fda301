"""The linear map that every layer is made of."""

from __future__ import annotations

from torch import Tensor, nn

from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.kernels.products import linear

__all__ = ["Linear"]


class Linear(nn.Linear, Fusible):
    """``nn.Linear`` whose product is :func:`recbole_dtn.kernels.products.linear` where it is fused."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return linear(input, self.weight, self.bias) if self.fused else super().forward(input)
