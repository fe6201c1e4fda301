"""ResFlow against its equations task by task in numpy."""

import math

import numpy as np
import pytest

from recbole_dtn.errors import UsageError
from recbole_dtn.model.resflow import ResFlow
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
)


def chain(**after):
    return [TaskSpec(name, "binary", name, after=before) for name, before in after.items()]


CHAINS = {
    "click, cart": tiny_schema(tasks=2),
    "four": tiny_schema(tasks=4),
    "last first": tiny_schema(tasks=chain(buy=("cart",), cart=("click",), click=())),
    "a fork and one alone": tiny_schema(tasks=chain(click=(), cart=("click",), like=("click",), watch=())),
}


def reference(p, schema, features, masks=None):
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    layers = len({key.split(".")[1] for key in p if key.startswith("layers.")})
    drops = [[1.0 if masks is None else next(masks) for _ in schema.tasks] for _ in range(layers)]

    def before(t):
        after = schema.tasks[t].after
        return schema.task_names.index(after[0]) if after else None

    def hidden(t, layer):
        if layer == 0:
            return x
        at = f"layers.{layer - 1}.{t}.layers.0"
        own = relu(hidden(t, layer - 1) @ p[f"{at}.weight"].T + p[f"{at}.bias"]) * drops[layer - 1][t]
        return own if before(t) is None else own + hidden(before(t), layer)

    def logit(t):
        at = f"towers.towers.{t}.logit"
        own = hidden(t, layers) @ p[f"{at}.weight"][0] + p[f"{at}.bias"][0]
        return own if before(t) is None else own + logit(before(t))

    return np.stack([logit(t) for t in range(schema.num_tasks)], 1)


def build(schema, **settings):
    model = ResFlow(make_settings("ResFlow", embedding_size=3, **{"tower_hidden": [6, 5], **settings}), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("hidden", [[6, 5, 4], [4], []])
def test_equals_numpy(rows, name, hidden):
    schema = CHAINS[name]
    features = tiny_features(schema, rows)
    model = build(schema, tower_hidden=hidden)
    entries = 2 if len(hidden) == 3 and rows > 1 else 0
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features), entries=entries)


def test_a_task_reaches_itself_and_what_comes_before():
    schema = CHAINS["a fork and one alone"]
    model = build(schema)
    logits = model(tiny_features(schema, 20)).logits
    for t, reached in enumerate([{0}, {0, 1}, {0, 2}, {3}]):
        model.zero_grad()
        logits[:, t].sum().backward(retain_graph=True)
        moved = {
            s for s in range(4) for layer in model.layers
            if layer[s].layers[0].weight.grad is not None and layer[s].layers[0].weight.grad.any()
        }  # fmt: skip
        assert moved == reached


def test_dropout_masks_every_hidden_layer():
    schema = CHAINS["click, cart"]
    features = tiny_features(schema, 30)
    model = build(schema, dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(30, 6)] * 2 + [(30, 5)] * 2
    assert_close(logits, reference(parameters_of(model), schema, features, iter(masks)), 1e-10, "with dropout")


def test_logits_start_at_the_base_rates():
    """The bias of each head is the difference to the task before, whatever the weights of positives are."""
    rates, positive = (0.2, 0.05, 0.01), (3.0, 2.0, 5.0)
    tasks = [
        TaskSpec(name, "binary", name, after=after, rate=rate, pos_weight=weight)
        for name, after, rate, weight in zip("abc", [(), ("a",), ("b",)], rates, positive, strict=True)
    ]
    model = ResFlow(make_settings("ResFlow", tower_hidden=[]), tiny_schema(tasks=tasks))
    biases = np.cumsum([tower.logit.bias.item() for tower in model.towers.towers])
    expected = [math.log(w * r / (1 - r)) for w, r in zip(positive, rates, strict=True)]
    assert biases == pytest.approx(expected, abs=1e-5)


def test_a_later_label_may_be_observed_in_fewer_rows():
    tasks = [TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b", after=("a",), observed_when="a == 1")]
    schema = tiny_schema(tasks=tasks)
    assert build(schema)(tiny_features(schema, 3)).logits.shape == (3, 2)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (chain(a=(), b=()), "ResFlow needs tasks in a chain"),
        (chain(a=(), b=("a",), c=("a", "b")), "'c' comes after a, b; in ResFlow a task comes after one other at most"),
    ],
)
def test_tasks_without_a_chain_are_refused(tasks, message):
    with pytest.raises(UsageError, match=message):
        build(tiny_schema(tasks=tasks))
