"""FairGrad: the alpha-fair combination of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.solvers import balance_powers, of_nonzero
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["FairGrad"]


@BALANCERS.register("fairgrad", paper="Ban and Ji, ICML 2024")
class FairGrad(GradientBalancer):
    """Gradients weighted so that the gains of the tasks are alpha-fair.

    ``sum_t w_t g_t`` with the one ``w > 0`` that solves ``M w = w^(-1/alpha)``, M the inner products of the observed
    tasks' gradients. The gain of a task is ``<g_t, d>``: alpha 1 makes all gains equal in proportion (``nash_mtl``
    without its ``max_norm``), a larger one lifts the smallest gain, a smaller one their sum. A task whose gradient is 0
    is left out. Gradients that cancel have no solution: the smallest eigenvalue of their cosines is taken as 1e-8.

    Args:
        tasks: the tasks. alpha: the fairness.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        alpha: Annotated[
            float, Field(ge=0.05, le=20, description="fairness: 1 for proportional, larger for the worst task")
        ] = 1.0,
    ) -> None:
        super().__init__(tasks)
        self.alpha = alpha

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        return of_nonzero(gram, lambda part: balance_powers(part, 1 / self.alpha))
