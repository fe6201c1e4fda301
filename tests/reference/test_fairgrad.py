"""FairGrad against numpy: M w = w^(-1/alpha), by one coordinate after another."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.fairgrad import FairGrad
from recbole_dtn.balancer.nash_mtl import NashMTL
from recbole_dtn.balancer.step import Step

Array = Any


def fair(gram: Array, alpha: float) -> Array:
    """Each w_t in turn solves M_tt w + r = w^(-1/alpha), r from the others, by bisection of log w."""
    w = np.diag(gram) ** (-alpha / (1 + alpha))
    for _ in range(3000):
        before = w.copy()
        for t in range(len(w)):
            rest = gram[t] @ w - gram[t, t] * w[t]
            low, high = np.log(w[t]) - 4, np.log(w[t]) + 4
            for _ in range(50):
                middle = (low + high) / 2
                rising = gram[t, t] * np.exp(middle) + rest < np.exp(-middle / alpha)
                low, high = (middle, high) if rising else (low, middle)
            w[t] = np.exp(low)
        if np.abs(w / before - 1).max() < 1e-12:
            break
    return w


def solve(gradients: Array, alpha: float) -> Array:
    gram = torch.from_numpy(gradients @ gradients.T)
    return FairGrad([], alpha=alpha).solve(gram, Step(torch.zeros(len(gram))), range(len(gram))).numpy()


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_weights_solve_the_equation(alpha: float, tasks: int) -> None:
    for seed in range(4):
        random = np.random.default_rng(seed)
        # For a small alpha the powers of distant norms leave the range of float64.
        reach = 3 * min(1.0, alpha)
        gradients = random.standard_normal((tasks, 6)) * 10.0 ** random.uniform(-reach, reach, (tasks, 1))
        found = solve(gradients, alpha)
        assert (found > 0).all()
        np.testing.assert_allclose(gradients @ gradients.T @ found, found ** (-1 / alpha), rtol=1e-8)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_weights_are_those_of_the_coordinates(alpha: float) -> None:
    gradients = np.random.default_rng(2).standard_normal((3, 5)) * [[0.1], [1.0], [20.0]]
    np.testing.assert_allclose(solve(gradients, alpha), fair(gradients @ gradients.T, alpha), rtol=1e-8)


def test_one_is_the_bargain_and_more_lifts_the_smallest_gain() -> None:
    gradients = np.array([[1.0, 0.0, 0.0], [-0.5, 2.0, 0.0], [0.3, 0.3, 4.0]])
    gram = torch.from_numpy(gradients @ gradients.T)
    nash = NashMTL([]).solve(gram, Step(torch.zeros(3)), range(3)).numpy()
    np.testing.assert_allclose(solve(gradients, 1.0), nash, rtol=1e-10)
    smallest = []
    for alpha in (0.2, 1.0, 5.0):
        d = solve(gradients, alpha) @ gradients
        smallest.append((gradients @ d / np.linalg.norm(d)).min())
    assert smallest[0] < smallest[1] < smallest[2]


@pytest.mark.parametrize("alpha", [0.05, 1.0, 2.0, 20.0])
def test_degenerate_gradients(alpha: float) -> None:
    g = np.array([3.0, 4.0])
    assert solve(np.zeros((2, 2)), alpha).tolist() == [1.0, 1.0]
    # One gradient: 25 w = w^(-1/alpha).
    np.testing.assert_allclose(solve(np.stack([g, 0 * g]), alpha)[0], 25 ** (-alpha / (1 + alpha)), rtol=1e-8)
    # Two alike: 50 w = w^(-1/alpha).
    np.testing.assert_allclose(solve(np.stack([g, g]), alpha), 50 ** (-alpha / (1 + alpha)), rtol=1e-8)
    for gradients in (np.stack([g, -g]), np.stack([1e-6 * g, -1e6 * g]), np.stack([g, -g, g])):
        found = solve(gradients, alpha)
        assert np.isfinite(found).all()
        assert (found > 0).all()


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_steps(tasks: int, balanced: Any, whole_gradient: Any) -> None:
    run = balanced(tasks)

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        rows = np.stack([whole_gradient(each) for each in gradients])
        if index == 0:
            np.testing.assert_allclose(solve(rows, 2.0), fair(rows @ rows.T, 2.0), rtol=1e-8)
        return solve(rows, 2.0), np.ones(tasks)

    balancer = FairGrad(run.specs(), alpha=2.0)
    for _ in range(2):
        run.check(balancer, reference if tasks > 1 else lambda *_: (np.ones(1), np.ones(1)))
