"""Paired tests: by hand, against the matrix of pairs, against an independent bootstrap, and under no difference."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import norm

from recbole_dtn.metric import paired
from recbole_dtn.metric.base import Rows, TaskMetric
from recbole_dtn.metric.paired import Paired, holm, paired_auc, paired_bootstrap
from recbole_dtn.metric.sums import SUMS, sum_error
from recbole_dtn.registry import METRICS, Entry


def draw(rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two scores, labels, and groups of uneven size."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, rows) ** 2 // 30
    labels = (rng.random(rows) < 0.35).astype(np.float64)
    base = rng.normal(size=rows) + rng.normal(size=30)[groups] * 0.8
    return base + labels, np.round(base + 0.6 * labels + 0.5 * rng.normal(size=rows), 1), labels, groups


def rows_of(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, weights=None) -> Rows:
    parts = [None if part is None else torch.tensor(part) for part in (weights, groups)]
    return Rows(torch.tensor(scores), torch.tensor(labels), *parts)


def test_a_difference_by_hand() -> None:
    # Placements of the positives .35, .8: 1/2, 1 and 1/2, 1/2. Of the negatives: 1, 1/2 and 1, 0. Differences 0, 1/2
    # in both classes, so variances of 1/8 each: (1/8) / 2 + (1/8) / 2.
    found = paired_auc([0.1, 0.4, 0.35, 0.8], [0.1, 0.9, 0.35, 0.8], [0, 0, 1, 1])
    error = math.sqrt(1 / 8)
    assert (found.difference, found.standard_error) == pytest.approx((0.25, error), abs=1e-15)
    assert (found.low, found.high) == pytest.approx((0.25 - 1.959964 * error, 0.25 + 1.959964 * error), abs=1e-6)
    assert found.p == pytest.approx(2 * norm.sf(0.25 / error), abs=1e-12)


def test_the_same_order_is_no_difference_and_one_class_is_undefined() -> None:
    assert paired_auc([1, 2, 3, 4], [10, 20, 30, 40], [0, 1, 0, 1]) == Paired(0.0, 0.0, 0.0, 0.0, 1.0)
    assert all(math.isnan(part) for part in vars(paired_auc([1, 2], [2, 1], [1, 1])).values())
    assert math.isnan(paired_auc([1, 2, 3], [3, 2, 1], [0, 0, 1]).p)


def measure(metric: str, scores: np.ndarray, labels: np.ndarray):
    """A function of how often each row counts; the AUC by the matrix of all pairs."""
    positive, chances = labels > 0.5, 1 / (1 + np.exp(-scores))
    if metric == "auc":
        own, other = scores[positive][:, None], scores[~positive][None]
        kernel = (own > other) + 0.5 * (own == other)
        return lambda times: (
            times[positive] @ kernel @ times[~positive] / (times[positive].sum() * times[~positive].sum())
        )
    if metric == "calibration":
        return lambda times: (times * chances).sum() / (times * labels).sum()
    losses = -np.log(np.where(positive, chances, 1 - chances))
    return lambda times: (times * losses).sum() / times.sum()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("metric", ["auc", "logloss", "calibration"])
def test_the_bootstrap_is_that_of_a_plain_loop(metric: str, grouped: bool, monkeypatch) -> None:
    monkeypatch.setattr(paired, "BLOCK", 2000)  # several blocks of draws
    first, second, labels, groups = draw()
    given = groups if grouped else None
    found = paired_bootstrap(metric, *(rows_of(part, labels, given) for part in (first, second)), draws=400, seed=1)
    units = np.unique(groups, return_inverse=True)[1] if grouped else np.arange(len(labels))
    measures = [measure(metric, part, labels) for part in (first, second)]
    rng, values = np.random.default_rng(9), []
    for _ in range(400):
        times = np.bincount(rng.integers(units.max() + 1, size=units.max() + 1), minlength=units.max() + 1)
        values.append(measures[0](times[units]) - measures[1](times[units]))
    every = np.ones(len(labels))
    assert found.difference == pytest.approx(measures[0](every) - measures[1](every), abs=1e-12)
    # A standard deviation of 400 draws is right to 1 / sqrt(800) = 3.5 %, and the ratio of two to 5 %.
    assert found.standard_error / np.std(values, ddof=1) == pytest.approx(1.0, abs=0.2)
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.35 * (high - low))


@pytest.mark.parametrize("grouped", [False, True])
def test_delong_and_the_bootstrap_agree(grouped: bool) -> None:
    first, second, labels, groups = draw(600)
    given = groups if grouped else None
    one = paired_auc(first, second, labels, groups=given)
    two = paired_bootstrap("auc", rows_of(first, labels, given), rows_of(second, labels, given))
    assert one.difference == pytest.approx(two.difference, abs=1e-12)
    assert one.standard_error / two.standard_error == pytest.approx(1.0, abs=0.15)
    assert abs(one.p - two.p) < 0.06


def test_a_true_difference_of_zero_is_found_in_five_per_cent_of_samples() -> None:
    rng, found = np.random.default_rng(8), []
    for _ in range(400):
        users = np.repeat(np.arange(50), 4)
        taste = rng.normal(size=50)[users]
        labels = (rng.random(200) < 1 / (1 + np.exp(1 - taste))).astype(float)
        # Equally noisy, so that neither is better.
        scores = [taste + rng.normal(size=50)[users] for _ in range(2)]
        found.append(paired_auc(*scores, labels, groups=users).p < 0.05)
    assert np.mean(found) == pytest.approx(0.05, abs=0.035)  # three standard errors


def test_a_seed_repeats_and_weights_of_zero_do_not_count() -> None:
    first, second, labels, groups = draw()
    weights = (np.arange(len(labels)) % 3).astype(float)
    kept = weights > 0
    for metric in ("auc", "logloss", "gauc"):
        one, two, three = (
            paired_bootstrap(
                metric,
                *(rows_of(part[chosen], labels[chosen], groups[chosen], weights[chosen]) for part in (first, second)),
                draws=50,
                seed=seed,
            )
            for chosen, seed in ((slice(None), 1), (kept, 1), (kept, 2))
        )
        assert one == two
        assert one.low != three.low


class Loss(TaskMetric):
    """The log loss as a metric that the bootstrap knows nothing of."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("loss")
        self.add_sum("weight")

    def add(self, rows: Rows) -> None:
        self.loss += (rows.mass * torch.nn.functional.softplus((1 - 2 * rows.labels) * rows.logits)).sum()
        self.weight += rows.mass.sum()

    def compute(self) -> torch.Tensor:
        return self.loss / self.weight


