"""UPGrad against numpy: projections onto the cone without conflict."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.step import Step
from recbole_dtn.balancer.upgrad import UPGrad

Array = Any


def project(gradients: Array, point: Array) -> Array:
    """The nearest d to ``point`` with <g_t, d> >= 0 for all t, by Dykstra's projections onto one half-space a time."""
    d, corrections = point.copy(), np.zeros_like(gradients)
    for _ in range(4000):
        before = d.copy()
        for t, g in enumerate(gradients):
            moved = d + corrections[t]
            d = moved - min(moved @ g, 0) / (g @ g) * g
            corrections[t] = moved - d
        if np.abs(d - before).max() < 1e-15:
            break
    return d


def lowest(matrix: Array, bound: Array) -> Array:
    """argmin v^T M v over v >= bound, by every choice of the values that are at their bound."""
    best, found = np.inf, bound
    for free in itertools.product([False, True], repeat=len(bound)):
        move = np.array(free)
        v = bound.copy()
        if move.any():
            v[move] = np.linalg.solve(matrix[np.ix_(move, move)], -matrix[np.ix_(move, ~move)] @ bound[~move])
        if (v >= bound - 1e-12).all() and v @ matrix @ v < best:
            best, found = v @ matrix @ v, v
    return found


def weights_of(gradients: Array, regularization: float) -> Array:
    gram = gradients @ gradients.T
    tasks = len(gram)
    matrix = gram / np.trace(gram) + regularization * np.eye(tasks)
    return sum(lowest(matrix, np.eye(tasks)[t] / tasks) for t in range(tasks))


def solve(gradients: Array, regularization: float) -> Array:
    gram = torch.from_numpy(gradients @ gradients.T)
    found = UPGrad([], regularization=regularization).solve(gram, Step(torch.zeros(len(gram))), range(len(gram)))
    return found.numpy()


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_projections(tasks: int) -> None:
    conflicts = 0
    for seed in range(6):
        random = np.random.default_rng(seed)
        gradients = random.standard_normal((tasks, 4)) * 10.0 ** random.uniform(-1, 1, (tasks, 1))
        d = solve(gradients, 0.0) @ gradients
        wanted = sum(project(gradients, g / tasks) for g in gradients)
        np.testing.assert_allclose(d, wanted, atol=1e-7 * np.abs(wanted).max())
        # No task loses.
        assert (gradients @ d >= -1e-9 * np.abs(gradients).max() ** 2).all()
        conflicts += not np.allclose(d, gradients.mean(0))
    assert tasks == 1 or conflicts > 1


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
@pytest.mark.parametrize("regularization", [1e-4, 0.1])
def test_weights_with_the_regularization(regularization: float, tasks: int) -> None:
    for seed in range(6):
        gradients = np.random.default_rng(seed).standard_normal((tasks, 3))
        np.testing.assert_allclose(
            solve(gradients, regularization), weights_of(gradients, regularization), rtol=1e-8, atol=1e-10
        )


def test_two_tasks_by_hand() -> None:
    """g_1 = (1, 0), g_2 = (-1, 1): (.5, .5) / 2 and (0, 1) / 2."""
    gradients = np.array([[1.0, 0.0], [-1.0, 1.0]])
    np.testing.assert_allclose(solve(gradients, 0.0) @ gradients, [0.25, 0.75], atol=1e-12)
    np.testing.assert_allclose(solve(np.eye(2), 0.0), [0.5, 0.5])  # without conflict: the mean


def test_degenerate_gradients() -> None:
    g = np.array([1.0, 2.0])
    for regularization in (0.0, 1e-4):
        assert solve(np.zeros((3, 2)), regularization).tolist() == pytest.approx([1 / 3] * 3)
        assert solve(np.zeros((2, 2)), regularization).tolist() == pytest.approx([0.5] * 2)
        parallel = np.stack([g, 4 * g])
        np.testing.assert_allclose(solve(parallel, regularization) @ parallel, 2.5 * g)
        opposite = np.stack([g, -g])
        np.testing.assert_allclose(solve(opposite, regularization) @ opposite, 0, atol=1e-9)
        zero = np.stack([g, 0 * g])
        np.testing.assert_allclose(solve(zero, regularization) @ zero, g / 2)
    three = np.stack([g, -g, np.array([2.0, -1.0])])
    np.testing.assert_allclose(solve(three, 0.0) @ three, three[2] / 3, atol=1e-9)


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_steps(tasks: int, balanced: Any, whole_gradient: Any) -> None:
    run = balanced(tasks)
    run.conflict()
    seen = []

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        seen.append(weights_of(np.stack([whole_gradient(each) for each in gradients]), 1e-4))
        return seen[-1], np.ones(tasks)

    balancer = UPGrad(run.specs())
    for _ in range(4):
        run.check(balancer, reference if tasks > 1 else lambda *_: (np.ones(1), np.ones(1)))
    assert tasks == 1 or np.ptp(seen[0]) > 0.01
