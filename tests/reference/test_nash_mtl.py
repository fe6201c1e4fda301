"""Nash-MTL against numpy: M a = 1 / a, by one coordinate after another."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.nash_mtl import NashMTL
from recbole_dtn.balancer.step import Step

Array = Any


def bargain(gram: Array) -> Array:
    """M a = 1 / a: each a_t in turn solves M_tt a^2 + r a - 1 = 0, r from the others; it descends a convex function."""
    a = 1 / np.sqrt(np.diag(gram))
    for _ in range(20_000):
        before = a.copy()
        for t in range(len(a)):
            rest = gram[t] @ a - gram[t, t] * a[t]
            a[t] = (-rest + np.sqrt(rest**2 + 4 * gram[t, t])) / (2 * gram[t, t])
        if np.abs(a / before - 1).max() < 1e-15:
            break
    return a


def solve(gradients: Array) -> Array:
    gram = torch.from_numpy(gradients @ gradients.T)
    return NashMTL([]).solve(gram, Step(torch.zeros(len(gram))), range(len(gram))).numpy()


@pytest.mark.parametrize("tasks", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_the_bargain(tasks: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    gradients = random.standard_normal((tasks, 8)) * 10.0 ** random.uniform(-5, 5, (tasks, 1))
    gram = gradients @ gradients.T
    found = solve(gradients)
    assert (found > 0).all()
    np.testing.assert_allclose(found, bargain(gram), rtol=1e-8)
    np.testing.assert_allclose(gram @ found * found, 1, atol=1e-8)
    # All tasks gain alike, so that |sum a g|^2 = a^T M a = T.
    assert found @ gram @ found == pytest.approx(tasks, rel=1e-8)


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("max_norm", [1.0, 0.3, None])
@pytest.mark.parametrize("specific", ["plain", "weighted"])
def test_steps(specific: Any, max_norm: Any, tasks: int, balanced: Any, whole_gradient: Any) -> None:
    run = balanced(tasks)
    run.conflict()

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        rows = np.stack([whole_gradient(each) for each in gradients])
        gram = rows @ rows.T
        weights = bargain(gram)
        own = weights * np.sqrt(np.sqrt((gram**2).sum())) if specific == "weighted" else np.ones(tasks)
        norm = np.linalg.norm(weights @ rows)
        # torch's clipping, without the 1e-6 that it adds.
        return weights * min(1.0, (max_norm or np.inf) / norm), own

    balancer = NashMTL(run.specs(), max_norm=max_norm, specific=specific)
    for _ in range(3):
        run.check(balancer, reference if tasks > 1 else lambda *_: (np.ones(1), np.ones(1)))


def test_two_tasks_by_hand() -> None:
    """|g_1| = 1, |g_2| = 2, cosine 1/2: a = 1 / (|g| sqrt(3/2))."""
    found = solve(np.array([[1.0, 0.0], [1.0, np.sqrt(3.0)]]))
    assert found.tolist() == pytest.approx([1 / np.sqrt(1.5), 0.5 / np.sqrt(1.5)])


def test_degenerate_gradients() -> None:
    g = np.array([3.0, 4.0])
    # Parallel: each gives 1/sqrt(2) of length.
    np.testing.assert_allclose(solve(np.stack([g, 10 * g])), [1 / (5 * np.sqrt(2)), 1 / (50 * np.sqrt(2))], rtol=1e-8)
    np.testing.assert_allclose(solve(np.stack([g, g, g])), 1 / (5 * np.sqrt(3)), rtol=1e-8)
    # A gradient of 0 is left out.
    np.testing.assert_allclose(solve(np.stack([g, 0 * g]))[0], 1 / 5, rtol=1e-8)
    assert solve(np.zeros((3, 2))).tolist() == [1.0, 1.0, 1.0]
    # Opposite: no solution; large, finite and cancelling.
    for gradients in (np.stack([g, -2 * g]), np.stack([g, -g, 0.5 * g])):
        found = solve(gradients)
        assert np.isfinite(found).all()
        assert (found > 0).all()
    two = np.stack([g, -2 * g])
    np.testing.assert_allclose(solve(two) @ two, 0, atol=1e-4)
