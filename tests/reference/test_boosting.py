"""Boosting: its tensors against scikit-learn's own predictions, and its columns written again as loops."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.data.progress import silent
from recbole_dtn.model import boosting
from recbole_dtn.model.boosting import Boosting, HistogramTrees, grow
from recbole_dtn.model.direct.columns import TreeColumns
from recbole_dtn.model.direct.rows import TaskRows
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.direct import FeatureRows


@pytest.fixture(autouse=True)
def _path() -> None:
    """Nothing here is fused: one way to compute, not two."""


def table(rows: int, seed: int, *, unseen: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two categories of which one has 200 codes, two numbers, absent values everywhere; labels; weights."""
    draw = np.random.default_rng(seed)
    x = np.column_stack(
        [
            draw.integers(0, 200 if unseen else 180, rows),
            draw.integers(1, 6, rows),
            draw.normal(size=rows),
            draw.normal(size=rows),
        ]
    ).astype(np.float64)
    score = (x[:, 0] % 3 == 0) + (x[:, 1] == 2) * x[:, 2] + np.abs(x[:, 3]) - 1
    y = (draw.random(rows) < 1 / (1 + np.exp(-2 * score))).astype(np.float64)
    x[draw.random(x.shape) < 0.1] = np.nan
    return x, y, draw.random(rows) + 0.5


class Columns:
    categorical = 2


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_tensors_score_as_scikit_learn_does(kind: str) -> None:
    settings = make_settings("Boosting", max_trees=20, max_leaf_nodes=12)
    train, valid = (TaskRows(*table(rows, seed)) for rows, seed in ((1500, 1), (300, 2)))
    grown = grow(kind, train, valid, 2, settings, lambda done, total: None)
    ours = HistogramTrees()
    ours.take(grown, grown.n_iter_, train, Columns())  # type: ignore[arg-type]
    x = table(500, 3, unseen=True)[0]  # 20 of the codes are not in the training rows
    expected = grown.decision_function(x) if kind == "binary" else grown.predict(x)
    assert ours.scores(x) == pytest.approx(expected, abs=1e-12)
    assert ours.trees.split_set.max() > 5, "no split on a category is in the trees"
    if kind == "binary":
        found = 1 / (1 + np.exp(-ours.scores(x)))
        assert found == pytest.approx(grown.predict_proba(x)[:, 1], abs=1e-12)


def test_parts_are_one_fit_and_validation_chooses_the_number_of_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "TREES_AT_A_TIME", 4)
    settings = make_settings("Boosting", max_trees=60, max_leaf_nodes=4, stopping_trees=6, shrinkage=0.2)
    train, valid = (TaskRows(*table(rows, seed)) for rows, seed in ((1500, 4), (500, 5)))
    whole = HistGradientBoostingClassifier(
        max_iter=60,
        max_leaf_nodes=4,
        learning_rate=0.2,
        early_stopping=False,
        random_state=5,
        categorical_features=[True, True, False, False],
    ).fit(train.inputs, train.labels, sample_weight=train.weights)
    losses = [
        log_loss(valid.labels, chances[:, 1], sample_weight=valid.weights)
        for chances in whole.staged_predict_proba(valid.inputs)
    ]
    # The first count of trees that none of the next six beats.
    best = next(k for k in range(1, 60) if losses[k - 1] < min(losses[k : k + 6]))
    trees = HistogramTrees()
    made, kept = trees.fit(TaskSpec("t", "binary", "y"), train, valid, Columns(), settings, silent)  # type: ignore[arg-type]
    assert (made, kept) == (best + 6, best)
    assert 8 < made < 60, "the fit has to end in its third part or later for this test to say anything"
    staged = list(whole.staged_decision_function(valid.inputs))[best - 1]
    assert trees.scores(valid.inputs) == pytest.approx(staged.ravel(), abs=1e-10)


def test_columns_by_hand() -> None:
    fields = (
        FieldSpec("tags", "token_seq", 6, 0),
        FieldSpec("user", "token", 9, 6),
        FieldSpec("age", "float", 5, 15, bins=(1.0, 2.0)),
        FieldSpec("price", "float", 2, 20),
    )
    tags = MultiValued(torch.tensor([2, 2, 5, 1]), torch.tensor([0, 3, 3, 4]))
    batch = Features(
        torch.tensor([[-1, 6, 15, -1], [-1, 7, 17, -1], [-1, 14, 19, -1]]),
        {0: tags},
        torch.tensor([[0.5], [math.nan], [-1.0]]),
    )
    columns = TreeColumns(DataSchema(fields, ()), most=5, list_tokens=3)
    assert (columns.categorical, columns.left_over()) == (1, ["user"])
    assert columns.names == ["user", "age", "price", "tags#0", "tags#1", "tags#2", "tags#count"]
    nan = math.nan
    # user: absent, unknown, and the rarest token, which shares the last of five categories; the value 5 of tags is
    # their fourth token, the value 1 an unknown one: neither has a column, both count.
    expected = [[nan, nan, 0.5, 2, 0, 0, 3], [1, 2, nan, 0, 0, 0, 0], [4, 4, -1, 0, 0, 0, 1]]
    np.testing.assert_array_equal(columns(batch), np.array(expected))


def test_a_field_of_more_than_255_tokens_is_named() -> None:
    schema = tiny_schema(vocabulary=300, tasks=1)
    model = Boosting(make_settings("Boosting", max_trees=2), schema)
    said: list[str] = []
    rows = tiny_features(schema, 400)
    model.fit_directly(FeatureRows(rows), FeatureRows(rows), say=said.append, meter=silent)
    assert said[0].endswith("whose rarer tokens share one: t0, t1, t2")
    assert said[1] == "click: 2 of 2 trees (chosen on validation)"
    assert model.columns(dataclasses.replace(rows))[:, 0].max() == 254
