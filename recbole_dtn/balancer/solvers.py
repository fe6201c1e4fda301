"""Small problems on the inner products of gradients, (K, K) in float64, that several methods share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["balance_powers", "of_nonzero", "root_of"]

SMALLEST = 1e-8
"""The smallest eigenvalue of cosines in :func:`balance_powers`: opposite gradients have a finite solution."""
NEWTON_STEPS = 200
"""An upper bound; from the solution for orthogonal gradients, about 10 are taken."""


def of_nonzero(gram: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
    """``solve`` of the tasks whose gradient is not 0; the others, which nothing depends on, get weight 1.

    >>> gram = torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    >>> of_nonzero(gram, lambda part: 2 * part.diagonal()).tolist()
    [8.0, 1.0]
    """
    moving = gram.diagonal() > 0
    weights = torch.ones(len(gram), dtype=gram.dtype)
    if moving.any():
        weights[moving] = solve(gram[moving][:, moving])
    return weights


def root_of(gram: Tensor) -> Tensor:
    """B, (K, K), with ``B^T B = M``: rows of least squares problems, ``|B v|^2 = v^T M v``."""
    eigenvalues, vectors = torch.linalg.eigh(gram)
    root: Tensor = eigenvalues.clamp_min(0).sqrt().unsqueeze(1) * vectors.t()
    return root


def balance_powers(gram: Tensor, power: float) -> Tensor:
    """The one ``a > 0`` with ``(M a)_t = a_t^-power``: (K, K) positive definite -> (K,), both float64.

    It is where the convex ``1/2 a^T M a - sum_t int a_t^-power`` is least, found by Newton's method with a line search.
    Closed form for power 1 and K = 2: ``a_t = 1 / (|g_t| sqrt(1 + cosine))``.

    Where gradients cancel there is no solution: the cosines' smallest eigenvalue is lifted to 1e-8 by an addition to
    their diagonal, so that a is large, but finite. No gradient may be 0.

    >>> a = balance_powers(torch.tensor([[4.0, 1.0], [1.0, 9.0]], dtype=torch.float64), 1.0)
    >>> a * (torch.tensor([[4.0, 1.0], [1.0, 9.0]], dtype=torch.float64) @ a)
    tensor([1.0000, 1.0000], dtype=torch.float64)
    """
    norms = gram.diagonal().sqrt()
    cosines = gram / torch.outer(norms, norms)
    if power == 1.0 and len(gram) == 2:
        return 1 / (norms * (1 + cosines[0, 1]).clamp_min(SMALLEST).sqrt())
    lift = (SMALLEST - torch.linalg.eigvalsh(cosines)[0]).clamp_min(0)
    cosines = cosines + lift * torch.eye(len(gram), dtype=gram.dtype)
    return torch.from_numpy(_newton(cosines.numpy(), norms.numpy(), power))


def _newton(cosines: NDArray[np.float64], norms: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    # a = x y / norms with x the solution for orthogonal gradients, so that y is about 1 whatever the norms are:
    # sum_s C_ts x_s y_s = x_t y_t^-power.
    start = norms ** ((power - 1) / (power + 1))
    start_square = start**2

    def value(y: NDArray[np.float64]) -> float:
        barrier = np.log(y) if power == 1.0 else y ** (1 - power) / (1 - power)
        return float((start * y) @ cosines @ (start * y) / 2 - start_square @ barrier)

    y, last = np.ones(len(norms)), np.inf
    for _ in range(NEWTON_STEPS):
        slope = cosines @ (start * y) - start * y**-power
        # The gradient and the Hessian with respect to x y.
        step = np.linalg.solve(cosines + np.diag(power * y ** (-power - 1)), -slope) / start
        size = float(np.abs(step / y).max())
        # Converged, or as near as rounding lets it come.
        if size < 1e-14 or (size < 1e-6 and size > last / 2):
            break
        # At most 0.9 of the way to where a weight is 0, then halved until the value falls (Armijo).
        length = min(1.0, 0.9 / max(float((-step / y).max()), 1e-300))
        here, fall = value(y), float(slope @ (start * step))
        # Near the solution the Hessian hardly changes: full steps converge, and rounding hides the fall of the value.
        while size * (power + 1) > 0.3 and value(y + length * step) > here + 1e-4 * length * fall:
            length /= 2
            if length < 1e-9:
                return np.asarray(start * y / norms)
        y, last = y + length * step, size
    return np.asarray(start * y / norms)
