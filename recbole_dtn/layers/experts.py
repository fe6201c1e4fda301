"""Several networks of one shape that read the same input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.kernels.experts import deeper_layer, first_layers
from recbole_dtn.layers.dropout import Dropout

__all__ = ["Experts", "run_together"]


class Experts(Fusible):
    """K perceptrons of one shape over one input, the first layer of all of them as one product.

    ``E_k(x)``: Linear, ReLU and dropout for every width; no width at all is the identity. Layer l of all experts is
    one parameter (K, in, out), each expert's part initialised as ``nn.Linear`` is.

    Args:
        input_dim: I. hidden: width of each layer. count: K. dropout: after each layer.
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], *, count: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.count = count
        self.output_dim = hidden[-1] if hidden else input_dim
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for width_in, width_out in pairwise([input_dim, *hidden]):
            # nn.Linear's bound: kaiming_uniform_ with a = sqrt(5) is U(-1/sqrt(in), 1/sqrt(in)). Weights are drawn
            # before biases, layer by layer; a seed's model depends on that order.
            bound = 1.0 / math.sqrt(width_in)
            self.weights.append(nn.Parameter(torch.empty(count, width_in, width_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, width_out).uniform_(-bound, bound)))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, K, H), H the last width."""
        if not self.weights:
            return x.unsqueeze(1).expand(-1, self.count, -1)
        if self.fused:
            return run_together([self], x)[0]
        # The first layer reads one input for all experts: a single product (B, I) x (I, K * width).
        current: Tensor = torch.einsum("bi,kio->kbo", x, self.weights[0]) + self.biases[0]
        current = self.dropout(torch.relu(current))
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            # (K, B, in) x (K, in, out) plus (K, 1, out).
            current = self.dropout(torch.relu(torch.baddbmm(bias, current, weight)))
        return current.transpose(0, 1)

    def each(self, x: Tensor) -> Tensor:
        """(B, K, I) -> (B, K, H): expert k reads ``x[:, k]``, where :meth:`forward` gives all of them the same."""
        current: Tensor = x.transpose(0, 1)  # (K, B, I)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if self.fused:
                current = self.dropout(deeper_layer(current, weight, bias))
            else:
                current = self.dropout(torch.relu(torch.baddbmm(bias, current, weight)))
        return current.transpose(0, 1)

    def after_first(self, first: Tensor) -> Tensor:
        """First layers' outputs (B, K, H_1) -> (B, K, H): dropout, and the deeper layers.

        Each tensor has the layout of the plain path's in memory, so that the same seed drops the same units.
        """
        current: Tensor = self.dropout(first.transpose(0, 1))
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            current = self.dropout(deeper_layer(current, weight, bias))
        return current.transpose(0, 1)


def run_together(groups: Sequence[Experts], x: Tensor) -> list[Tensor]:
    """Several groups of experts over one input: (B, I) -> (B, K, H) of each, all first layers as one product."""
    # Experts without a layer are the identity, with no first layer to join.
    if not all(len(group.weights) for group in groups):
        return [group(x) for group in groups]
    firsts = first_layers([group.weights[0] for group in groups], [group.biases[0] for group in groups], x)
    return [group.after_first(first) for group, first in zip(groups, firsts, strict=True)]
