"""MGDA against numpy: the point of least norm in the convex hull of the gradients."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.mgda import MGDA, least_norm

Array = Any


def exhaustive(gram: Array) -> Array:
    """The minimiser over the simplex, by the stationary point of every face."""
    tasks, best, found = len(gram), np.inf, np.zeros(len(gram))
    for size in range(1, tasks + 1):
        for face in map(list, itertools.combinations(range(tasks), size)):
            system = np.block([[gram[np.ix_(face, face)], -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            solution = np.linalg.lstsq(system, np.array([0.0] * size + [1.0]), rcond=None)[0][:size]
            if (solution >= -1e-12).all() and abs(solution.sum() - 1) < 1e-9:
                weights = np.zeros(tasks)
                weights[face] = solution.clip(0)
                value = weights @ gram @ weights
                if value < best - 1e-14:
                    best, found = value, weights
    return found


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(8))
def test_least_norm_is_that_of_the_best_face(tasks: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    gradients = random.standard_normal((tasks, 5)) * 10.0 ** random.uniform(-3, 3, (tasks, 1)) + seed % 3
    gram = gradients @ gradients.T
    found = least_norm(torch.from_numpy(gram)).numpy()
    assert found.min() >= 0
    assert abs(found.sum() - 1) < 1e-12
    wanted = exhaustive(gram)
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    assert found @ gram @ found <= wanted @ gram @ wanted * (1 + 1e-9) + 1e-15


def test_two_tasks_by_hand() -> None:
    """a = clip((M22 - M12) / (M11 + M22 - 2 M12), 0, 1)."""
    for gram, wanted in (
        ([[4.0, 0.0], [0.0, 1.0]], [0.2, 0.8]),
        ([[1.0, 2.0], [2.0, 9.0]], [1.0, 0.0]),
        ([[9.0, 2.0], [2.0, 1.0]], [0.0, 1.0]),
        ([[1.0, -1.0], [-1.0, 1.0]], [0.5, 0.5]),
        ([[2.0, 2.0], [2.0, 2.0]], [0.5, 0.5]),
        ([[0.0, 0.0], [0.0, 3.0]], [1.0, 0.0]),
    ):
        assert least_norm(torch.tensor(gram, dtype=torch.float64)).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("tasks", [3, 5])
def test_degenerate_gradients(tasks: int) -> None:
    """All zero, all equal, one zero: weights of the simplex, and the least norm there is."""
    for gram in (
        torch.zeros(tasks, tasks),
        torch.ones(tasks, tasks),
        torch.eye(tasks).index_fill(0, torch.tensor(1), 0),
    ):
        found = least_norm(gram.double())
        assert found.isfinite().all()
        assert found.min() >= 0
        assert found.sum().item() == pytest.approx(1)
        assert (found @ gram.double() @ found).item() == pytest.approx(gram.diagonal().min().item(), abs=1e-12)


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("normalize", ["none", "l2", "loss", "loss+"])
def test_steps_combine_raw_gradients(normalize: Any, tasks: int, balanced: Any, whole_gradient: Any) -> None:
    run = balanced(tasks)
    if tasks > 1:  # nearly opposite gradients, so that no task has all the weight
        run.numpy["heads.1"] = 0.1 * run.numpy["heads.1"] - run.numpy["heads.0"]
        run.model.heads[1].data.copy_(torch.from_numpy(run.numpy["heads.1"]))
    seen = []

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        rows = np.stack([whole_gradient(each) for each in gradients])
        norms = np.linalg.norm(rows, axis=1)
        by = {"none": np.ones(tasks), "l2": norms, "loss": losses, "loss+": losses * norms}[normalize]
        scaled = rows / by[:, None]
        # A lone task has no shared parameter, and its weight moves nothing.
        seen.append(exhaustive(scaled @ scaled.T))
        return seen[-1], np.ones(tasks)

    balancer = MGDA(run.specs(), normalize=normalize)
    for _ in range(5):
        run.check(balancer, reference) if tasks > 1 else run.check(balancer, lambda *_: (np.ones(1), np.ones(1)))
    assert tasks == 1 or min(weights.max() for weights in seen) < 0.999
