"""Metrics from stored scores: the AUC of a task after the one before, by counting pairs, and the calibration error."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from recbole_dtn.leaderboard.details import detail_tables
from recbole_dtn.leaderboard.rescored import calibration_errors, conditional_aucs
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, Summary
from recbole_dtn.record.scores import TestRows

CHAIN: list[dict[str, Any]] = [{"name": "click"}, {"name": "buy", "after": ["click"]}]
ROWS = 200


def pairs(scores: list[float], labels: list[float]) -> float:
    """The share of pairs of a positive and a negative in the right order, ties half."""
    won = [
        (a > b) + 0.5 * (a == b)
        for a, x in zip(scores, labels, strict=True)
        for b, y in zip(scores, labels, strict=True)
        if x > y
    ]
    return sum(won) / len(won)


def data() -> tuple[Any, TestRows]:
    random = np.random.default_rng(0)
    click = random.random(ROWS) < 0.6
    buy = click & (random.random(ROWS) < 0.4)
    labels = np.column_stack([click, buy]).astype(np.float32)
    labels[:3, 1] = np.nan
    scores = random.normal(size=(3, ROWS, 2)).astype(np.float32) * 2 + labels[None].clip(0, 1).astype(np.float32)
    return np.nan_to_num(scores), TestRows(labels)


def test_ratio_and_joint_are_those_of_counted_pairs() -> None:
    scores, test = data()
    found = conditional_aucs(CHAIN, scores, test)
    assert list(found) == ["buy@click"]
    rows = [row for row in range(3, ROWS) if test.labels[row, 0] == 1]
    for run in range(3):
        joint = [float(scores[run, row, 1]) for row in rows]
        ratio = [
            (1 / (1 + math.exp(-scores[run, row, 1]))) / (1 / (1 + math.exp(-scores[run, row, 0]))) for row in rows
        ]
        labels = [float(test.labels[row, 1]) for row in rows]
        assert found["buy@click"]["joint"]["auc"][run] == pytest.approx(pairs(joint, labels), abs=1e-7)
        assert found["buy@click"]["ratio"]["auc"][run] == pytest.approx(pairs(ratio, labels), abs=1e-7)
        assert abs(pairs(joint, labels) - pairs(ratio, labels)) > 0.01


@pytest.mark.parametrize("grouped", [False, True])
def test_the_error_is_that_of_the_placements_of_rows_or_users(grouped: bool) -> None:
    scores, test = data()
    users = np.arange(ROWS) // 4
    found = conditional_aucs(CHAIN, scores, TestRows(test.labels, group=users if grouped else None))
    rows = np.flatnonzero((test.labels[:, 0] == 1) & ~np.isnan(test.labels[:, 1]))
    labels, values, user = test.labels[rows, 1], scores[0, rows, 1].astype(float), users[rows]
    positive, negative = values[labels == 1], values[labels == 0]
    won = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    auc, m, n = won.mean(), len(positive), len(negative)
    of_positive, of_negative = won.mean(1), won.mean(0)
    if not grouped:  # DeLong et al. (1988)
        variance = of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n
        assert found["buy@click"]["joint"]["error"][0] == pytest.approx(math.sqrt(variance), rel=1e-6)
        return
    # Obuchowski (1997): sums of the deviations within each user.
    a = np.array([(of_positive - auc)[user[labels == 1] == u].sum() for u in np.unique(user)])
    b = np.array([(of_negative - auc)[user[labels == 0] == u].sum() for u in np.unique(user)])
    with_positive, with_negative = (len(np.unique(user[labels == label])) for label in (1, 0))
    users_of = len(np.unique(user))
    variance = (
        with_positive / (with_positive - 1) * (a**2).sum() / m**2
        + with_negative / (with_negative - 1) * (b**2).sum() / n**2
        + 2 * users_of / (users_of - 1) * (a * b).sum() / (m * n)
    )
    assert found["buy@click"]["joint"]["error"][0] == pytest.approx(math.sqrt(variance), rel=0.02)


def test_weights_count_rows_that_often() -> None:
    scores, test = data()
    weight = np.where(np.arange(ROWS) % 2, 2.0, 1.0).astype(np.float32)
    twice = np.repeat(np.arange(ROWS), weight.astype(int))
    one = conditional_aucs(CHAIN, scores, TestRows(test.labels, weight=weight))
    two = conditional_aucs(CHAIN, scores[:, twice], TestRows(test.labels[twice]))
    for way in ("ratio", "joint"):
        assert one["buy@click"][way]["auc"] == pytest.approx(two["buy@click"][way]["auc"], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "ways"),
    [
        ({}, ["ratio", "joint"]),
        ({"pos_weight": 3.0}, ["joint"]),
        ({"negative_rate": 0.1}, ["joint"]),
        ({"observed_when": "click == 1"}, None),
        ({"after": []}, None),
        ({"kind": "regression"}, None),
        ({"after": ["click", "cart"]}, ["ratio", "joint"]),
    ],
)
def test_what_is_reported(change: dict[str, Any], ways: list[str] | None) -> None:
    scores, test = data()
    found = conditional_aucs([CHAIN[0], {**CHAIN[1], **change}], scores, test)
    assert (list(found["buy@click"]) if found else None) == ways


def test_it_is_undefined_without_both_classes() -> None:
    scores, test = data()
    labels = test.labels.copy()
    labels[:, 1] = 0
    none = {"auc": [None] * 3, "error": [None] * 3}
    assert conditional_aucs(CHAIN, scores, TestRows(labels))["buy@click"] == {"ratio": none, "joint": none}


def test_the_table_has_a_line_per_row_that_has_any() -> None:
    def row(name: str, metrics: dict[Metric, Summary]) -> BoardRow:
        return BoardRow("d", name, name, "", (1,), ("click", "buy"), metrics, {}, None, {}, False, errors=errors)

    auc = Metric("test", "buy@click (ratio)", "auc")
    errors = {auc: 0.02}
    rows = [row("A", {auc: Summary(0.75, 0.01, 3)}), row("B", {})]
    table = detail_tables(rows, ["A", "B"])[-1]
    assert (table.columns, table.cells) == (["model", "buy@click (ratio)"], [["A", "0.7500 ± 0.0100 [0.0200]"]])


def test_the_calibration_error_is_that_of_sorted_bins() -> None:
    scores, test = data()
    found = calibration_errors(CHAIN, scores, test)
    labels = test.labels[3:, 1]  # 197 rows
    for run in range(3):
        p = 1 / (1 + np.exp(-scores[run, 3:, 1].astype(np.float64)))
        order = np.argsort(p)
        # 15 bins of 197 / 15 rows each, rows at an edge shared between the bins on both sides
        edges, total = np.linspace(0, 197, 16), 0.0
        for low, high in itertools.pairwise(edges):
            share = np.clip(np.minimum(np.arange(197) + 1, high) - np.maximum(np.arange(197), low), 0, 1)
            total += abs((share * (p[order] - labels[order])).sum() / share.sum())
        assert found["buy"][run] == pytest.approx(total / 15, abs=1e-7)
    assert set(found) == {"click", "buy"}


def test_the_calibration_error_needs_probabilities_of_a_binary_task() -> None:
    scores, test = data()
    for change in ({"pos_weight": 2.0}, {"loss": {"name": "focal"}}, {"loss": "focal"}):
        assert set(calibration_errors([{**CHAIN[0], **change}, CHAIN[1]], scores, test)) == {"buy"}
    assert set(calibration_errors([CHAIN[0], {**CHAIN[1], "loss": {"name": "bce"}}], scores, test)) == {"click", "buy"}
    assert set(calibration_errors([{**CHAIN[0], "kind": "regression"}, CHAIN[1]], scores, test)) == {"buy"}


def test_the_calibration_error_counts_a_row_by_its_weight() -> None:
    scores, test = data()
    weight = np.where(np.arange(ROWS) % 2, 2.0, 1.0).astype(np.float32)
    twice = np.repeat(np.arange(ROWS), weight.astype(int))
    one = calibration_errors(CHAIN, scores, TestRows(test.labels, weight=weight))
    two = calibration_errors(CHAIN, scores[:, twice], TestRows(test.labels[twice]))
    for task in ("click", "buy"):
        assert one[task] == pytest.approx(two[task], abs=1e-6)
