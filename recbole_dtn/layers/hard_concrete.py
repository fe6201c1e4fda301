"""Random gates that are exactly 0 or 1 with a probability that is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["HardConcrete"]


class HardConcrete(nn.Module):
    """Hard concrete gates (Louizos et al., ICLR 2018, arXiv 1712.01312): ``z = clip(s (zeta - gamma) + gamma, 0, 1)``.

    In training ``s = sigmoid((log u - log(1 - u) + log alpha) / beta)``, where u ~ U(0, 1) is drawn anew for every gate
    at every call, from torch's generator of the device. In evaluation ``s = sigmoid(log alpha)``. The expected number
    of open gates is ``sum sigmoid(log alpha - beta log(-gamma / zeta))``.

    The parameter is log alpha itself, so that alpha stays positive whatever a step does.

    Args:
        shape: of the gates.
        init: bounds of the uniform distribution from which log alpha starts. With the other arguments as they are, a
            gate with log alpha 0 is open in 90 % of the draws, one with log alpha 1 in 96 %.
        beta: temperature. gamma, zeta: the interval that s is stretched to, gamma < 0 and zeta > 1.

    >>> gates = HardConcrete((2, 3), init=(0.0, 0.0)).eval()
    >>> gates()[0].tolist(), round(gates.penalty().item(), 3), gates.kept().sum().item()
    ([0.5, 0.5, 0.5], 5.379, 6)
    """

    # Read by the optimiser: weight decay would pull log alpha to 0, a gate that is open in 90 % of the draws.
    decays = False

    def __init__(
        self,
        shape: Sequence[int],
        *,
        init: tuple[float, float] = (0.0, 1.0),
        beta: float = 0.9,
        gamma: float = -0.1,
        zeta: float = 1.1,
    ) -> None:
        super().__init__()
        if not (beta > 0.0 and gamma < 0.0 and zeta > 1.0):
            found = f"found beta {beta}, gamma {gamma}, zeta {zeta}"
            raise ValueError(f"hard concrete gates: expected beta > 0, gamma < 0 and zeta > 1, {found}")
        self.beta, self.gamma, self.zeta = beta, gamma, zeta
        self.log_alpha = nn.Parameter(torch.empty(*shape).uniform_(*init))

    def forward(self) -> Tensor:
        """The gates, of ``shape``, between 0 and 1."""
        if not self.training:
            return self._stretched(torch.sigmoid(self.log_alpha))
        # logit(0) is -inf, which closes the gate with the gradient 0.
        noise = torch.logit(torch.rand_like(self.log_alpha))
        return self._stretched(torch.sigmoid((noise + self.log_alpha) / self.beta))

    def _stretched(self, s: Tensor) -> Tensor:
        return (s * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)

    def penalty(self) -> Tensor:
        """Expected number of gates that are not 0 in training, a scalar."""
        shift = self.beta * math.log(-self.gamma / self.zeta)
        return torch.sigmoid(self.log_alpha - shift).sum()

    @torch.no_grad()
    def kept(self) -> Tensor:
        """Which gates are not 0 in evaluation, bool of ``shape``."""
        return self._stretched(torch.sigmoid(self.log_alpha)) > 0.0
