"""ESCM2 against its losses row by row in numpy."""

import numpy as np
import pytest

from recbole_dtn.model.escm2 import ESCM2
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import assert_close, check_reference, parameters_of, redraw, sigmoid
from tests.reference.chains import logits, probability


def chain(**after):
    return [
        TaskSpec(name, "binary", name, after=before, pos_weight=1.0 + number)
        for number, (name, before) in enumerate(after.items())
    ]


CHAINS = {
    "click, cart": tiny_schema(tasks=2),
    "last first": tiny_schema(tasks=chain(buy=("cart",), cart=("click",), click=())),
    "a fork and one alone": tiny_schema(tasks=chain(click=(), cart=("click",), like=("click",), watch=())),
}


def in_order(schema):
    """Later tasks with their predecessors, each after the task it needs."""
    done, steps = [], []
    while len(done) < schema.num_tasks:
        t = next(t for t, task in enumerate(schema.tasks)
                 if t not in done and all(schema.task_names.index(name) in done for name in task.after))  # fmt: skip
        done.append(t)
        steps += [(t, schema.task_names.index(name)) for name in schema.tasks[t].after]
    return steps


def reference(p, schema, features, *, form, cvr=0.1, ctcvr=1.0, largest=15.0, detach=False):
    own = logits(p, schema, features, "towers", schema.num_tasks)
    steps = in_order(schema)
    imputed = logits(p, schema, features, "imputation", len(steps)) if form == "dr" else None
    y, seen = features.labels.numpy(), features.observed.numpy()
    given = np.ones(len(y)) if features.sample_weight is None else features.sample_weight.double().numpy()
    losses = [0j] * schema.num_tasks
    for b in range(len(y)):
        row = [z[b] for z in own]
        for t, task in enumerate(schema.tasks):
            if seen[b, t]:
                chance = probability(schema, row, t)
                part = -task.pos_weight * np.log(chance) if y[b, t] else -np.log(1 - chance)
                losses[t] += given[b] * part * (ctcvr if task.after else 1)
        for step, (t, s) in enumerate(steps):
            if not (seen[b, t] and seen[b, s]):
                continue
            c = sigmoid(row[t])
            delta = -schema.tasks[t].pos_weight * np.log(c) if y[b, t] else -np.log(1 - c)
            w = min(1 / probability(schema, row, s).real, largest) if y[b, s] else 0.0
            if form == "ips":
                risk = w * delta
            else:
                i = np.log(1 + np.exp(imputed[step][b]))
                risk = i + w * (delta - i) + w * ((delta.real if detach else delta) - i) ** 2
            losses[t] += given[b] * cvr * risk
    totals = (given[:, None] * seen).sum(0)
    return np.array(losses) / np.where(totals > 0, totals, 1)


def build(schema, **settings):
    model = ESCM2(make_settings("ESCM2", embedding_size=3, **{"tower_hidden": [5], **settings}), schema)
    redraw(model)
    return model


OPTIONS = [
    ({"form": "ips"}, {"form": "ips"}),
    ({}, {"form": "dr"}),
    (
        {"form": "dr", "cvr_weight": 0.7, "ctcvr_weight": 0.3, "max_weight": 2.5},
        {"form": "dr", "cvr": 0.7, "ctcvr": 0.3, "largest": 2.5},
    ),
    ({"detach_error": True, "tower_hidden": []}, {"form": "dr", "detach": True}),
    ({"form": "ips", "max_weight": 1.0}, {"form": "ips", "largest": 1.0}),
]


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("settings", "options"), OPTIONS)
def test_losses_equal_numpy(rows, name, settings, options):
    schema = CHAINS[name]
    features = tiny_features(schema, rows, seed=rows, masked=name == "last first", sample_weight=name != "click, cart")
    model = build(schema, **settings)
    check_reference(
        model,
        lambda m: m.task_losses(features, m(features)),
        lambda p: reference(p, schema, features, **options),
        entries=2 if name == "click, cart" and rows > 1 else 0,
    )


def test_the_propensity_clip_binds_and_has_no_gradient():
    """A row with p = 1/4 weighs 4, or w_max; click's tower gets nothing from the loss of the conditional."""
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 4)
    features.labels[:, 0], features.labels[:, 1] = 1.0, 0.0
    found = {}
    for largest in (100.0, 3.0):
        model = build(schema, form="ips", max_weight=largest, cvr_weight=1.0, ctcvr_weight=0.0).double()
        for t, logit in enumerate((-np.log(3.0), 0.0)):
            model.towers.towers[t].logit.weight.data.zero_()
            model.towers.towers[t].logit.bias.data.fill_(logit)
        loss = model.task_losses(features, model(features))[1]
        loss.backward()
        assert model.towers.towers[0].logit.bias.grad.abs().item() < 1e-12
        found[largest] = loss.item()
    assert found[100.0] == pytest.approx(4 * np.log(2), rel=1e-12)
    assert found[3.0] == pytest.approx(3 * np.log(2), rel=1e-12)


def test_extreme_propensities_are_finite():
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 20)
    for form in ("ips", "dr"):
        model = build(schema, form=form)
        for bias in (-300.0, 300.0):
            model.zero_grad()
            model.towers.towers[0].logit.bias.data.fill_(bias)
            loss = model.task_losses(features, model(features)).sum()
            loss.backward()
            assert loss.isfinite()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_prediction_and_factors_are_those_of_esmm():
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, 7)
    model = build(schema).double()
    output = model(features)
    own = logits(parameters_of(model), schema, features, "towers", 3)
    assert list(output.factors) == ["cart|click", "buy|cart"]
    assert_close(output.factors["buy|cart"].logit, own[2], 1e-12, "P(buy | cart)")
    assert_close(output.logits[:, 2].sigmoid(), probability(schema, own, 2), 1e-12, "P(buy)")
    assert model.heads() == [tower.logit for tower in model.towers.towers]


def test_ips_has_no_imputation_tower():
    schema = tiny_schema(tasks=2)
    ips, dr = build(schema, form="ips"), build(schema)
    tower = sum(p.numel() for p in dr.towers.towers[0].parameters())
    assert dr.count_parameters()["dense"] - ips.count_parameters()["dense"] == tower
