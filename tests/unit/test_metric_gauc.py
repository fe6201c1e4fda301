"""Grouped AUC against scikit-learn, group by group."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recbole_dtn.metric import gauc
from recbole_dtn.metric.gauc import GAUC, grouped_auc, grouped_auc_with_error


def draw(kind: str, rows: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    groups = np.sort(rng.zipf(1.4, rows) % 60)[rng.permutation(rows)]
    labels = rng.random(rows) < 0.2
    scores = rng.normal(size=rows) + labels
    if kind == "ties":
        scores = np.round(scores * 2) / 2
    if kind == "signed zeros":
        scores = np.where(rng.random(rows) < 0.5, -0.0, 0.0) + (scores > 1)
    if kind == "extreme":
        scores = np.clip(scores * 1e38, -3e38, 3e38)
    if kind == "one group":
        groups[:] = 5
    if kind == "groups of one":
        groups = np.arange(rows) // 2 - 7  # two rows each; the numbers of some are negative
    if kind == "huge numbers":
        groups = groups * 10**12 - 5 * 10**12
    return scores.astype(np.float32), labels, groups.astype(np.int64)


def by_definition(scores, labels, groups, weights=None, equal=False) -> float:
    total = share = 0.0
    for group in np.unique(groups):
        rows = groups == group
        mass = np.ones(rows.sum()) if weights is None else weights[rows].astype(np.float64)
        positive = labels[rows]
        if not (mass[positive].sum() > 0 and mass[~positive].sum() > 0):
            continue
        part = 1.0 if equal else mass.sum()
        total += part * roc_auc_score(positive, scores[rows].astype(np.float64), sample_weight=mass)
        share += part
    return total / share


KINDS = ["plain", "ties", "signed zeros", "extreme", "one group", "groups of one", "huge numbers"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by", ["impressions", "equal"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_scikit_learn(kind: str, weighted: bool, by: str, dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setattr(gauc, "BLOCK", 100)  # so that blocks end within groups, and groups are longer than a block
    scores, labels, groups = draw(kind)
    weights = np.random.default_rng(1).random(len(scores)).astype(np.float32) if weighted else None
    if weighted:
        weights[::3] = 0
    found = grouped_auc(
        torch.tensor(scores).to(dtype),
        torch.tensor(labels),
        torch.tensor(groups),
        torch.tensor(weights) if weighted else None,
        by,
    )
    assert found == pytest.approx(by_definition(scores, labels, groups, weights, by == "equal"), abs=1e-12)


def test_by_hand() -> None:
    # Group 0: 2 of 2 pairs; group 1: one tie; group 2 has one class only. (3 * 1 + 2 * 1/2) / 5 and (1 + 1/2) / 2.
    scores = torch.tensor([0.3, 0.1, 0.2, 5.0, 5.0, 9.0])
    labels, groups = torch.tensor([1, 0, 0, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 2])
    assert grouped_auc(scores, labels, groups) == 0.8
    assert grouped_auc(scores, labels, groups, by="equal") == 0.75
    for option, expected in (("impressions", 0.8), ("equal", 0.75)):
        metric = GAUC(weights=option)
        metric.update(scores, labels, group=groups)
        assert metric.compute().item() == expected


def test_the_standard_error_is_that_of_the_sample_of_groups() -> None:
    # AUC 1 (3 rows), 1/2 (2 rows) and 0 (2 rows). By rows: mean 4/7, deviations 3/7, -1/14 and -4/7.
    scores = torch.tensor([0.3, 0.1, 0.2, 5.0, 5.0, 1.0, 2.0, 9.0])
    labels, groups = torch.tensor([1, 0, 0, 1, 0, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 4, 4, 2])
    spread = (3 * 3 / 7) ** 2 + (2 / 14) ** 2 + (2 * 4 / 7) ** 2
    by_rows = (4 / 7, math.sqrt(3 / 2 * spread) / 7)
    # All the same: the standard deviation of 1, 1/2 and 0 over the root of 3.
    for option, expected in (("impressions", by_rows), ("equal", (0.5, 0.5 / math.sqrt(3)))):
        metric = GAUC(weights=option)
        metric.update(scores, labels, group=groups)
        assert (metric.compute().item(), metric.standard_error().item()) == pytest.approx(expected, abs=1e-15)
        doubled = grouped_auc_with_error(scores, labels, groups, torch.full((8,), 2.0), option)
        assert doubled == pytest.approx(expected, abs=1e-15)
    alone = grouped_auc_with_error(scores[:3], labels[:3], groups[:3])
    assert alone[0] == 1.0
    assert math.isnan(alone[1])


def test_one_group_is_the_auc() -> None:
    scores, labels, _ = draw("ties")
    found = grouped_auc(torch.tensor(scores), torch.tensor(labels), torch.zeros(len(scores), dtype=torch.int64))
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)


def test_no_group_with_both_classes_is_undefined() -> None:
    assert math.isnan(grouped_auc(torch.tensor([]), torch.tensor([]), torch.tensor([], dtype=torch.int64)))
    assert math.isnan(grouped_auc(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), torch.tensor([3, 4])))
    both = (torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), torch.tensor([3, 3]))
    assert math.isnan(grouped_auc(*both, torch.tensor([0.0, 1.0])))
    assert grouped_auc(*both) == 1.0
    assert math.isnan(grouped_auc(torch.tensor([1.0, math.nan]), *both[1:]))


def test_float64_scores_that_float32_cannot_tell_apart() -> None:
    scores = torch.tensor([1.0, 1 + 1e-9, 1.0, 1 + 1e-9], dtype=torch.float64)
    assert grouped_auc(scores, torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1])) == 0.5
    assert grouped_auc(scores, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])) == 1.0


@pytest.mark.parametrize("first", [0, 2**30 - 1, 2**31 - 3, 2**31, 2**40])
def test_numbers_of_groups_at_the_ends_of_the_key(first: int) -> None:
    groups = torch.tensor([first, first, first + 1, first + 1, first + 2, first + 2])
    scores, labels = torch.tensor([1.0, 2.0, 2.0, 1.0, -3.0, -2.0]), torch.tensor([0, 1, 0, 1, 0, 1])
    assert grouped_auc(scores, labels, groups) == pytest.approx(2 / 3, abs=1e-15)
    metric = GAUC()
    for part in range(0, 6, 2):
        metric.update(scores[part : part + 2], labels[part : part + 2], group=groups[part : part + 2])
    metric.update(scores[:2], labels[:2], group=torch.tensor([7, 7]))  # narrow numbers beside wide ones
    assert metric.compute().item() == pytest.approx(3 / 4, abs=1e-15)


def test_it_keeps_eight_bytes_a_row() -> None:
    scores, labels, groups = draw("plain")
    metric = GAUC()
    for part in np.array_split(np.arange(3000), 10):
        metric.update(torch.tensor(scores[part]), torch.tensor(labels[part]), group=torch.tensor(groups[part]))
    kept = [part for name in metric.kept for part in getattr(metric, name)]
    assert sum(part.nbytes for part in kept) == 8 * 3000
    assert metric.compute().item() == pytest.approx(by_definition(scores, labels, groups), abs=1e-12)


def test_sample_weights_of_some_batches_only_are_refused() -> None:
    metric = GAUC()
    given = (torch.zeros(2), torch.tensor([0.0, 1.0]))
    metric.update(*given, group=torch.zeros(2, dtype=torch.int64))
    metric.update(*given, sample_weight=torch.ones(2), group=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 weights for 4 rows"):
        metric.compute()
