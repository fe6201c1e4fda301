"""The bootstrap over seeds x users against plain loops with the same draws, scipy, and an O(N^2) version of DeLong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from recbole_dtn.metric import crossed
from recbole_dtn.metric.crossed import Draws, Sample, drawn_values, of_sample, over_both, sample_error

SEEDS, ROWS, USERS, DRAWS = 3, 60, 13, 70  # more draws than are computed at a time


def data(*, ties: bool = True) -> tuple[Any, Any, Any, Any]:
    """Scores of two models, labels, users."""
    random = np.random.default_rng(5)
    labels = (random.random(ROWS) < 0.4).astype(np.float32)
    scores = random.normal(size=(2, SEEDS, ROWS)) + 0.5 * labels
    scores = np.round(scores * 2) / 2 if ties else scores
    return scores[0].astype(np.float32), scores[1].astype(np.float32), labels, random.integers(USERS, size=ROWS)


def pairs_won(scores: Any, labels: Any, weights: Any) -> float:
    """AUC by looking at every pair of rows."""
    won = whole = 0.0
    for i in np.flatnonzero(labels > 0.5):
        for j in np.flatnonzero(labels <= 0.5):
            pair = float(weights[i] * weights[j])
            whole += pair
            won += pair * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    return won / whole if whole else math.nan


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("by_user", [False, True])
def test_drawn_aucs_are_those_of_a_plain_loop(weighted: bool, by_user: bool) -> None:
    scores, _, labels, users = data()
    units = users if by_user else np.arange(ROWS)
    mass = np.random.default_rng(1).random(ROWS) + 0.1 if weighted else None
    draws = Draws(int(units.max()) + 1, DRAWS, 7)
    counts = draws.whole
    values, drawn = drawn_values("auc", scores, Sample(labels, units, mass), draws)
    weights = np.ones(ROWS) if mass is None else mass
    assert values == pytest.approx([pairs_won(line, labels, weights) for line in scores], abs=1e-6)
    for draw in (0, 1, 63, 64, DRAWS - 1):
        expected = [pairs_won(line, labels, weights * counts[draw, units]) for line in scores]
        assert drawn[:, draw] == pytest.approx(expected, abs=1e-6)


def test_a_draw_of_one_class_is_undefined_and_left_out() -> None:
    sample = Sample(np.array([1.0, 0.0, 0.0]), np.arange(3))
    draws = Draws.of([[0, 2, 1], [1, 1, 1], [1, 2, 0], [3, 0, 0]])
    _, drawn = drawn_values("auc", np.array([[0.5, 0.2, 0.9]], np.float32), sample, draws)
    assert drawn[0] == pytest.approx([math.nan, 0.5, 1.0, math.nan], nan_ok=True)
    found = of_sample(np.column_stack([[0.5], drawn]), np.zeros((1, 5)))
    assert (found.low, found.high) == pytest.approx((0.5125, 0.9875))


def test_large_samples_are_expanded_to_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    labels = (random.random(3000) < 0.3).astype(np.float32)
    scores = (random.normal(size=(1, 3000)) + labels).astype(np.float32)
    sample, draws = Sample(labels, random.integers(400, size=3000)), Draws(400, 500, 3)
    exact = drawn_values("auc", scores, sample, draws)
    monkeypatch.setattr(crossed, "EXACT", 1)
    expanded = drawn_values("auc", scores, sample, draws)
    assert expanded[0] == pytest.approx(exact[0])
    assert expanded[1].std() == pytest.approx(exact[1].std(), rel=0.01)
    assert np.abs(expanded[1] - exact[1]).mean() < 0.05 * exact[1].std()


def test_drawn_rmse() -> None:
    scores, _, labels, users = data()
    draws = Draws(USERS, DRAWS, 7)
    values, drawn = drawn_values("rmse", scores, Sample(labels, users), draws)
    counts = draws.whole
    weights = counts[3, users].astype(float)
    for place, line in enumerate(scores.astype(float)):
        assert values[place] == pytest.approx(math.sqrt(np.mean((line - labels) ** 2)))
        assert drawn[place, 3] == pytest.approx(math.sqrt(np.average((line - labels) ** 2, weights=weights)))


def test_seeds_and_users_are_drawn_at_once() -> None:
    one, two, labels, users = data()
    draws = Draws(USERS, DRAWS, 7)
    mine, theirs = (np.column_stack(drawn_values("auc", s, Sample(labels, users), draws)) for s in (one, two))
    counts = draws.whole
    found = over_both(mine, theirs, seed=11)
    taken = np.random.default_rng([11, SEEDS]).integers(SEEDS, size=(DRAWS, SEEDS))
    differences = []
    for draw in range(DRAWS):
        weights = counts[draw, users].astype(float)
        of_seeds = [pairs_won(one[s], labels, weights) - pairs_won(two[s], labels, weights) for s in taken[draw]]
        differences.append(sum(of_seeds) / SEEDS)
    ones = np.ones(ROWS)
    whole = [pairs_won(one[s], labels, ones) - pairs_won(two[s], labels, ones) for s in range(SEEDS)]
    assert found.difference == pytest.approx(sum(whole) / SEEDS, abs=1e-6)
    assert found.standard_error == pytest.approx(np.std(differences, ddof=1), abs=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-6)
    sides = sum(d <= 0 for d in differences), sum(d >= 0 for d in differences)
    assert found.p == pytest.approx(min(1.0, 2 * (min(sides) + 1) / (DRAWS + 1)))


def test_the_sample_alone_agrees_with_scipys_bootstrap() -> None:
    one, two, labels, _ = data(ties=False)
    sample = Sample(labels, np.arange(ROWS), grouped=False)
    draws = Draws(ROWS, 2000, 1)
    mine, theirs = (np.column_stack(drawn_values("auc", s[:1], sample, draws)) for s in (one, two))
    found = of_sample(mine, theirs)

    def difference(a: Any, b: Any, y: Any) -> Any:
        high, low = y > 0.5, y <= 0.5
        return sum(sign * (s[high][:, None] > s[low]).mean() for sign, s in ((1, a), (-1, b)))

    theirs_ = stats.bootstrap(
        (one[0], two[0], labels), difference, paired=True, vectorized=False, n_resamples=2000, method="percentile",
        rng=np.random.default_rng(4),
    )  # fmt: skip
    assert found.difference == pytest.approx(difference(one[0], two[0], labels))
    assert found.standard_error == pytest.approx(float(theirs_.standard_error), rel=0.08)
    interval = theirs_.confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.03)


def test_delong_of_a_mean_over_seeds_against_all_pairs() -> None:
    one, two, labels, _ = data()
    positives, negatives = np.flatnonzero(labels > 0.5), np.flatnonzero(labels <= 0.5)
    # Kernel of the difference of mean AUCs, (m, n); DeLong's variance is that of its row and column means.
    kernel = np.zeros((len(positives), len(negatives)))
    for sign, scores in ((1, one), (-1, two)):
        for line in scores:
            for i, p in enumerate(positives):
                for j, n in enumerate(negatives):
                    kernel[i, j] += sign * ((line[p] > line[n]) + 0.5 * (line[p] == line[n])) / SEEDS
    m, n = kernel.shape
    expected = math.sqrt(kernel.mean(1).var(ddof=1) / m + kernel.mean(0).var(ddof=1) / n)
    found = sample_error(one, two, Sample(labels, np.arange(ROWS), grouped=False))
    assert found.difference == pytest.approx(kernel.mean())
    assert found.standard_error == pytest.approx(expected)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * expected, rel=1e-6)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(kernel.mean()) / expected))
