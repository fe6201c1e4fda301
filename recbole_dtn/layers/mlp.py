"""Plain multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.kernels.products import linear
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.linear import Linear

__all__ = ["MLP", "Tower"]


class MLP(Fusible):
    """``h_{l+1} = dropout(ReLU(W_l h_l + b_l))`` for every width; no width at all is the identity.

    Args:
        input_dim: width of the input. widths: width of each layer. dropout: share of a layer's outputs set to zero.

    >>> import torch
    >>> MLP(3, [8, 5])(torch.zeros(2, 3)).shape, MLP(3, []).output_dim
    (torch.Size([2, 5]), 3)
    """

    def __init__(self, input_dim: int, widths: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.output_dim = widths[-1] if widths else input_dim
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([input_dim, *widths]):
            layers += [Linear(width_in, width_out), nn.ReLU()]
            if dropout > 0.0:
                layers.append(Dropout(dropout))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        if not self.fused:
            output: Tensor = self.layers(x)
            return output
        # ``linear`` applies the ReLU as it writes; the nn.ReLU modules are for the plain path and the names in
        # state_dict.
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                x = linear(x, layer.weight, layer.bias, "relu")
            elif not isinstance(layer, nn.ReLU):
                x = layer(x)
        return x


class Tower(nn.Module):
    """One task's head: an MLP, then one linear unit without activation.

    Args:
        input_dim: width of the input. hidden: hidden widths. dropout: after each hidden layer.
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = MLP(input_dim, hidden, dropout=dropout)
        self.logit = Linear(self.hidden.output_dim, 1)

    def linear_maps(self) -> list[nn.Linear]:
        """Its linear maps, the logit's last."""
        return [*(layer for layer in self.hidden.layers if isinstance(layer, nn.Linear)), self.logit]

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_dim) -> (B,)."""
        logit: Tensor = self.logit(self.hidden(x))
        return logit.squeeze(1)
