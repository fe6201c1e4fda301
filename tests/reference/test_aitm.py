"""AITM against its equations row by row in numpy."""

import numpy as np
import pytest
import torch

from recbole_dtn.model.aitm import AITM
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    mlp,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
    sigmoid,
    softmax,
    tower_of,
)


def chain(**after):
    return [TaskSpec(name, "binary", name, after=before) for name, before in after.items()]


CHAINS = {
    "click, cart": (tiny_schema(tasks=2), [(1, 0)]),
    "four": (tiny_schema(tasks=4), [(1, 0), (2, 1), (3, 2)]),
    "last first": (tiny_schema(tasks=chain(buy=("cart",), cart=("click",), click=())), [(1, 2), (0, 1)]),
    "a fork and one alone": (
        tiny_schema(tasks=chain(click=(), cart=("click",), like=("click",), watch=())),
        [(1, 0), (2, 0)],
    ),
}


def reference(p, schema, steps, features, masks=None, gates=None):
    """Logits (B, T)."""
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    z = []
    for t in range(schema.num_tasks):
        z.append(mlp(p, f"bottoms.{t}.layers", x, masks))
    for step, (t, s) in enumerate(steps):
        at = f"transfers.{step}"
        h1, h2, h3 = (p[f"{at}.{name}.weight"] for name in ("value", "query", "key"))
        moved = relu(z[s] @ p[f"{at}.transfer.layers.0.weight"].T + p[f"{at}.transfer.layers.0.bias"])
        moved = moved if masks is None else moved * next(masks)
        out, weights = [], []
        for b in range(len(x)):
            both = [moved[b], z[t][b]]
            a = np.array([(h2 @ u) @ (h3 @ u) for u in both]) / np.sqrt(len(h1))
            weights.append(softmax(a))
            out.append(weights[-1][0] * (h1 @ both[0]) + weights[-1][1] * (h1 @ both[1]))
        z[t] = np.stack(out)
        if gates is not None:
            gates[schema.task_names[t]] = np.stack(weights)
    return np.stack([tower_of(p, f"towers.towers.{t}", z[t]) for t in range(schema.num_tasks)], 1)


def excess(logits, steps):
    """Sum over the steps of the mean over rows of max(p_t - p_s, 0)."""
    p = sigmoid(logits)
    return sum(np.mean([relu(p[b, t] - p[b, s]) for b in range(len(p))]) for t, s in steps)


def build(schema, **settings):
    model = AITM(make_settings("AITM", embedding_size=3, **{"tower_hidden": [6, 5], **settings}), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("hidden", [[6, 5], []])
def test_equals_numpy(rows, name, hidden):
    schema, steps = CHAINS[name]
    features = tiny_features(schema, rows)
    model = build(schema, tower_hidden=hidden)
    entries = 2 if hidden and rows > 1 and name != "four" else 0
    check_reference(
        model, lambda m: m(features).logits, lambda p: reference(p, schema, steps, features), entries=entries
    )


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("name", CHAINS)
def test_the_calibrator_equals_numpy(rows, name):
    schema, steps = CHAINS[name]
    features = tiny_features(schema, rows)
    model = build(schema, constraint_weight=0.3)
    check_reference(
        model,
        lambda m: m(features).auxiliary["chain"].reshape(1),
        lambda p: 0.3 * excess(reference(p, schema, steps, features), steps).reshape(1),
        entries=0,
    )


def test_the_calibrator_by_hand():
    """alpha times the mean of (.8 - .3), 0 and (.6 - .5)."""
    schema = tiny_schema(tasks=2)
    chances = torch.tensor([[0.3, 0.8], [0.9, 0.2], [0.5, 0.6]], dtype=torch.float64)
    excess_of = build(schema)._excess(torch.logit(chances))
    assert excess_of["chain"].item() == pytest.approx(0.6 * (0.5 + 0.1) / 3, rel=1e-12)
    assert build(schema, constraint_weight=0.0)(tiny_features(schema, 3)).auxiliary == {}


def test_gates_are_the_attention_weights():
    schema, steps = CHAINS["last first"]
    features = tiny_features(schema, 9)
    model = build(schema).double()
    found, expected = model(features).gates, {}
    reference(parameters_of(model), schema, steps, features, gates=expected)
    assert found.keys() == expected.keys() == {"cart", "buy"}
    for task, weights in expected.items():
        assert_close(found[task], weights, 1e-12, f"gates of {task}")
        assert np.ptp(weights, axis=0).max() > 0.3
    assert model.gate_names == {"cart": ("click/transferred", "cart/own"), "buy": ("cart/transferred", "buy/own")}


def test_dropout_masks_towers_and_transfers():
    schema, steps = CHAINS["click, cart"]
    features = tiny_features(schema, 30)
    model = build(schema, tower_hidden=[8, 6], dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(30, 8), (30, 6)] * 2 + [(30, 6)]
    assert_close(logits, reference(parameters_of(model), schema, steps, features, iter(masks)), 1e-10, "with dropout")
