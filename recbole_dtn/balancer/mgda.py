"""MGDA: the combination of gradients of least norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.solvers import root_of
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["MGDA", "least_norm"]


def least_norm(gram: Tensor) -> Tensor:
    """``argmin a^T M a`` over ``a >= 0, sum a = 1``: (K, K) positive semidefinite -> (K,), both float64.

    Closed form for K = 2 (equal halves where the two gradients are equal). Otherwise exact by an active-set method: the
    minimiser is ``y / sum y`` for ``y = argmin y^T M y + (s sum y - 1)^2`` over ``y >= 0``, whatever s > 0 is: a
    non-negative least squares problem with the same stationarity conditions.

    >>> least_norm(torch.tensor([[4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)).tolist()
    [0.2, 0.8]
    """
    count = len(gram)
    if count == 1:
        return torch.ones_like(gram[0])
    if count == 2:
        spread = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
        # <g_2 - g_1, g_2> / |g_1 - g_2|^2, cut to [0, 1] (algorithm 1).
        first = ((gram[1, 1] - gram[0, 1]) / spread).clamp(0, 1) if spread > 0 else spread.new_tensor(0.5)
        return torch.stack([first, 1 - first])
    from scipy.optimize import nnls

    # In y_t |g_t|, so that gradients of very different lengths weigh alike: the cosines of M, and their root B.
    norms = gram.diagonal().sqrt()
    shortest = norms[norms > 0].amin() if bool(norms.any()) else norms.new_tensor(1.0)  # s
    norms = norms.clamp_min(shortest)
    matrix = torch.cat([root_of(gram / torch.outer(norms, norms)), (shortest / norms).unsqueeze(0)])
    target = torch.zeros(count + 1, dtype=gram.dtype)
    target[-1] = 1.0
    # The last row of the least squares is s sum y = 1: y = 0 is not a solution, so the sum below is positive.
    found = torch.from_numpy(nnls(matrix.numpy(), target.numpy())[0]) / norms
    return found / found.sum()


@BALANCERS.register("mgda", paper="Sener and Koltun, NeurIPS 2018")
class MGDA(GradientBalancer):
    """Convex combination of the gradients that has the least norm.

    ``min_a |sum_t a_t g_t / n_t|`` over ``a >= 0, sum a = 1`` (eq. 3); shared parameters get ``sum_t a_t g_t``, of the
    raw gradients: the normalisers n_t are for the choice of a alone.

    Args:
        tasks: the tasks. normalize: n_t = 1 (``none``), ``|g_t|`` (``l2``), ``L_t`` (``loss``) or both (``loss+``).
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        normalize: Annotated[
            Literal["none", "l2", "loss", "loss+"],
            Field(description="what each gradient is divided by when the weights are found; loss+ is loss times l2"),
        ] = "none",
    ) -> None:
        super().__init__(tasks)
        self.normalize = normalize

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        norms = torch.ones(len(gram), dtype=gram.dtype)
        if self.normalize in ("l2", "loss+"):
            norms = norms * gram.diagonal().sqrt()
        if self.normalize in ("loss", "loss+"):
            norms = norms * step.values[list(tasks)].to(norms)
        norms = torch.where(norms > 0, norms, 1.0)  # a gradient or a loss of zero stays as it is
        return least_norm(gram / torch.outer(norms, norms))
