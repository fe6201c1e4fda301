"""Metrics over all rows at once against scikit-learn and formulas worked here, with ties, weights and one row."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, ndcg_score

from recbole_dtn.metric.concordance import ordered_pairs
from recbole_dtn.metric.ece import ECE
from recbole_dtn.metric.gauc import GAUC
from recbole_dtn.metric.gauc_equal import EqualGAUC
from recbole_dtn.metric.hit import Hit
from recbole_dtn.metric.ndcg import NDCG
from recbole_dtn.metric.pr_auc import AveragePrecision
from recbole_dtn.metric.rauc import RAUC
from recbole_dtn.metric.rne import RecalibratedNE
from recbole_dtn.metric.xauc import XAUC


def draw(rows: int, seed: int = 0, levels: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels that depend on them, weights (0 among them) and groups."""
    random = np.random.default_rng(seed)
    scores = random.integers(levels, size=rows) / 2 - 3
    labels = (random.random(rows) < 1 / (1 + np.exp(-0.5 * scores))).astype(float)
    return scores, labels, random.integers(5, size=rows) / 2, random.integers(max(rows // 6, 1), size=rows)


def value(metric, scores, labels, weights=None, groups=None, *, batches: int = 3) -> float:
    parts = [None if part is None else torch.as_tensor(part) for part in (scores, labels, weights, groups)]
    for rows in torch.arange(len(scores)).tensor_split(batches):
        logits, truth, mass, group = (None if part is None else part[rows] for part in parts)
        metric.update(logits, truth, None, mass, group)
    return float(metric.compute())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [2, 50, 3000])
def test_average_precision_is_that_of_scikit_learn(rows: int, weighted: bool) -> None:
    scores, labels, weights, _ = draw(rows)
    labels[0], weights[0] = 1, 1
    mass = weights if weighted else None
    expected = average_precision_score(labels, scores, sample_weight=mass)
    assert value(AveragePrecision(), scores, labels, mass) == pytest.approx(expected, rel=1e-13)


def test_average_precision_of_one_class() -> None:
    assert math.isnan(value(AveragePrecision(), [0.5], [0.0], batches=1))
    assert value(AveragePrecision(), [0.5, -1.0], [1.0, 1.0]) == 1.0


# ---- calibration ----------------------------------------------------------------------------------------------------


def test_the_calibration_error_of_bins_of_ten_rows() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=150) * 2
    labels = (random.random(150) < 0.3).astype(float)
    chances, order = 1 / (1 + np.exp(-logits)), np.argsort(logits)
    # 15 bins of 10 rows: no row is divided.
    expected = [(chances[part].mean(), labels[part].mean()) for part in np.split(order, 15)]
    metric = ECE()
    found = value(metric, logits, labels)
    assert found == pytest.approx(np.mean([abs(p - y) for p, y in expected]), rel=1e-12)
    table = metric.details()["reliability"]
    assert [line["rows"] for line in table] == pytest.approx([10.0] * 15)
    np.testing.assert_allclose([(line["predicted"], line["observed"]) for line in table], expected, rtol=1e-9)


def test_equal_predictions_are_divided_among_bins() -> None:
    # Rows of .5 twice, of mass 2 and label mean .5: half of them in each of two bins, with a row of mass 1 each.
    low, high = 1 / (1 + math.e), math.e / (1 + math.e)
    metric = ECE(bins=2)
    found = value(metric, [0.0, -1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0])
    bins = ((low + 0.5) / 2, 0.25), ((high + 0.5) / 2, 0.25)
    assert found == pytest.approx(np.mean([abs(p - y) for p, y in bins]), rel=1e-13)
    assert metric.details()["reliability"][0] == pytest.approx({"rows": 2, "predicted": bins[0][0], "observed": 0.25})


def test_one_prediction_for_all_rows_is_off_by_its_distance_from_the_rate() -> None:
    assert value(ECE(), [0.0] * 10, [1.0] * 2 + [0.0] * 8) == pytest.approx(0.3, abs=1e-14)


