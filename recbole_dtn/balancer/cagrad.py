"""CAGrad: near the mean gradient, the direction whose worst task improves most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.mgda import least_norm
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["CAGrad", "worst_mixture"]

TINY = 1e-6
"""Length, beside that of the weighted gradients, below which a mixture has no direction."""


def worst_mixture(gram: Tensor, slope: Tensor, radius: float) -> Tensor:
    """``argmin <slope, w> + radius |g_w|`` over ``w >= 0, sum w = 1``: (K, K), (K,) -> (K,), float64.

    Closed form for K = 2. Otherwise by ``radius |g_w| = min_m |g_w|^2 / (2m) + radius^2 m / 2``, jointly convex in w
    and m: for a given m the minimum over w is a point of least norm in the convex hull of K points, and m, at the
    minimum ``|g_w| / radius``, is the root of one increasing function.

    Args:
        gram: ``<g_s, g_t>``. slope: ``<g_t, g_0>`` for one g_0 in the span of the g_t. radius: positive.
    """
    if len(gram) == 1:
        return torch.ones_like(slope)
    if len(gram) == 2:
        return _worst_of_two(gram, slope, radius)
    from scipy.optimize import brentq

    def mixture(m: float) -> Tensor:
        # |g_w + m g_0|^2 up to a constant, for sum w = 1: points g_t + m g_0, the part |g_0|^2 is the same for all.
        return least_norm(gram + m * (slope.unsqueeze(0) + slope.unsqueeze(1)) + m * m * whole)

    def excess(m: float) -> float:
        w = mixture(m)
        return float((w @ gram @ w).clamp_min(0).sqrt()) - radius * m

    whole = slope.mean()
    most = float(gram.diagonal().max().sqrt()) / radius
    # |g_w| is the root of a difference of products, exact to about 1e-8 of the weighted gradients.
    least = 1e-7 * float(gram.diagonal().min().sqrt()) / radius
    if excess(least) <= 0:
        return mixture(least)
    return mixture(brentq(excess, least, most * (1 + 1e-9), xtol=1e-300, rtol=1e-14))


def _worst_of_two(gram: Tensor, slope: Tensor, radius: float) -> Tensor:
    """As :func:`worst_mixture` for ``g_w = g_2 + t (g_1 - g_2)``, ``|g_w|^2 = spread t^2 + 2 inner t + |g_2|^2``."""
    spread = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
    inner = gram[0, 1] - gram[1, 1]
    rise = slope[0] - slope[1]
    if spread <= 0:
        t = spread.new_tensor(0.5)
    elif radius**2 * spread <= rise**2:
        # The linear term outweighs the norm everywhere.
        t = (rise < 0).to(gram.dtype)
    else:
        # rise + radius u / |g_w| = 0 with u = spread t + inner and |g_w|^2 = u^2 / spread + rest.
        rest = (gram[1, 1] - inner**2 / spread).clamp_min(0)
        u = -rise * (rest / (radius**2 - rise**2 / spread)).sqrt()
        t = ((u - inner) / spread).clamp(0, 1)
    return torch.stack([t, 1 - t])


@BALANCERS.register("cagrad", paper="Liu et al., NeurIPS 2021")
class CAGrad(GradientBalancer):
    """The step near the mean gradient that is best for the worst task.

    ``max_d min_t <g_t, d>`` over ``|d - g_0| <= c |g_0|``, with g_0 the mean of the observed tasks' gradients. Its
    solution is::

        d = g_0 + c |g_0| g_w / |g_w|      w = argmin <g_w, g_0> + c |g_0| |g_w|  over  w >= 0, sum w = 1

    with ``g_w = sum_t w_t g_t``; shared parameters get d divided by ``rescale``. Where ``g_w`` is 0, d is g_0. A task
    whose gradient is 0 counts in the mean and has no weight in w.

    Args:
        tasks: the tasks. c: how far d may be from g_0, as a part of its norm; 0 gives the mean gradient, and below 1
            the mean loss converges. rescale: what d is divided by; the default is that of the released code.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        c: Annotated[float, Field(ge=0, description="radius around the mean gradient, as a part of its norm")] = 0.5,
        rescale: Annotated[
            Literal["none", "1+c", "1+c^2"], Field(description="what the combined gradient is divided by")
        ] = "1+c^2",
    ) -> None:
        super().__init__(tasks)
        self.c = c
        self.divisor = {"none": 1.0, "1+c": 1 + c, "1+c^2": 1 + c * c}[rescale]

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        count = len(gram)
        size = gram.diagonal().max()
        weights = torch.full((count,), 1 / count, dtype=gram.dtype)
        unit = gram / size if size > 0 else gram
        norm = unit.mean().clamp_min(0).sqrt()  # |g_0|
        radius = float(self.c * norm)
        if radius > 0:
            moving = unit.diagonal() > 0
            part = unit[moving][:, moving]
            w = worst_mixture(part, unit.mean(1)[moving], radius)
            length = (w @ part @ w).clamp_min(0).sqrt()
            if length > TINY * (w @ part.diagonal().sqrt()):
                weights[moving] += radius / length * w
        return weights / self.divisor
