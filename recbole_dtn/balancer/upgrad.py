"""UPGrad: the mean of the gradients, each projected so that it conflicts with none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.solvers import root_of
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["UPGrad", "unconflicting"]


def unconflicting(gram: Tensor) -> Tensor:
    """Row t: ``argmin v^T M v`` over ``v >= e_t / K``: (K, K) positive semidefinite -> (K, K), both float64.

    ``sum_s v_s g_s`` is then the nearest point to ``g_t / K`` that has no negative product with any gradient. Closed
    form for K = 2, otherwise non-negative least squares for the part of v above its bound.
    """
    count = len(gram)
    bounds = torch.eye(count, dtype=gram.dtype) / count
    if count == 1:
        return bounds
    if count == 2:
        # The other gradient takes away what of g_t points against it.
        lift = (-gram[0, 1]).clamp_min(0) / gram.diagonal().flip(0).clamp_min(torch.finfo(gram.dtype).tiny)
        return bounds + torch.diag_embed(lift / 2).flip(1)
    from scipy.optimize import nnls

    root = root_of(gram)
    targets = -(root @ bounds).t()
    lifts = [nnls(root.numpy(), target)[0] for target in targets.numpy()]
    return bounds + torch.stack([torch.from_numpy(lift) for lift in lifts])


@BALANCERS.register("upgrad", paper="Quinton and Rey, arXiv 2406.16232")
class UPGrad(GradientBalancer):
    """Mean of the gradients, each projected onto the directions that no task loses by.

    Each ``g_t / K`` is projected onto the cone of d with ``<g_s, d> >= 0`` for all s of the K observed tasks; shared
    parameters get the sum of the projections. The projection is ``sum_s v_s g_s`` with::

        v = argmin v^T (M / trace M + e I) v  over  v >= e_t / K

    where M holds the inner products of the gradients, and e (`regularization`) keeps v finite where they are linearly
    dependent. With e = 0 the result has a product >= 0 with every gradient.

    Args:
        tasks: the tasks. regularization: e.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        regularization: Annotated[
            float, Field(ge=0, description="added to the diagonal of the inner products, whose trace is made 1")
        ] = 1e-4,
    ) -> None:
        super().__init__(tasks)
        self.regularization = regularization

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        trace = gram.trace()
        unit = gram / trace if trace > 0 else gram
        return unconflicting(unit + self.regularization * torch.eye(len(gram), dtype=gram.dtype)).sum(0)