def test_draws_without_a_positive_are_left_out_in_silence() -> None:
    # Two positives of 40 rows: a draw misses both with a probability of .95^40 = .13, and NE is not finite there.
    labels = np.arange(40) < 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired_bootstrap(
            "ne", rows_of(labels - 2.0, labels * 1.0, None), rows_of(labels * 0 - 3.0, labels * 1.0, None), draws=200
        )
    assert math.isfinite(found.standard_error)
    assert found.low < found.difference < found.high


def test_any_other_metric_is_evaluated_draw_by_draw(monkeypatch) -> None:
    monkeypatch.setitem(METRICS._entries, "my_loss", Entry("my_loss", Loss, "", origin="here"))
    first, second, labels, groups = draw()
    both = [rows_of(part, labels, groups) for part in (first, second)]
    own, known = (paired_bootstrap(name, *both, draws=20) for name in ("my_loss", "logloss"))
    assert vars(own) == pytest.approx(vars(known), abs=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("metric", sorted(SUMS))
def test_the_error_of_a_sum_is_that_of_the_bootstrap(metric: str, grouped: bool) -> None:
    first, second, labels, groups = draw(600)
    labels = second if metric in ("rmse", "mae") else labels
    rows = rows_of(first, labels, groups if grouped or metric == "gauc" else None)
    units = paired._units(metric, rows)
    number = int(units.max()) + 1
    drawn = np.random.default_rng(4).multinomial(number, np.full(number, 1 / number), size=1000)
    values = paired._values(metric, rows, units, {})(drawn)
    assert sum_error(metric, rows) / np.std(values, ddof=1) == pytest.approx(1.0, abs=0.12)


def test_the_error_of_a_mean_by_hand() -> None:
    # Losses log 2, log 2, and log(1 + e^-2) twice: as groups {0, 1} and {2, 3}, half the difference of two means of
    # equal weight: sqrt(2 (d / 4)^2 * 2), d the difference of the two losses.
    logits, labels = torch.tensor([0.0, 0.0, 2.0, -2.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    apart = math.log(2) - math.log(1 + math.exp(-2))
    assert sum_error("logloss", Rows(logits, labels, group=torch.tensor([0, 0, 1, 1]))) == pytest.approx(apart / 2)
    # Alone: standard deviation sqrt(4 (d/2)^2 / 3), over sqrt(4).
    assert sum_error("logloss", Rows(logits, labels)) == pytest.approx(apart / 2 / math.sqrt(3))
    assert math.isnan(sum_error("logloss", Rows(logits[:1], labels[:1])))


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .04 .5, times 4 3 2 1; a value is never below the one before it.
    assert holm([0.5, 0.01, 0.04, 0.02]) == pytest.approx([0.5, 0.04, 0.08, 0.06])
    assert holm([0.04, 0.03, 0.9]) == pytest.approx([0.09, 0.09, 0.9])
    assert holm([0.8, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
