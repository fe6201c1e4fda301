"""GDCN's gated cross."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.choice import by_hand
from recbole_dtn.kernels.first_order import first_order
from recbole_dtn.kernels.products import outer, product, product_plus, product_times

__all__ = ["gated_cross"]


def gated_cross(first: Tensor, current: Tensor, cross: nn.Module, gate: nn.Module) -> Tensor:
    """``c_0 * cross(c) * sigmoid(gate(c)) + c``.

    Args:
        first: c_0, (B, W). current: c, (B, W). cross: ``W_c c + b``. gate: ``W_g c``, without a bias. Both are linear
            maps of W onto itself, or any module that is one (low-rank, say), which is then computed plainly.

    Returns:
        (B, W).
    """
    if by_hand(current, cross, gate) and isinstance(cross, nn.Linear):
        crossed: Tensor = _GatedCross.apply(first, current, cross.weight, cross.bias, gate.weight)  # type: ignore[no-untyped-call]
        return crossed
    crossed = first * cross(current) * torch.sigmoid(gate(current)) + current
    return crossed


class _GatedCross(torch.autograd.Function):
    """``c_0 * (W_c c + b) * sigmoid(W_g c) + c`` in three passes over (B, F*D).

    The products write s = sigmoid(W_g c) and p = (W_c c + b) * s themselves, and the backward pass needs nothing else:
    d(W_c c) = g c_0 s and d(W_g c) = g c_0 p (1 - s).
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, current: Tensor, cross: Tensor, bias: Tensor, gate: Tensor) -> Tensor:
        passed = product(current, gate, None, "sigmoid")
        crossed = product_times(current, cross, bias, passed)
        ctx.save_for_backward(first, current, cross, gate, passed, crossed)
        # ``crossed`` is p, ``passed`` is s, in the names of the docstring.
        return torch.addcmul(current, first, crossed)

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, current, cross, gate, passed, crossed = ctx.saved_tensors
        width = current.shape[1]
        scaled = gradient * first
        # Layout: d(W_c c), then d(W_g c), side by side: the gradients of c and of both weights are one product each.
        sides = gradient.new_empty(len(gradient), 2 * width)
        to_cross, to_gate = sides[:, :width], sides[:, width:]
        torch.mul(scaled, passed, out=to_cross)
        scaled.mul_(crossed)
        torch.addcmul(scaled, scaled, passed, value=-1, out=to_gate)
        weights = outer(sides, current)
        return (
            gradient * crossed,  # c_0
            product_plus(sides, torch.cat([cross, gate]).t(), gradient),  # c, plus what the residual passes on
            weights[:width],
            to_cross.sum(0),
            weights[width:],
        )
