"""PCGrad: gradients that conflict are projected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS

__all__ = ["PCGrad"]


@BALANCERS.register("pcgrad", paper="Yu et al., NeurIPS 2020")
class PCGrad(GradientBalancer):
    """Gradients projected off those they conflict with.

    For each task t, ``g'_t = g_t``; then for every other task j in random order, where ``<g'_t, g_j> < 0``::

        g'_t <- g'_t - <g'_t, g_j> / |g_j|^2 g_j

    with the g_j as they were (algorithm 1). Shared parameters get the sum of the g'_t, not their mean. The order
    depends on the seed and the step alone.
    """

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        random, count = step.random(), len(gram)
        projected = torch.eye(count, dtype=gram.dtype)  # row t: g'_t in terms of the g_j
        for task in range(count):
            for other in random.permutation([j for j in range(count) if j != task]).tolist():
                # <g'_t, g_j> by the Gram matrix alone. Negative only where g_j is not 0, so the division is safe.
                product = projected[task] @ gram[other]
                if product < 0:
                    projected[task, other] -= product / gram[other, other]
        return projected.sum(0)
