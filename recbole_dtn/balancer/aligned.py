"""Aligned-MTL: the tasks' gradients made orthogonal and equally long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.config.strict import Positive
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["Aligned"]


@BALANCERS.register("aligned", paper="Senushkin et al., CVPR 2023")
class Aligned(GradientBalancer):
    """Sum of gradients whose principal components are made equally long (Aligned-MTL).

    With the eigenvalues of the inner products, ``M = V diag(l) V^T``, shared parameters get ``sum_t a_t g_t``::

        a = sqrt(scale) V diag(l^(-1/2)) V^T w

    over the eigenvalues above ``max l * K * 2^-23``, the precision of float32. The rows of
    ``sqrt(scale) V diag(l^(-1/2)) V^T G`` are the aligned gradients: of length sqrt(scale) and orthogonal to each other
    where M has full rank. w are the preferences, 1 by default, and the a_t may be negative. The K tasks are those
    observed. Without any gradient all weights are 1.

    Args:
        tasks: the tasks. scale: the smallest of the eigenvalues that are kept, their median (the lower one of two) or
            their mean. preferences: w, one number per task in their order.

    Raises:
        UsageError: where the preferences are not one for each task.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        scale: Annotated[
            Literal["min", "median", "rmse"],
            Field(description="squared length of the aligned gradients: least, median or mean eigenvalue"),
        ] = "min",
        preferences: Annotated[
            list[Positive] | None, Field(description="weight of each aligned gradient, in the order of the tasks")
        ] = None,
    ) -> None:
        super().__init__(tasks)
        self.scale = scale
        if preferences is not None and len(preferences) != len(tasks):
            names = ", ".join(task.name for task in tasks)
            raise UsageError(
                f"balancer.preferences: expected one number for each of the {len(tasks)} tasks ({names}), "
                f"found {len(preferences)}"
            )
        self.preferences = [1.0] * len(tasks) if preferences is None else preferences

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        eigenvalues, vectors = torch.linalg.eigh(gram)  # ascending
        kept = eigenvalues > eigenvalues[-1] * len(gram) * torch.finfo(torch.float32).eps
        if not kept.any():
            return torch.ones(len(gram), dtype=gram.dtype)
        eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
        scale = {"min": eigenvalues[0], "median": eigenvalues.median(), "rmse": eigenvalues.mean()}[self.scale]
        wanted = torch.tensor([self.preferences[task] for task in tasks], dtype=gram.dtype)
        weights: Tensor = (scale / eigenvalues).sqrt() * vectors @ (vectors.t() @ wanted)
        return weights
