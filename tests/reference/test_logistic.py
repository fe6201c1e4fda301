"""Logistic: the design written again as loops, and scikit-learn's own solution of the objective on it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from recbole_dtn.data.features import Features
from recbole_dtn.data.progress import silent
from recbole_dtn.model.direct.onehot import one_hot
from recbole_dtn.model.logistic import Logistic
from recbole_dtn.schema import DataSchema, TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.direct import FeatureRows, fit_tiny

TASKS = (
    TaskSpec("click", "binary", "c", pos_weight=3.0),
    TaskSpec("buy", "binary", "b"),
    TaskSpec("stay", "regression", "s"),
)


@pytest.fixture(autouse=True)
def _path() -> None:
    """Nothing here is fused: one way to compute, not two."""


def design(features: Features, schema: DataSchema) -> np.ndarray:
    """(B, rows of the table), value by value."""
    found = np.zeros((len(features), schema.num_rows))
    for row in range(len(features)):
        for position, spec in enumerate(schema.fields):
            if spec.kind == "token":
                found[row, features.ids[row, position]] += 1
            elif spec.kind == "float":
                value = features.dense[row, schema.dense_fields.index(position)].item()
                found[row, spec.offset + (value == value)] += 1 if value != value else value
            else:
                many = features.multi[position]
                own = range(int(many.offsets[row]), int(many.offsets[row + 1]))
                weights = {place: 1.0 if many.weights is None else many.weights[place].item() for place in own}
                for place, weight in weights.items():
                    share = 1 if spec.pooling == "sum" else sum(weights.values())
                    found[row, many.values[place]] += weight / share
    return found


@pytest.fixture
def schema() -> DataSchema:
    return tiny_schema(tasks=TASKS, weighted=True, dense=2)


def model_of(schema: DataSchema, **settings: object) -> Logistic:
    return Logistic(make_settings("Logistic", **settings), schema)


def test_the_matrix_is_the_loops(schema: DataSchema) -> None:
    features = tiny_features(schema, 60, seed=1)
    assert one_hot(features, schema).toarray() == pytest.approx(design(features, schema), abs=1e-12)


@pytest.mark.parametrize("dropped", [False, True], ids=["weighted lists", "binned float"])
def test_the_model_is_the_matrix_times_its_weights(schema: DataSchema, dropped: bool) -> None:
    if dropped:  # a float in three bins is one id
        fields = list(schema.fields)
        place = next(i for i, spec in enumerate(fields) if spec.kind == "float")
        fields[place] = dataclasses.replace(fields[place], size=2, bins=(0.0,))
        schema = dataclasses.replace(schema, fields=tuple(fields))
    features = tiny_features(schema, 40, seed=2)
    model = model_of(schema)
    with torch.no_grad():
        torch.nn.init.normal_(model.embedding.table.weight)
        torch.nn.init.normal_(model.bias)
        found = model(features).logits
    expected = one_hot(features, schema) @ model.embedding.table.weight.detach().double().numpy()
    assert found.numpy() == pytest.approx(expected + model.bias.detach().numpy(), abs=1e-5)


@pytest.mark.parametrize("c", [0.05, 2.0])
def test_the_weights_are_those_of_scikit_learn(schema: DataSchema, c: float) -> None:
    features = tiny_features(schema, 300, seed=3, masked=True, sample_weight=True)
    model = model_of(schema, inverse_l2=[c], tolerance=1e-9)
    fit_tiny(model, features, features)
    matrix, assert_close = design(features, schema), []
    for column, task in enumerate(TASKS):
        seen = features.observed[:, column].numpy()
        y = features.labels[seen, column].numpy().astype(np.float64)
        w = features.sample_weight[seen].numpy().astype(np.float64)
        w = w / w.mean() * np.where(y == 1, task.pos_weight, 1.0)
        if task.kind == "binary":
            known = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(matrix[seen], y, sample_weight=w)
            expected = known.decision_function(matrix)
        else:
            known = Ridge(alpha=1 / (2 * c), solver="cholesky").fit(matrix[seen], y, sample_weight=w)
            expected = known.predict(matrix)
        assert_close.append(expected)
    assert model(features).logits.detach().numpy() == pytest.approx(np.stack(assert_close, 1), abs=2e-5)


def test_validation_chooses_c_per_task(schema: DataSchema) -> None:
    schema = dataclasses.replace(schema, tasks=(TaskSpec("noise", "binary", "n"), TaskSpec("rule", "binary", "r")))
    train, valid = (ruled(tiny_features(schema, rows, seed=rows), schema) for rows in (200, 300))
    said: list[str] = []
    grid = [0.0001, 0.1, 100.0]
    model_of(schema, inverse_l2=grid).fit_directly(
        FeatureRows(train), FeatureRows(valid), say=said.append, meter=silent
    )
    chosen = {line.split(":")[0]: float(line.split("C = ")[1].split(",")[0].split(" ")[0]) for line in said}
    expected = {}
    for column, task in enumerate(schema.task_names):
        losses = {}
        for c in grid:
            known = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(
                design(train, schema), train.labels[:, column].numpy()
            )
            z, y = known.decision_function(design(valid, schema)), valid.labels[:, column].numpy()
            losses[c] = np.mean(np.log1p(np.exp(-np.where(y == 1, z, -z))))
        expected[task] = min(losses, key=losses.__getitem__)
    assert chosen == expected
    assert chosen["noise"] < chosen["rule"]


def ruled(features: Features, schema: DataSchema) -> Features:
    """The first task is a coin, the second follows the first field."""
    noise = torch.rand(len(features), generator=torch.Generator().manual_seed(len(features))) < 0.5
    rule = features.ids[:, schema.id_fields[0]] % 2 == 0
    labels = torch.stack([noise.float(), rule.float()], 1)
    return dataclasses.replace(features, labels=labels, observed=torch.ones_like(labels, dtype=torch.bool))