def test_the_recalibrated_entropy_is_that_of_the_fit_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    logits = random.normal(size=4000) * 3 + 2
    labels = (random.random(4000) < 1 / (1 + np.exp(-(0.4 * logits - 1.5)))).astype(float)
    metric = RecalibratedNE()
    found = value(metric, logits, labels)
    fit = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(logits[:, None], labels)
    rate = labels.mean()
    expected = log_loss(labels, fit.predict_proba(logits[:, None])[:, 1]) / log_loss([0, 1], [rate, rate],
        sample_weight=[1 - rate, rate])  # fmt: skip
    # Platt's targets move the minimum by about one row in 4,000.
    assert found == pytest.approx(expected, abs=1e-6)
    told = metric.details()
    assert (told["slope"], told["intercept"]) == pytest.approx((fit.coef_[0, 0], fit.intercept_[0]), abs=5e-3)


def test_the_fit_is_where_the_gradient_vanishes_also_if_classes_are_apart() -> None:
    logits, labels, weights = np.array([900.0, 901.0, 905.0, 950.0]), np.array([0, 0, 1, 1]), np.array([1, 2, 1, 3.0])
    metric = RecalibratedNE()
    assert 0 < value(metric, logits, labels, weights) < 1
    told = metric.details()
    chances = 1 / (1 + np.exp(-(told["slope"] * logits + told["intercept"])))
    residual = weights * (chances - np.where(labels == 1, 5 / 6, 1 / 5))  # (P + 1) / (P + 2) and 1 / (N + 2): 4 and 3
    assert residual.sum() == pytest.approx(0, abs=1e-7)
    assert residual @ (logits - 900) == pytest.approx(0, abs=1e-6)


def test_a_fit_on_other_rows_is_used_and_kept_over_a_reset() -> None:
    scores, labels, _, _ = draw(60)
    metric = RecalibratedNE()
    metric.use_fit({"slope": 2.0, "intercept": -1.0})
    chances, rate = 1 / (1 + np.exp(-(2 * scores - 1))), labels.mean()
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    for _ in range(2):
        assert value(metric, scores, labels) == pytest.approx(log_loss(labels, chances) / entropy, rel=1e-12)
        assert metric.details() == {"slope": 2.0, "intercept": -1.0}
        metric.reset()


# ---- pairs of a regression ------------------------------------------------------------------------------------------


