"""Standard errors against the matrix of all pairs, and against repeated samples."""

import math

import numpy as np
import pytest
import torch

from recbole_dtn.metric import pairs, uncertainty
from recbole_dtn.metric.auc import ExactAUC
from recbole_dtn.metric.pairs import auc_of_classes
from recbole_dtn.metric.uncertainty import auc_influence, auc_with_error, error_of_influence


def by_matrix(scores, labels, groups=None, weights=None) -> tuple[float, float]:
    """DeLong's or Obuchowski's error from the kernel of every pair, O(m n)."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    mass = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    groups = np.arange(len(scores)) if groups is None else np.asarray(groups)
    labels, scores, groups, mass = (part[mass > 0] for part in (labels, scores, groups, mass))
    x, y, u, v = scores[labels], scores[~labels], mass[labels], mass[~labels]
    kernel = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    u, v = u / u.sum(), v / v.sum()
    auc = float(u @ kernel @ v)
    own, others = u * (kernel @ v - auc), v * (u @ kernel - auc)
    counts, sums = [0, 0, 0], [0.0, 0.0, 0.0]
    for group in np.unique(groups):
        first, second = groups[labels] == group, groups[~labels] == group
        parts = own[first].sum(), others[second].sum()
        for number, here in enumerate((first.any(), second.any(), True)):
            counts[number] += bool(here)
        for number, product in enumerate((parts[0] ** 2, parts[1] ** 2, 2 * parts[0] * parts[1])):
            sums[number] += product
    return auc, math.sqrt(sum(k / (k - 1) * total for k, total in zip(counts, sums, strict=True)))


def draw(kind: str, rows: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 40, rows)
    labels = rng.random(rows) < {"rare": 0.03, "common": 0.8}.get(kind, 0.3)
    scores = rng.normal(size=rows) + 0.7 * labels + rng.normal(size=40)[groups]
    if kind == "ties":
        scores = np.round(scores)
    if kind == "constant":
        scores[:] = -3.25
    if kind == "signed zeros":
        scores = np.where(rng.random(rows) < 0.5, -0.0, 0.0) + (scores > 1)
    if kind == "huge numbers":
        groups = groups * 10**12 - 5 * 10**12
    return torch.tensor(scores), torch.tensor(labels), torch.tensor(groups)


KINDS = ["plain", "rare", "common", "ties", "constant", "signed zeros", "huge numbers"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_matrix_of_all_pairs(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # Slices, pieces and blocks that end within runs of equal scores.
    monkeypatch.setattr(pairs, "SLICE", 7)
    monkeypatch.setattr(pairs, "LEAST_PER_THREAD", 50)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(uncertainty, "BLOCK", 11)
    scores, labels, groups = draw(kind)
    scores = scores.to(dtype)
    weights = torch.tensor(np.random.default_rng(1).integers(0, 4, len(scores)) / 3)
    for mass in (None, weights):
        for clusters in (None, groups):
            found = auc_with_error(scores, labels, mass, clusters)
            assert found == pytest.approx(by_matrix(scores, labels, clusters, mass), abs=1e-13), (mass, clusters)


def test_by_hand() -> None:
    # Placements of the positives .4 and .8: 3/4 and 1; of the negatives .1 and .4: 1 and 3/4; all are 1/8 from the AUC.
    # S_10 = S_01 = 2 / 64, so the variance is 2 / 64 / 2 + 2 / 64 / 2.
    scores, labels = torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1])
    assert auc_with_error(scores, labels) == (0.875, math.sqrt(2 / 64))
    # Two clusters. {.1, .4+}: influences (1/8) / 2 of the negative and -(1/8) / 2 of the positive cancel.
    assert auc_with_error(scores, labels, groups=torch.tensor([7, 9, 7, 9])) == (0.875, 0.0)
    # {.1, .8} and {.4, .4+}: both parts of each have one sign, 2 (1/256 + 1/256 + 2/256 + ... ) = 2 * 8 / 256.
    assert auc_with_error(scores, labels, groups=torch.tensor([7, 9, 9, 7])) == (0.875, math.sqrt(16 / 256))
    # A positive of weight 3 pulls the AUC to it: (3 * 3/4 + 1) / 4.
    auc, error = auc_with_error(scores, labels, torch.tensor([1.0, 1.0, 3.0, 1.0]))
    assert auc == 0.8125
    # Influences 3 (3/4 - A) / 4 and (1 - A) / 4; V of the negatives is 1 and 5/8.
    squares = (3 * (0.75 - auc) / 4) ** 2 + ((1 - auc) / 4) ** 2 + ((1 - auc) / 2) ** 2 + ((0.625 - auc) / 2) ** 2
    assert error == pytest.approx(math.sqrt(2 * squares), abs=1e-15)


def test_a_group_of_each_row_is_no_group_at_all() -> None:
    scores, labels, _ = draw("ties")
    alone = torch.arange(len(scores))
    assert auc_with_error(scores, labels, groups=alone) == pytest.approx(auc_with_error(scores, labels), abs=1e-14)


@pytest.mark.parametrize("grouped", [False, True])
def test_it_is_the_spread_over_samples(grouped: bool) -> None:
    """The mean of the estimated variances is near the variance of the AUC over 400 samples."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        users, each = (60, 5) if grouped else (300, 1)
        groups = np.repeat(np.arange(users), each)
        taste = rng.normal(size=users)[groups]
        labels = rng.random(len(groups)) < 1 / (1 + np.exp(1.0 - 2 * taste))
        scores = taste + rng.normal(size=len(groups))
        given = torch.tensor(groups) if grouped else None
        found.append(auc_with_error(torch.tensor(scores), torch.tensor(labels), groups=given))
    aucs, errors = np.array(found).T
    # A variance over 400 samples has a relative standard error of sqrt(2 / 400) = 7 %.
    assert np.square(errors).mean() / aucs.var(ddof=1) == pytest.approx(1.0, abs=0.2)


