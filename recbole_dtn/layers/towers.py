"""The towers that end every model: one per task, each layer of all of them as one batched product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from recbole_dtn.layers.experts import is_small
from recbole_dtn.layers.first_order import first_order
from recbole_dtn.layers.mlp import Tower
from recbole_dtn.layers.product import Fusible, autocasting, prefers_onednn

__all__ = ["Towers"]

WIDEST = 1 << 15
"""Weights of a layer up to which the towers' products are batched. Two towers 128-64-1 over 4,096 rows, forward and
backward, take 2.3 ms on two threads instead of 2.7, six of them 7.8 instead of 9.6; three towers of 512-256-1 take 45
instead of 40, since MKL gives each product of a batch to one thread."""


class Towers(Fusible):
    """One :class:`Tower` per task. Their parameters stay apart, so that a task's own can be told from shared ones.

    Args:
        input_dim: H. hidden: hidden widths of each tower. count: T. dropout: after each hidden layer.

    >>> Towers(3, [4], count=2)(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], *, count: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.towers = nn.ModuleList(Tower(input_dim, hidden, dropout=dropout) for _ in range(count))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) -> logits (B, T); tower t reads ``x[:, t]``."""
        layers = [*zip(*(cast(Tower, tower).linear_maps() for tower in self.towers), strict=True)]
        if not self._batched(layers, x):
            return torch.stack([tower(part) for tower, part in zip(self.towers, x.unbind(1), strict=True)], dim=1)
        current = x.transpose(0, 1)
        for number, layer in enumerate(layers, 1):
            weights, biases = [each.weight for each in layer], [each.bias for each in layer]
            current = _Layer.apply(current, number < len(layers), *weights, *biases)  # type: ignore[no-untyped-call]
        return current.squeeze(2).t()

    def _batched(self, layers: Sequence[Sequence[nn.Linear]], x: Tensor) -> bool:
        """Few rows without a gradient have a quicker way; dropout draws its units tower by tower."""
        return (
            self.fused
            and len(self.towers) > 1
            and all(layer[0].weight.numel() <= WIDEST for layer in layers)
            and not (self.training and self.dropout > 0.0)
            and not is_small(x)
            and not autocasting(x)
            and not torch.compiler.is_compiling()
            and not (x.is_cpu and prefers_onednn())
        )


class _Layer(torch.autograd.Function):
    """A layer of T towers: x (T, B, I), then T weights (O, I) and T biases (O,) -> (T, B, O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, relu: bool, *parameters: Tensor) -> Tensor:
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
        to_weights = torch.bmm(gradient.transpose(1, 2), x)
        return to_x, None, *to_weights.unbind(0), *gradient.sum(1).unbind(0)
