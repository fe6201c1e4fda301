"""CAGrad against numpy: the mixture of every face of the simplex, and the maximin problem itself."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.cagrad import CAGrad
from recbole_dtn.balancer.step import Step

Array = Any


def objective(gradients: Array, c: float, w: Array) -> float:
    """<g_w, g_0> + c |g_0| |g_w|."""
    mean, mixed = gradients.mean(0), w @ gradients
    return float(mixed @ mean + c * np.linalg.norm(mean) * np.linalg.norm(mixed))


def faces(gradients: Array, c: float) -> Array:
    """The best stationary point of the faces of the simplex.

    Within a face S, with y = w / |g_w|: b + k M y = v 1, so y = M^-1 (v 1 - b) / k, and |g_y| = 1 gives v. Written
    with unit vectors u_t = g_t / |g_t| and y_t |g_t| in place of y_t: exact for gradients of very different lengths.
    """
    mean, norms = gradients.mean(0), np.linalg.norm(gradients, axis=1)
    units = gradients / norms[:, None]
    radius = c * np.linalg.norm(mean)
    tasks, best, found = len(gradients), np.inf, np.zeros(len(gradients))
    # The gradients of more than P tasks are dependent; with c < 1 a face of P of them holds the minimum.
    for size in range(1, min(gradients.shape) + 1):
        for face in map(list, itertools.combinations(range(tasks), size)):
            part = units[face]
            slope, ones = part @ mean, 1 / norms[face]
            inverse = np.linalg.inv(part @ part.T)
            p, q, r = ones @ inverse @ ones, ones @ inverse @ slope, slope @ inverse @ slope
            for sign in (1, -1):
                v = (q + sign * np.sqrt(complex(q * q - p * (r - radius**2)))) / p
                y = inverse @ (v * ones - slope) / norms[face] / radius
                if np.abs(y.imag).max() > 1e-9 * np.abs(y).max() or y.real.min() < 0 or y.real.sum() <= 0:
                    continue
                w = np.zeros(tasks)
                w[face] = y.real / y.real.sum()
                value = objective(gradients, c, w)
                if value < best:
                    best, found = value, w
    return found


def combine(gradients: Array, c: float, divisor: float) -> Array:
    mean, mixed = gradients.mean(0), faces(gradients, c) @ gradients
    return (mean + c * np.linalg.norm(mean) / np.linalg.norm(mixed) * mixed) / divisor


def solve(gradients: Array, **options: Any) -> Array:
    gram = torch.from_numpy(gradients @ gradients.T)
    return CAGrad([], **options).solve(gram, Step(torch.zeros(len(gram))), range(len(gram))).numpy()


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_the_combination_is_that_of_the_best_face(c: float, tasks: int) -> None:
    inner = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        gradients = random.standard_normal((tasks, 6)) * 10.0 ** random.uniform(-0.2, 0.2, (tasks, 1))
        wanted = combine(gradients, c, 1 + c * c)
        np.testing.assert_allclose(solve(gradients, c=c) @ gradients, wanted, atol=1e-6 * np.abs(wanted).max())
        inner += int(faces(gradients, c).max() < 0.999)
    assert tasks == 1 or c == 0.1 or inner > 0


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("c", [0.3, 0.8])
def test_the_worst_task_gains_the_most_it_can(c: float, tasks: int) -> None:
    """min_t <g_t, d> <= the objective of any w, for every d of the ball; equality proves that d and w are optimal."""
    for seed in range(6):
        random = np.random.default_rng(seed)
        gradients = random.standard_normal((tasks, 3)) + 0.3  # 5 tasks in 3 dimensions: a singular M
        mean = gradients.mean(0)
        d = solve(gradients, c=c, rescale="none") @ gradients
        assert np.linalg.norm(d - mean) <= c * np.linalg.norm(mean) * (1 + 1e-9)
        worst = (gradients @ d).min()
        assert worst == pytest.approx(objective(gradients, c, faces(gradients, c)), abs=1e-7)
        assert worst <= min(objective(gradients, c, w) for w in random.dirichlet(np.full(tasks, 0.7), 200)) + 1e-9


@pytest.mark.parametrize("tasks", [2, 3, 4])
@pytest.mark.parametrize("ratio", [1e4, 1e6])
def test_gradients_of_very_different_lengths(ratio: float, tasks: int) -> None:
    for seed in range(6):
        random = np.random.default_rng(seed)
        gradients = random.standard_normal((tasks, 8)) * np.geomspace(1, ratio, tasks)[:, None]
        wanted = combine(gradients, 0.5, 1.0)
        d = solve(gradients, rescale="none") @ gradients
        np.testing.assert_allclose(d, wanted, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(("rescale", "divisor"), [("none", 1.0), ("1+c", 1.4), ("1+c^2", 1.16)])
def test_what_the_step_is_divided_by(rescale: str, divisor: float) -> None:
    """Orthogonal gradients of one length: g_w = g_0, so d = (1 + c) g_0."""
    weights = solve(np.eye(2), c=0.4, rescale=rescale)
    assert weights.tolist() == pytest.approx([0.5 * 1.4 / divisor] * 2)


def test_without_a_radius_it_is_the_mean() -> None:
    assert solve(np.random.default_rng(0).standard_normal((3, 4)), c=0.0).tolist() == pytest.approx([1 / 3] * 3)


def test_two_tasks_by_hand() -> None:
    """g_1 = (4, 0), g_2 = (0, 3), c = 1/2: the mean is (2, 1.5), |g_0| 2.5."""
    found = solve(np.array([[4.0, 0.0], [0.0, 3.0]]), c=0.5, rescale="none") @ np.array([[4.0, 0.0], [0.0, 3.0]])
    # A fine grid over the half circle of d in the ball.
    angles = np.linspace(0, 2 * np.pi, 200_001)
    ball = np.array([[2.0], [1.5]]) + 1.25 * np.stack([np.cos(angles), np.sin(angles)])
    best = ball[:, np.minimum(4 * ball[0], 3 * ball[1]).argmax()]
    np.testing.assert_allclose(found, best, atol=1e-4)


@pytest.mark.parametrize("c", [0.5, 1.5])
def test_degenerate_gradients(c: float) -> None:
    g = np.array([1.0, 2.0])
    parallel = solve(np.stack([g, 3 * g]), c=c, rescale="none") @ np.stack([g, 3 * g])
    np.testing.assert_allclose(parallel, (1 + c) * 2 * g, rtol=1e-9)
    # The mean is 0: nothing to move along.
    opposite = np.stack([g, -g])
    np.testing.assert_allclose(solve(opposite, c=c) @ opposite, 0, atol=1e-9)
    assert solve(np.zeros((3, 2)), c=c).tolist() == pytest.approx([1 / 3 / (1 + c * c)] * 3)
    # A gradient of 0 counts in the mean alone: 3 g / 2 / 3 of length, and c of that more.
    zero = np.stack([g, 0 * g, g])
    np.testing.assert_allclose(solve(zero, c=c, rescale="none") @ zero, (1 + c) * 2 / 3 * g, rtol=1e-9)
    for size in (1e-30, 1e30):
        assert np.isfinite(solve(np.random.default_rng(1).standard_normal((3, 3)) * size**0.5, c=c)).all()


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_steps(tasks: int, balanced: Any, whole_gradient: Any) -> None:
    run = balanced(tasks)
    run.conflict()
    seen = []

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        rows = np.stack([whole_gradient(each) for each in gradients])
        wanted = combine(rows, 0.4, 1.16)
        seen.append(np.linalg.lstsq(rows.T, wanted, rcond=None)[0])
        return seen[-1], np.ones(tasks)

    balancer = CAGrad(run.specs(), c=0.4)
    for _ in range(4):
        run.check(balancer, reference if tasks > 1 else lambda *_: (np.ones(1), np.ones(1)))
    assert tasks == 1 or np.ptp(seen[0]) > 0.01
