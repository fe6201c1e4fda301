"""DCMT against its losses row by row in numpy."""

import numpy as np
import pytest

from recbole_dtn.model.dcmt import DCMT
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import assert_close, check_reference, parameters_of, redraw, sigmoid
from tests.reference.chains import logits, probability

CHAIN = tiny_schema(
    tasks=[
        TaskSpec("buy", "binary", "buy", after=("cart",), pos_weight=3.0),
        TaskSpec("click", "binary", "click"),
        TaskSpec("cart", "binary", "cart", after=("click",), pos_weight=2.0),
    ]
)
SCHEMAS = {"two": (tiny_schema(tasks=2), [(1, 0)]), "three, out of order": (CHAIN, [(2, 1), (0, 2)])}


def distance(x):
    """|x| of a complex number that stands for a real one with its derivative."""
    return x if x.real > 0 else -x


def reference(p, schema, steps, features, *, weight=1e-3, largest=100.0, normalised=False):
    own = logits(p, schema, features, "towers", schema.num_tasks)
    twins = logits(p, schema, features, "counterfactual", len(steps))
    y, seen = features.labels.numpy(), features.observed.numpy()
    given = np.ones(len(y)) if features.sample_weight is None else features.sample_weight.double().numpy()
    totals = (given[:, None] * seen).sum(0)
    totals[totals == 0] = 1
    losses = [0j] * schema.num_tasks
    for t, task in enumerate(schema.tasks):
        for b in range(len(y)):
            if seen[b, t]:
                chance = probability(schema, [z[b] for z in own], t)
                part = -task.pos_weight * np.log(chance) if y[b, t] else -np.log(1 - chance)
                losses[t] += given[b] * part / totals[t]
    for step, (t, s) in enumerate(steps):
        factual, counterfactual, weights, twin_weights = 0j, 0j, 0.0, 0.0
        for b in range(len(y)):
            if not (seen[b, t] and seen[b, s]):
                continue
            click = probability(schema, [z[b] for z in own], s).real
            c, twin = sigmoid(own[t][b]), sigmoid(twins[step][b])
            if y[b, s]:
                w = given[b] * min(1 / click, largest)
                factual += w * (-schema.tasks[t].pos_weight * np.log(c) if y[b, t] else -np.log(1 - c))
                weights += w
            else:
                w = given[b] * min(1 / (1 - click), largest)
                counterfactual += w * (-np.log(1 - twin) if y[b, t] else -np.log(twin))
                twin_weights += w
            losses[t] += weight * given[b] * distance(1 - (c + twin)) / totals[t]
        losses[t] += factual / ((weights or 1) if normalised else totals[t])
        losses[t] += counterfactual / ((twin_weights or 1) if normalised else totals[t])
    return np.array(losses)


def build(schema, **settings):
    model = DCMT(make_settings("DCMT", embedding_size=3, **{"tower_hidden": [5], **settings}), schema)
    redraw(model)
    return model


OPTIONS = [
    ({}, {}),
    ({"constraint_weight": 0.5, "max_weight": 1.5, "tower_hidden": []}, {"weight": 0.5, "largest": 1.5}),
    ({"self_normalised": True}, {"normalised": True}),
]


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize(("settings", "options"), OPTIONS)
def test_losses_equal_numpy(rows, name, settings, options):
    schema, steps = SCHEMAS[name]
    features = tiny_features(schema, rows, seed=rows, masked=name != "two", sample_weight=name != "two")
    model = build(schema, **settings)
    check_reference(
        model,
        lambda m: m.task_losses(features, m(features)),
        lambda p: reference(p, schema, steps, features, **options),
        entries=2 if name == "two" else 0,
    )


def test_both_weights_clip_and_have_no_gradient():
    """Click's tower learns from click and the product alone: with these off it gets nothing."""
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 2)
    features.labels[0] = features.labels.new_tensor([1.0, 0.0])  # w = 1 / p
    features.labels[1] = 0.0  # w* = 1 / (1 - p)
    for largest, weights in ((100.0, (5.0, 1.25)), (2.0, (2.0, 1.25)), (1.1, (1.1, 1.1))):
        model = build(schema, max_weight=largest, constraint_weight=0.0).double()
        for tower in (*model.towers.towers, *model.counterfactual.towers):
            tower.logit.weight.data.zero_()
            tower.logit.bias.data.zero_()
        model.towers.towers[0].logit.bias.data.fill_(-np.log(4.0))  # p = 1/5
        output = model(features)
        joint = super(DCMT, model).task_losses(features, output)
        own = (model.task_losses(features, output) - joint)[1]
        assert own.item() == pytest.approx(sum(weights) * np.log(2) / 2, rel=1e-12)
        own.backward()
        assert model.towers.towers[0].logit.bias.grad.abs().item() < 1e-12


def test_the_prediction_is_the_factual_head():
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 7)
    model = build(schema).double()
    output = model(features)
    own = logits(parameters_of(model), schema, features, "towers", 2)
    assert_close(output.factors["cart|click"].logit, own[1], 1e-12, "P(cart | click)")
    assert_close(output.logits[:, 1].sigmoid(), sigmoid(own[0]) * sigmoid(own[1]), 1e-12, "P(cart)")
    assert model.heads() == [tower.logit for tower in model.towers.towers]


@pytest.mark.parametrize("normalised", [False, True])
def test_extreme_propensities_are_finite(normalised):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 20)
    model = build(schema, self_normalised=normalised)
    for bias in (-300.0, 300.0):
        model.zero_grad()
        model.towers.towers[0].logit.bias.data.fill_(bias)
        loss = model.task_losses(features, model(features)).sum()
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
