"""Exact AUC against scikit-learn and against counting all pairs."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recbole_dtn.metric import auc, kept, pairs
from recbole_dtn.metric.auc import ExactAUC, exact_auc


def draw(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = 100_000 if kind == "many" else 4_000
    labels = rng.random(rows) < (0.03 if kind == "rare" else 0.3)
    scores = (rng.normal(size=rows) + 0.7 * labels).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores * 2) / 2
    if kind == "extreme":
        scores = (scores * np.float32(1e37)).astype(np.float32)
        scores[:5] = np.finfo(np.float32).smallest_subnormal * np.arange(-2, 3)
    if kind == "saturated":
        scores = scores * 3 + 40  # as probabilities in float32 all of these would be 1
    if kind == "signed zeros":
        scores = np.where(rng.random(rows) < 0.5, np.float32(-0.0), np.float32(0.0)) + (scores > 1)
        scores[scores == 0] *= np.where(rng.random((scores == 0).sum()) < 0.5, -1, 1)
    if kind == "constant":
        scores = np.full(rows, -3.25, dtype=np.float32)
    return scores.astype(np.float32), labels


KINDS = ["many", "rare", "ties", "extreme", "saturated", "signed zeros", "constant"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_equals_scikit_learn(kind: str, dtype: torch.dtype) -> None:
    scores, labels = draw(kind)
    found = exact_auc(torch.tensor(scores).to(dtype), torch.tensor(labels))
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)


def test_the_signed_zeros_above_really_have_both_signs() -> None:
    scores, _ = draw("signed zeros")
    zeros = scores[scores == 0]
    assert 0 < np.signbit(zeros).sum() < len(zeros)


@pytest.mark.parametrize("kind", KINDS)
def test_weighted_it_equals_scikit_learn(kind: str) -> None:
    scores, labels = draw(kind)
    weights = np.random.default_rng(4).random(len(scores)).astype(np.float32) * 3
    weights[::7] = 0
    found = exact_auc(torch.tensor(scores), torch.tensor(labels), torch.tensor(weights))
    assert found == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights.astype(np.float64)), abs=1e-9)


def test_it_counts_pairs() -> None:
    scores, labels = torch.tensor([3.0, 1.0, 1.0, -2.0, 1.0]), torch.tensor([1, 1, 0, 0, 0])
    # 3 beats all three negatives; 1 beats -2 and ties with two: 3 + 1 + 2 / 2 = 5 of 6 pairs.
    assert exact_auc(scores, labels) == 5 / 6
    # The tied positive weighs 3, one tied negative 2: (1*4 + 3*(1 + (2 + 1) / 2)) / (4 * 4)
    assert exact_auc(scores, labels, torch.tensor([1.0, 3.0, 2.0, 1.0, 1.0])) == (4 + 3 * 2.5) / 16


def test_infinite_scores_are_ordered() -> None:
    scores = torch.tensor([float("-inf"), -1.0, 1.0, float("inf")])
    assert exact_auc(scores, torch.tensor([0, 1, 0, 1])) == 0.75


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_one_class_or_no_row_is_undefined(labels: list[int]) -> None:
    scores = torch.zeros(len(labels))
    assert math.isnan(exact_auc(scores, torch.tensor(labels)))
    assert math.isnan(exact_auc(scores, torch.tensor(labels), torch.ones(len(labels))))


def test_a_class_without_weight_and_a_nan_score_are_undefined() -> None:
    assert math.isnan(exact_auc(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), torch.tensor([1.0, 0.0])))
    assert math.isnan(exact_auc(torch.tensor([0.0, float("nan")]), torch.tensor([0, 1])))


def test_bfloat16_scores_keep_their_ties() -> None:
    scores, labels = draw("many")
    rounded = torch.tensor(scores).bfloat16()
    assert exact_auc(rounded, torch.tensor(labels)) == pytest.approx(
        roc_auc_score(labels, rounded.float().numpy()), abs=1e-9
    )


def test_the_metric_over_batches_is_that_of_all_rows() -> None:
    scores, labels = draw("ties")
    metric = ExactAUC()
    for start in range(0, len(scores), 999):
        metric.update(torch.tensor(scores[start : start + 999]), torch.tensor(labels[start : start + 999]).float())
    assert metric.compute().item() == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)


def test_sample_weights_of_some_batches_only_are_refused() -> None:
    metric = ExactAUC()
    metric.update(torch.zeros(2), torch.tensor([0.0, 1.0]))
    metric.update(torch.zeros(2), torch.tensor([0.0, 1.0]), sample_weight=torch.ones(2))
    with pytest.raises(ValueError, match="2 weights for 4 rows"):
        metric.compute()


def counted(scores: np.ndarray, labels: np.ndarray) -> float:
    """By the definition: every pair of a positive and a negative."""
    positives, negatives = scores[labels][:, None], scores[~labels][None, :]
    if not positives.size or not negatives.size:
        return math.nan
    twice = 2 * int((positives > negatives).sum()) + int((positives == negatives).sum())
    return float(Fraction(twice, 2 * positives.size * negatives.size))


TINY = np.finfo(np.float32).smallest_subnormal
LEVELS = np.array(
    [-np.inf, -3e38, -1, -TINY, -0.0, 0.0, TINY, 2 * TINY, 0.5, np.nextafter(np.float32(0.5), 1), 3e38, np.inf],
    np.float32,
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_it_is_the_definition_to_the_last_bit(dtype: type, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # So small that pieces of the classes, and slices of them, end within runs of equal scores.
    monkeypatch.setattr(pairs, "SLICE", 3)
    monkeypatch.setattr(pairs, "LEAST_PER_THREAD", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    random = np.random.default_rng(11)
    undefined = 0
    for rows in [*range(1, 40), 200]:
        for share in (0.05, 0.5, 0.9):
            scores = random.choice(LEVELS, rows).astype(dtype)
            labels = random.random(rows) < share
            expected = counted(scores, labels)
            undefined += math.isnan(expected)
            for found in (
                exact_auc(torch.tensor(scores), torch.tensor(labels)),
                auc._device_auc(torch.tensor(scores[labels]), torch.tensor(scores[~labels])),
            ):
                assert found == expected or (math.isnan(found) and math.isnan(expected)), (scores, labels)
    assert 0 < undefined < 60


def test_a_nan_in_either_class_is_undefined_on_a_device_too() -> None:
    nan, number = torch.tensor([0.0, math.nan]), torch.tensor([1.0])
    assert math.isnan(auc._device_auc(nan, number))
    assert math.isnan(auc._device_auc(number, nan))
    assert math.isnan(exact_auc(torch.tensor([math.nan, 1.0, 2.0]), torch.tensor([0, 1, 0])))


def test_integers_that_float32_cannot_hold_stay_apart() -> None:
    assert exact_auc(torch.tensor([2**24, 2**24 + 1]), torch.tensor([0, 1])) == 1.0


def test_scores_given_are_left_as_they_are() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0])
    exact_auc(scores, torch.tensor([0, 0, 1]))
    assert scores.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_small_parts_are_put_together_and_nothing_is_lost(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PARTS", 4)
    monkeypatch.setattr(kept, "BLOCK", 50)
    scores, labels = draw("ties")
    weights = torch.tensor(np.random.default_rng(4).random(len(scores)).astype(np.float32))
    metric = ExactAUC()
    for start in range(0, len(scores), 20):
        part = slice(start, start + 20)
        metric.update(
            torch.tensor(scores[part]),
            torch.tensor(labels[part]).float(),
            sample_weight=weights[part] if weighted else None,
        )
        if start == 1000:
            metric.compute()  # in the middle: it may put scores in order, but not lose the weights that go with them
    parts = [part for name in metric.kept for part in getattr(metric, name)]
    assert sum(part.nbytes for part in parts) == (8 if weighted else 4) * len(scores)
    assert max(len(getattr(metric, name)) for name in metric.kept) < len(scores) / 20 / 2
    mass = weights.numpy() if weighted else None
    assert metric.compute().item() == pytest.approx(roc_auc_score(labels, scores, sample_weight=mass), abs=1e-9)
    metric.reset()
    assert math.isnan(metric.compute())


def test_float64_scores_keep_their_order() -> None:
    # In float32 all four are equal, and the AUC 1/2.
    scores, labels = torch.tensor([1.0, 1 + 1e-9, 1 + 2e-9, 1 + 3e-9], dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    for weights in (None, torch.ones(4)):
        metric = ExactAUC()
        for row in range(4):
            part = slice(row, row + 1)
            metric.update(scores[part], labels[part], sample_weight=None if weights is None else weights[part])
        assert metric.compute().item() == 0.75
