"""Softmax gates that read an input and weigh choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.products import linear
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP

__all__ = ["SoftmaxGate", "SoftmaxGates", "weigh_together"]


class SoftmaxGate(nn.Module):
    """``softmax(W x)`` over the choices: linear, without a bias, as in MMoE (eq. 8) and PLE (eq. 3).

    Published code has gates with hidden layers, ``softmax(W MLP(x) + b)``, and with a bias.

    Args:
        input_dim: I. choices: K. hidden: widths of the gate's MLP, ReLU after each. bias: whether there is a b.

    Attributes:
        is_one_product: whether the logits are ``W x`` and nothing else.
    """

    def __init__(self, input_dim: int, choices: int, *, hidden: Sequence[int] = (), bias: bool = False) -> None:
        super().__init__()
        self.hidden = MLP(input_dim, hidden)
        self.linear = Linear(self.hidden.output_dim, choices, bias=bias)
        self.is_one_product = not hidden and not bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, K), each row summing to 1."""
        return torch.softmax(self.linear(self.hidden(x)), dim=1)


class SoftmaxGates(nn.Module):
    """One :class:`SoftmaxGate` per task over the same input.

    Args:
        input_dim: I. choices: K. count: T. hidden, bias: as of :class:`SoftmaxGate`.

    >>> SoftmaxGates(3, choices=4, count=2)(torch.zeros(1, 3)).tolist()
    [[[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]]
    """

    def __init__(
        self, input_dim: int, choices: int, count: int, *, hidden: Sequence[int] = (), bias: bool = False
    ) -> None:
        super().__init__()
        self.gates = nn.ModuleList(SoftmaxGate(input_dim, choices, hidden=hidden, bias=bias) for _ in range(count))

    def __iter__(self) -> Iterator[SoftmaxGate]:
        return (cast(SoftmaxGate, gate) for gate in self.gates)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, T, K)."""
        return torch.stack([gate(x) for gate in self.gates], dim=1)


def weigh_together(gates: Sequence[SoftmaxGate], x: Tensor) -> list[Tensor]:
    """Several gates over one input: (B, I) -> (B, K) of each, as one product where each gate is only one."""
    if not all(gate.is_one_product for gate in gates):
        return [gate(x) for gate in gates]
    # The rows of all gates one after another, (sum of K, I); each softmax is over its own gate's columns.
    weights = [gate.linear.weight for gate in gates]
    logits = torch.split(linear(x, torch.cat(weights)), [len(weight) for weight in weights], dim=1)
    return [torch.softmax(part, dim=1) for part in logits]
