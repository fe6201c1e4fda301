"""Aligned-MTL: the tasks' gradients made orthogonal and equally long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["Aligned"]


@BALANCERS.register("aligned", paper="Senushkin et al., CVPR 2023")
class Aligned(GradientBalancer):
    """Sum of gradients whose principal components are made equally long (Aligned-MTL).

    With the eigenvalues of the inner products, ``M = V diag(l) V^T``, shared parameters get ``sum_t a_t g_t``::

        a = sqrt(scale) V diag(l^(-1/2)) V^T 1

    over the eigenvalues above ``max l * K * 2^-23``, the precision of float32. The rows of
    ``sqrt(scale) V diag(l^(-1/2)) V^T G`` are the aligned gradients: of length sqrt(scale) and orthogonal to each other
    where M has full rank. The weights may be negative. The K tasks are those observed, with equal preference. Without
    any gradient all weights are 1.

    Args:
        tasks: the tasks. scale: the smallest of the eigenvalues that are kept, their median (the lower one of two) or
            their mean.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        scale: Annotated[
            Literal["min", "median", "rmse"],
            Field(description="squared length of the aligned gradients: least, median or mean eigenvalue"),
        ] = "min",
    ) -> None:
        super().__init__(tasks)
        self.scale = scale

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        eigenvalues, vectors = torch.linalg.eigh(gram)  # ascending
        kept = eigenvalues > eigenvalues[-1] * len(gram) * torch.finfo(torch.float32).eps
        if not kept.any():
            return torch.ones(len(gram), dtype=gram.dtype)
        eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
        scale = {"min": eigenvalues[0], "median": eigenvalues.median(), "rmse": eigenvalues.mean()}[self.scale]
        # V diag(.) V^T 1: the sums of the columns of V are V^T 1.
        weights: Tensor = (scale / eigenvalues).sqrt() * vectors @ vectors.sum(0)
        return weights
