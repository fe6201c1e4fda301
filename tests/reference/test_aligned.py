"""Aligned-MTL against numpy's singular values of the gradients themselves."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.aligned import Aligned
from recbole_dtn.balancer.step import Step
from recbole_dtn.errors import UsageError
from recbole_dtn.schema import TaskSpec

Array = Any


def align(gradients: Array, scale: str) -> Array:
    """G = U S W, with its singular values all replaced by one: (T, P)."""
    left, values, right = np.linalg.svd(gradients, full_matrices=False)
    kept = values**2 > values[0] ** 2 * len(gradients) * np.finfo(np.float32).eps
    squares = np.sort(values[kept] ** 2)
    size = {"min": squares[0], "median": squares[(len(squares) - 1) // 2], "rmse": squares.mean()}[scale]
    return np.sqrt(size) * left[:, kept] @ right[kept]


def solve(gradients: Array, scale: Any) -> Array:
    gram = torch.from_numpy(gradients @ gradients.T)
    tasks = [TaskSpec(f"t{i}", "binary", f"t{i}") for i in range(len(gram))]
    return Aligned(tasks, scale=scale).solve(gram, Step(torch.zeros(len(gram))), range(len(gram))).numpy()


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_the_combination_is_the_sum_of_aligned_gradients(scale: str, tasks: int) -> None:
    for seed in range(4):
        gradients = np.random.default_rng(seed).standard_normal((tasks, 5)) * 3.0 ** np.arange(tasks)[:, None]
        aligned = align(gradients, scale)
        found = solve(gradients, scale) @ gradients
        np.testing.assert_allclose(found, aligned.sum(0), rtol=1e-8, atol=1e-8)
        # The definition: rows orthogonal to each other and equally long.
        products = aligned @ aligned.T
        np.testing.assert_allclose(products, products[0, 0] * np.eye(tasks), atol=1e-9 * products[0, 0])


def test_two_tasks_by_hand() -> None:
    """Orthogonal gradients (3, 0), (0, 4): both become 3 long, or sqrt(12.5) by the mean of 9 and 16."""
    gradients = np.diag([3.0, 4.0])
    np.testing.assert_allclose(solve(gradients, "min") @ gradients, [3.0, 3.0])
    np.testing.assert_allclose(solve(gradients, "median") @ gradients, [3.0, 3.0])
    np.testing.assert_allclose(solve(gradients, "rmse") @ gradients, [12.5**0.5] * 2)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_degenerate_gradients(scale: str) -> None:
    g = np.array([3.0, 4.0])
    # One direction is left: M = |g|^2 (1, 2)(1, 2)^T, so that a = (1, 2) 3 / 5.
    parallel = np.stack([g, 2 * g])
    np.testing.assert_allclose(solve(parallel, scale) @ parallel, 3 * g, rtol=1e-8)
    np.testing.assert_allclose(solve(np.stack([g, -g]), scale) @ np.stack([g, -g]), 0, atol=1e-7)
    np.testing.assert_allclose(solve(np.stack([g, 0 * g]), scale) @ np.stack([g, 0 * g]), g, rtol=1e-8)
    assert solve(np.zeros((2, 3)), scale).tolist() == [1.0, 1.0]
    # Below float32's precision a direction is dropped, and its size is not the scale.
    nearly = np.array([[1.0, 0.0], [1.0, 1e-5]])
    assert (solve(nearly, scale) @ nearly)[0] == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_steps(scale: Any, tasks: int, balanced: Any, whole_gradient: Any) -> None:
    run = balanced(tasks)
    run.conflict()

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        rows = np.stack([whole_gradient(each) for each in gradients])
        return np.linalg.lstsq(rows.T, align(rows, scale).sum(0), rcond=None)[0], np.ones(tasks)

    balancer = Aligned(run.specs(), scale=scale)
    for _ in range(3):
        run.check(balancer, reference if tasks > 1 else lambda *_: (np.ones(1), np.ones(1)))


def test_preferences_weigh_the_aligned_gradients() -> None:
    tasks = [TaskSpec(name, "binary", name) for name in ("click", "like", "buy")]
    gradients = np.random.default_rng(0).standard_normal((3, 4))
    gram = torch.from_numpy(gradients @ gradients.T)
    found = Aligned(tasks, preferences=[1.0, 2.0, 0.5]).solve(gram, Step(torch.zeros(3)), range(3)).numpy() @ gradients
    np.testing.assert_allclose(found, [1.0, 2.0, 0.5] @ align(gradients, "min"), rtol=1e-9)
    # Tasks 0 and 2 are observed.
    found = Aligned(tasks, preferences=[1.0, 2.0, 0.5]).solve(gram[::2, ::2], Step(torch.zeros(3)), [0, 2]).numpy()
    np.testing.assert_allclose(found @ gradients[::2], [1.0, 0.5] @ align(gradients[::2], "min"), rtol=1e-9)
    with pytest.raises(UsageError, match=r"one number for each of the 3 tasks \(click, like, buy\), found 2"):
        Aligned(tasks, preferences=[1.0, 2.0])
