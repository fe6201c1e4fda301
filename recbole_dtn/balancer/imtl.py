"""IMTL: losses, gradients or both made impartial to the tasks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.config.strict import Positive
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["IMTL", "equal_projections"]

SINGULAR = 1e-10
"""An eigenvalue of the gradients' cosines, or a relative sum of weights, that counts as 0."""


def equal_projections(gram: Tensor) -> Tensor | None:
    """``a`` with ``sum a = 1`` and ``<sum_s a_s g_s, g_t / |g_t|>`` the same for all t: (K, K) -> (K,), float64.

    With C the cosines of the gradients, a_t is proportional to ``(C^-1 1)_t / |g_t|``. That is what the paper's
    ``(a_2 .. a_K) = g_1 U^T (D U^T)^-1`` gives, with rows ``g_1 - g_t`` of D and ``g_1 / |g_1| - g_t / |g_t|`` of U.
    For two gradients it is ``1 / |g_t|``, whatever their angle.

    Returns:
        None where the equations have no or no unique solution: a gradient of 0, or linearly dependent ones.
    """
    norms = gram.diagonal().sqrt()
    if len(gram) == 1:
        return torch.ones_like(norms)
    if not bool((norms > 0).all()):
        return None
    if len(gram) == 2:
        return norms.flip(0) / norms.sum()
    cosines = gram / torch.outer(norms, norms)
    eigenvalues, vectors = torch.linalg.eigh(cosines)
    if eigenvalues[0] <= SINGULAR:
        return None
    found = vectors / eigenvalues @ vectors.sum(0) / norms
    total = found.sum()
    return found / total if total.abs() > SINGULAR * found.abs().sum() else None


@BALANCERS.register("imtl", paper="Liu et al., ICLR 2021")
class IMTL(GradientBalancer):
    """Impartial weights of losses (L), of gradients (G), or of both.

    Form `l` weights the losses by learned scales, ``sum_t (e^s_t L_t - s_t) + extra``: at its optimum each ``e^s L``
    is 1, and s is kept within ``limit``, as it grows without end where a loss goes to 0. An unobserved task adds
    nothing.

    Form `g` gives the shared parameters ``sum_t a_t g_t`` with ``sum_t a_t = 1`` and equal projections onto each of the
    observed tasks' gradients, ``<sum_s a_s g_s, g_t / |g_t|>`` the same for all t. The a_t may be negative. Where the
    equations have no unique solution (a gradient of 0, linearly dependent ones among three or more), the weights are
    equal; such steps are counted in ``equal_steps``, and the first one warns. g_t is the gradient of the shared
    parameters; the paper takes that of the shared representation.

    Form `both` applies g to the gradients of the losses ``e^s L``; a task's own parameters get ``e^s_t g_t``.

    Args:
        tasks: the tasks. form: ``l``, ``g`` or ``both``. lr: learning rate of s; None for that of ``optimizer``.
        limit: the largest absolute value of s.
    """

    equal_steps: Tensor

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        form: Annotated[
            Literal["l", "g", "both"], Field(description="learned scales of losses, weights of gradients, or both")
        ] = "both",
        lr: Annotated[Positive | None, Field(description="learning rate of s, ~ for optimizer.lr")] = None,
        limit: Annotated[float, Field(gt=0, description="largest absolute value of the log scales s")] = 10.0,
    ) -> None:
        super().__init__(tasks)
        self.form, self.lr, self.limit = form, lr, limit
        self.log_scales = nn.Parameter(torch.zeros(len(tasks))) if form != "g" else None
        self.register_buffer("equal_steps", torch.zeros((), dtype=torch.int64))

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        weights = equal_projections(gram)
        if weights is None:
            if self.equal_steps == 0:
                warnings.warn(
                    f"imtl: no unique weights in step {step.index}, as gradients of the tasks are 0 or linearly "
                    "dependent: they are equal in such steps (counted in the balancer's equal_steps)",
                    stacklevel=2,
                )
            self.equal_steps += 1
            weights = torch.full((len(gram),), 1 / len(gram), dtype=gram.dtype)
        return weights

    def backward(self, step: Step) -> Tensor:
        if self.log_scales is None:
            return super().backward(step)
        terms = self.log_scales.exp() * step.losses - self.log_scales
        total = torch.where(step.observed, terms, 0.0).sum() + step.extra
        if self.form == "l":
            step.run(total)
        else:
            self._run_both(step, self.log_scales)
        return total.detach()

    def _run_both(self, step: Step, log_scales: nn.Parameter) -> None:
        scales = log_scales.detach().double().exp().cpu()
        gram = step.gradients().gram() * torch.outer(scales, scales)
        step.apply(step.agreed(self.weigh(gram, step) * scales), scales)
        # d/ds of e^s L - s; ``.grad`` holds scaled gradients.
        slope = torch.where(step.observed, log_scales.detach().exp() * step.values - 1, 0.0)
        log_scales.grad = slope.to(log_scales) * step.scale

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if self.log_scales is not None:
            self.log_scales.clamp_(-self.limit, self.limit)