def pairs_one_by_one(scores, labels, weights) -> tuple[float, float]:
    """Weight of the pairs with different labels, and of those in the right order."""
    pairs = right = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if labels[i] > labels[j]:
                pairs += weights[i] * weights[j]
                right += weights[i] * weights[j] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return pairs, right


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "levels"), [(1, 3), (2, 2), (7, 3), (61, 1), (90, 5), (90, 1000)])
def test_ordered_pairs_are_those_counted_one_by_one(rows: int, levels: int, weighted: bool) -> None:
    scores, _, weights, groups = draw(rows, levels=levels)
    labels = np.random.default_rng(3).integers(8, size=rows) * 1000.0
    mass = weights if weighted else np.ones(rows)
    found = ordered_pairs(scores, labels, groups, weights if weighted else None)
    expected = [
        (*pairs_one_by_one(*(part[groups == group] for part in (scores, labels, mass))), mass[groups == group].sum())
        for group in np.unique(groups)
    ]
    np.testing.assert_allclose(np.stack(found, 1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_xauc_and_its_means_over_groups(weighted: bool) -> None:
    scores, _, weights, groups = draw(80)
    labels = np.random.default_rng(4).integers(9, size=80) * 1.0
    labels[groups == 3] = 2.0  # a group without a pair
    weights = weights + 0.5
    mass = weights if weighted else np.ones(80)
    given = weights if weighted else None
    pairs, right = pairs_one_by_one(scores, labels, mass)
    assert value(XAUC(), scores, labels, given) == pytest.approx(right / pairs, rel=1e-12)
    each = [(pairs_one_by_one(*(part[groups == g] for part in (scores, labels, mass))), mass[groups == g].sum())
            for g in np.unique(groups)]  # fmt: skip
    counted = [(pairs, right / pairs, size) for (pairs, right), size in each if pairs > 0]
    assert 0 < len(counted) < len(each)
    sizes, shares = [size for *_, size in counted], [share for _, share, _ in counted]
    for by, means in (("impressions", sizes), ("equal", None), ("pairs", [pairs for pairs, *_ in counted])):
        metric = RAUC(weights=by)
        expected = np.average(shares, weights=means)
        assert value(metric, scores, labels, given, groups) == pytest.approx(expected, rel=1e-12)
        assert metric.details() == {"groups": len(counted), "groups_left_out": len(each) - len(counted)}


def test_xauc_of_two_classes_is_the_auc_and_equal_labels_have_none() -> None:
    # Positives .8 and .4 against negatives .4 and .1: three pairs of four, and a tie.
    assert value(XAUC(), [0.1, 0.4, 0.4, 0.8], [0.0, 0.0, 1.0, 1.0]) == 0.875
    assert math.isnan(value(XAUC(), [1.0, 2.0], [5.0, 5.0]))
    assert math.isnan(value(RAUC(), [1.0, 2.0], [5.0, 6.0], groups=[0, 1]))


# ---- rankings of groups ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 10, 1000])
def test_ndcg_is_that_of_scikit_learn(k: int) -> None:
    scores, labels, _, groups = draw(400)
    positive = [g for g in np.unique(groups) if labels[groups == g].any()]
    several = [g for g in positive if (groups == g).sum() > 1]
    assert len(positive) < len(np.unique(groups))
    expected = [ndcg_score([labels[groups == g]], [scores[groups == g]], k=k) for g in several]
    expected += [1.0] * (len(positive) - len(several))  # scikit-learn refuses one row; it is in its best order
    metric = NDCG(k=k)
    assert value(metric, scores, labels, groups=groups) == pytest.approx(np.mean(expected), rel=1e-12)
    left_out = len(np.unique(groups)) - len(positive)
    assert metric.details() == {"groups": len(positive), "groups_left_out": left_out}


def test_ndcg_of_fractions_of_a_place() -> None:
    # A negative fills half of the first place; half the positive has the other half, of discount 1 / log2(2) = 1, and
    # half the second place.
    found = value(NDCG(k=2), [2.0, 1.0], [0.0, 1.0], [0.5, 1.0], [0, 0])
    assert found == pytest.approx(0.5 * 1 + 0.5 / math.log2(3), rel=1e-14)


@pytest.mark.parametrize("k", [1, 2, 4, 7, 50])
def test_hit_is_the_share_of_all_orders_of_tied_rows(k: int) -> None:
    """Orders are drawn by adding noise that is smaller than the distance of two scores."""
    scores, labels, _, groups = draw(120, seed=5, levels=3)
    labels *= np.random.default_rng(6).random(120) < 0.3
    random, draws, hits = np.random.default_rng(7), 2000, 0
    positive = [g for g in np.unique(groups) if labels[groups == g].any()]
    for _ in range(draws):
        noisy = scores + random.random(120) * 0.1
        for g in positive:
            own = np.argsort(-noisy[groups == g])[:k]
            hits += labels[groups == g][own].any()
    found = value(Hit(k=k), scores, labels, groups=groups)
    assert found == pytest.approx(hits / draws / len(positive), abs=0.006)


def test_hit_by_hand() -> None:
    # Five tied rows with two positives, two places: 1 - (3 / 5)(2 / 4).
    assert value(Hit(k=2), [1.0] * 5, [1, 1, 0, 0, 0.0], groups=[0] * 5) == pytest.approx(0.7, rel=1e-14)
    # A negative is above them: one place is left for them.
    assert value(Hit(k=2), [1.0] * 5 + [2.0], [1, 1, 0, 0, 0, 0.0], groups=[0] * 6) == pytest.approx(0.4, rel=1e-14)
    # A positive above; a group without one; nothing at all.
    assert value(Hit(k=1), [1.0, 2.0, 3.0], [0, 1, 0.0], groups=[0, 0, 1]) == 1.0
    assert math.isnan(value(Hit(k=1), [1.0], [0.0], groups=[0], batches=1))


def test_the_plain_mean_over_groups_beside_the_weighted_one() -> None:
    scores, labels, weights, groups = draw(200)
    for mass in (None, weights):
        expected = value(GAUC(weights="equal"), scores, labels, mass, groups)
        assert value(EqualGAUC(), scores, labels, mass, groups) == expected
        assert value(GAUC(), scores, labels, mass, groups) != expected
