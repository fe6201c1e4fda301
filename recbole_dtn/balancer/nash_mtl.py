"""Nash-MTL: the bargaining solution of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.solvers import balance_powers, of_nonzero
from recbole_dtn.balancer.step import Step
from recbole_dtn.config.strict import Positive
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["NashMTL"]


@BALANCERS.register("nash_mtl", paper="Navon et al., ICML 2022")
class NashMTL(GradientBalancer):
    """Gradients weighted by the Nash bargaining solution.

    ``sum_t a_t g_t`` with the one ``a > 0`` that solves ``M a = 1 / a``, M the inner products of the K observed tasks'
    gradients: each task gains the same, ``a_t <g_t, d> = 1``, whatever its loss is multiplied by. The norm of
    ``d = sum_t a_t g_t`` is always sqrt(K), and the shared gradient is cut to ``max_norm``. It is solved in each step,
    to the precision of float64. A task whose gradient is 0 is left out. Gradients that cancel have no solution:
    the smallest eigenvalue of their cosines is taken as 1e-8.

    The released code weights the losses, so that a task's own parameters get ``a_t sqrt(|M|) g_t``, with |M| the
    Frobenius norm, and without ``max_norm``: ``specific: weighted``.

    Args:
        tasks: the tasks. max_norm: largest norm of the combined gradient of the shared parameters.
        specific: what a task's own parameters get, its own gradient or the released code's.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        max_norm: Annotated[
            Positive | None, Field(description="largest norm of the shared parameters' gradient, ~ for none")
        ] = 1.0,
        specific: Annotated[
            Literal["plain", "weighted"],
            Field(description="gradient of a task's own parameters: of its loss, or weighted as in the released code"),
        ] = "plain",
    ) -> None:
        super().__init__(tasks)
        self.max_norm, self.specific = max_norm, specific

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        return of_nonzero(gram, lambda part: balance_powers(part, 1.0))

    def backward(self, step: Step) -> Tensor:
        gram = step.gradients().gram()
        weights = step.agreed(self.weigh(gram, step)).cpu()
        own, size = None, float(gram.norm())
        if self.specific == "weighted" and 0 < size < float("inf"):
            own = weights * size**0.5
        norm = float((weights @ gram @ weights).clamp_min(0).sqrt())
        if self.max_norm is not None and norm > self.max_norm:
            weights = weights * (self.max_norm / norm)
        step.apply(weights, own)
        return step.losses.detach().sum() + step.extra.detach()
