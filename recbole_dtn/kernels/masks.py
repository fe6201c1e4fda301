"""MaskNet's instance-guided mask and the projection of what it masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.choice import by_hand
from recbole_dtn.kernels.first_order import first_order
from recbole_dtn.kernels.products import outer, product

__all__ = ["masked_projection"]


def masked_projection(embedding: Tensor, inputs: Tensor, mask: nn.Sequential, project: nn.Linear) -> Tensor:
    """``W (M * x) + b`` with ``M = W_2 ReLU(W_1 v + b_1) + b_2``.

    Args:
        embedding: v, (B, V). inputs: x, (B, I). mask: linear map V to A, ReLU, linear map A to I.
        project: W and b, I to O; b may be left out.

    Returns:
        (B, O).
    """
    inner, _, last = mask
    if by_hand(inputs, inner, last, project):
        projected: Tensor = _Masked.apply(  # type: ignore[no-untyped-call]
            embedding, inputs, inner.weight, inner.bias, last.weight, last.bias, project.weight, project.bias
        )
        return projected
    projected = project(mask(embedding) * inputs)
    return projected


class _Masked(torch.autograd.Function):
    """:func:`masked_projection`: the hidden layer, M and M * x are kept for the backward pass, nothing else."""

    @staticmethod
    def forward(
        ctx: Any,
        embedding: Tensor,
        inputs: Tensor,
        inner: Tensor,
        inner_bias: Tensor,
        last: Tensor,
        last_bias: Tensor,
        project: Tensor,
        project_bias: Tensor | None,
    ) -> Tensor:
        hidden = product(embedding, inner, inner_bias, "relu")
        mask = product(hidden, last, last_bias)
        masked = mask * inputs
        ctx.save_for_backward(embedding, inputs, inner, last, project, hidden, mask, masked)
        return product(masked, project, project_bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        embedding, inputs, inner, last, project, hidden, mask, masked = ctx.saved_tensors
        # d(M * x), (B, I). It becomes dM in place, once the gradient of x has been taken from it.
        to_masked = product(gradient, project.t())
        to_inputs = to_masked * mask if ctx.needs_input_grad[1] else None
        to_mask = to_masked.mul_(inputs)
        to_hidden = product(to_mask, last.t())
        # The gradient of the ReLU, written over its own input: passed on where ``hidden`` is positive.
        torch.ops.aten.threshold_backward(to_hidden, hidden, 0, grad_input=to_hidden)
        return (
            product(to_hidden, inner.t()) if ctx.needs_input_grad[0] else None,
            to_inputs,
            outer(to_hidden, embedding),  # W_1
            to_hidden.sum(0),
            outer(to_mask, hidden),  # W_2
            to_mask.sum(0),
            outer(gradient, masked),  # W
            gradient.sum(0) if ctx.needs_input_grad[7] else None,
        )
