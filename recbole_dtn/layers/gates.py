"""Softmax gates that read an input and weigh choices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recbole_dtn.layers.product import Linear, linear

__all__ = ["SoftmaxGate", "SoftmaxGates", "weigh_together"]


class SoftmaxGate(nn.Module):
    """``softmax(W x)`` over the choices: linear, without a bias, as in MMoE (eq. 8) and PLE (eq. 3).

    Args:
        input_dim: I. choices: K.
    """

    def __init__(self, input_dim: int, choices: int) -> None:
        super().__init__()
        self.linear = Linear(input_dim, choices, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, K), each row summing to 1."""
        return torch.softmax(self.linear(x), dim=1)


class SoftmaxGates(nn.Module):
    """One :class:`SoftmaxGate` per task over the same input.

    Args:
        input_dim: I. choices: K. count: T.

    >>> SoftmaxGates(3, choices=4, count=2)(torch.zeros(1, 3)).tolist()
    [[[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]]
    """

    def __init__(self, input_dim: int, choices: int, count: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(SoftmaxGate(input_dim, choices) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, T, K)."""
        return torch.stack([gate(x) for gate in self.gates], dim=1)


def weigh_together(gates: Sequence[SoftmaxGate], x: Tensor) -> list[Tensor]:
    """Several gates over one input: (B, I) -> (B, K) of each, all of them as one product."""
    weights = [gate.linear.weight for gate in gates]
    logits = torch.split(linear(x, torch.cat(weights)), [len(weight) for weight in weights], dim=1)
    return [torch.softmax(part, dim=1) for part in logits]