def test_the_error_of_a_difference_is_that_of_the_differences_of_influence() -> None:
    """The paired test of DeLong, eq. 5, by the covariance of the placements."""
    scores, labels, _ = draw("plain")
    other = torch.round(scores)
    rows = labels.numpy()
    kernels = []
    for values in (scores.numpy(), other.numpy()):
        x, y = values[rows], values[~rows]
        kernels.append((x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None]))
    first, second = (np.cov(*(kernel.mean(axis) for kernel in kernels)) for axis in (1, 0))
    covariance = first / rows.sum() + second / (~rows).sum()
    expected = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    influences = [auc_influence(values.numpy(), rows)[1] for values in (scores, other)]
    assert error_of_influence(influences[0] - influences[1], rows) == pytest.approx(expected, abs=1e-14)


def test_where_it_is_undefined() -> None:
    def undefined(scores, labels, **rest) -> tuple[bool, bool]:
        auc, error = auc_with_error(torch.tensor(scores), torch.tensor(labels), **rest)
        return math.isnan(auc), math.isnan(error)

    ones, both = torch.ones(3), torch.tensor([4, 4, 4])
    for rest in ({}, {"weights": ones}, {"groups": both}, {"weights": ones, "groups": both}):
        assert undefined([1.0, 2.0, 3.0], [1, 1, 1], **rest) == (True, True)
        assert undefined([1.0, math.nan, 3.0], [1, 0, 1], **rest) == (True, True)
        assert undefined([1.0, 2.0, 3.0], [0, 0, 1], **rest) == (False, True)  # one positive has no spread
        assert undefined([1.0, 2.0, 3.0], [1, 1, 0], **rest) == (False, True)
    assert undefined([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]) == (False, False)
    assert undefined([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], weights=torch.tensor([1.0, 1, 1, 0])) == (False, True)
    assert undefined([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], groups=torch.tensor([1, 1, 2, 1])) == (False, True)
    assert undefined([], []) == (True, True)


def test_the_metric_reports_it_and_keeps_groups_only_if_given() -> None:
    scores, labels, groups = draw("ties")
    for clusters, size in ((None, 4), (groups, 8)):
        metric = ExactAUC()
        for part in torch.arange(len(scores)).split(77):
            given = None if clusters is None else clusters[part]
            metric.update(scores[part].float(), labels[part].float(), group=given)
        expected = by_matrix(scores, labels, clusters)
        assert (metric.compute().item(), metric.standard_error().item()) == pytest.approx(expected, abs=1e-13)
        assert sum(part.nbytes for name in metric.kept for part in getattr(metric, name)) == size * len(scores)
    metric.update(scores.float(), labels.float())
    with pytest.raises(ValueError, match="groups of all rows or of none: 300 groups for 600 rows"):
        metric.compute()


def test_a_perfect_order_has_no_spread_and_one_million_rows_keep_their_digits() -> None:
    assert auc_of_classes(np.arange(3.0), np.arange(3.0) - 9) == (1.0, 0.0)
    # A tenth of the positives is tied with all negatives: V_10 is 1/2 or 1, V_01 is constant.
    positives = np.where(np.arange(200_000) % 10 == 0, 0.0, 1.0).astype(np.float32)
    auc, error = auc_of_classes(positives, np.zeros(1_000_000, np.float32))
    assert auc == 0.95
    assert error == pytest.approx(math.sqrt(0.25 * 0.1 * 0.9 / 199_999), rel=1e-12)
