"""Towers of one shape, each on its own input: a layer of all of them is one batched product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.choice import are_fused, by_hand, few_rows
from recbole_dtn.kernels.first_order import first_order
from recbole_dtn.kernels.products import prefers_onednn

__all__ = ["batched_towers", "worth_batching"]

WIDEST = 1 << 15
"""Weights of a layer up to which the towers' products are batched. Two towers 128-64-1 over 4,096 rows, forward and
backward, take 2.3 ms on two threads instead of 2.7, six of them 7.8 instead of 9.6; three towers of 512-256-1 take 45
instead of 40, since MKL gives each product of a batch to one thread."""


def worth_batching(layers: Sequence[Sequence[nn.Linear]], x: Tensor) -> bool:
    """Whether :func:`batched_towers` is allowed (every map is fused) and quicker than one tower after another.

    Args:
        layers: per layer, the maps of the T towers. x: (B, T, H).
    """
    return (
        by_hand(x)  # first: a compiler cannot trace the look at the processor below
        and len(layers[0]) > 1
        and not few_rows(x)  # few rows are faster one tower after another
        and not (x.is_cpu and prefers_onednn())
        and all(layer[0].weight.numel() <= WIDEST for layer in layers)
        and are_fused(*(each for layer in layers for each in layer))
    )


def batched_towers(layers: Sequence[Sequence[nn.Linear]], x: Tensor) -> Tensor:
    """``logit_t = W_L ReLU(... ReLU(W_1 x_t + b_1)) + b_L`` of T towers.

    Args:
        layers: per layer, the maps of the T towers; the last ones have one output. x: (B, T, H).

    Returns:
        (B, T).
    """
    # (T, B, H): one matrix of the batch per tower.
    current = x.transpose(0, 1)
    for number, layer in enumerate(layers, 1):
        weights, biases = [each.weight for each in layer], [each.bias for each in layer]
        current = _Layer.apply(current, number < len(layers), *weights, *biases)  # type: ignore[no-untyped-call]
    return current.squeeze(2).t()


class _Layer(torch.autograd.Function):
    """A layer of T towers: x (T, B, I), then T weights (O, I) and T biases (O,) -> (T, B, O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, relu: bool, *parameters: Tensor) -> Tensor:
        # Stacked anew in each pass, so that the towers' parameters stay apart in the optimiser and in state_dict.
        weight, bias = torch.stack(parameters[: len(x)]), torch.stack(parameters[len(x) :])
        output = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        if relu:
            output.relu_()
        ctx.save_for_backward(x, weight, output if relu else None)
        return output

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, output = ctx.saved_tensors
        if output is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.empty_like(x)  # in x's layout, which may be that of (B, T, I)
            torch.bmm(gradient, weight, out=to_x)
        # (T, O, B) x (T, B, I).
        to_weights = torch.bmm(gradient.transpose(1, 2), x)
        return to_x, None, *to_weights.unbind(0), *gradient.sum(1).unbind(0)
