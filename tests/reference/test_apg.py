"""APG against its equations in numpy, row by row."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.model.apg import APG, GeneratedLinear
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
    tower_of,
)


def generated(p, name, x, z):
    """One row: ((x U) S(z) + s(z)) V + c."""
    down, up = ([p[f"{name}.{part}.{i}"] for i in range(2) if f"{name}.{part}.{i}" in p] for part in ("down", "up"))
    k = down[-1].shape[1]
    g = p[f"{name}.generator.weight"] @ z + p[f"{name}.generator.bias"]
    core, shift = g[: k * k].reshape(k, k), g[k * k :]
    for matrix in down:
        x = x @ matrix
    x = x @ core + shift
    for matrix in up:
        x = x @ matrix
    return x + p[f"{name}.bias"]


def reference(p, schema, features, layers, condition, fields=None, detach=False, masks=None):
    e = embed(p["embedding.table.weight"], schema, features)
    rows = []
    for row in range(len(features)):
        h = e[row].reshape(-1)
        group = []
        if condition != "self":
            d = None if features.domain is None else int(features.domain[row])
            group = [p["domains.weight"][d]] if fields is None else [e[row, f] for f in fields]
        for layer in range(layers):
            z = np.concatenate([*group, *([h] if condition != "group" else [])])
            h = relu(generated(p, f"layers.{layer}", h, z.real if detach else z))
            h = h if masks is None else h * masks[layer][row]
        rows.append(h)
    h = np.array(rows)
    return np.stack([tower_of(p, f"towers.towers.{t}", h) for t in range(schema.num_tasks)], 1)


def build(schema, **settings):
    settings = {"generated_hidden": [6, 5], "tower_hidden": [4], "core": 3, **settings}
    model = APG(make_settings("APG", embedding_size=3, **settings), schema)
    redraw(model, gain=1.0)
    return model


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("condition", ["group", "self", "mix"])
@pytest.mark.parametrize("fields", [None, ["t2", "m0"]])
def test_equals_numpy(rows, condition, fields):
    schema = tiny_schema(tasks=2, domains=0 if fields else 3)
    features = tiny_features(schema, rows)
    model = build(schema, condition=condition, condition_fields=fields)
    places = None if fields is None else (5, 1)
    check_reference(
        model, lambda m: m(features).logits, lambda p: reference(p, schema, features, 2, condition, places), entries=2
    )


@pytest.mark.parametrize(
    "options",
    [
        {"over_parameterised": 5},
        {"generated_hidden": [9], "core": None, "tower_hidden": []},
        {"domain_embedding_size": 2, "over_parameterised": 2, "core": 4},
    ],
)
def test_equals_numpy_with_options(options):
    schema = tiny_schema(tasks=3, domains=3)
    features = tiny_features(schema, 8)
    model = build(schema, condition="mix", **options)
    layers, detach = len(model.layers), options.get("detach_condition", False)
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, layers, "mix", detach=detach),
        entries=2,
    )


def test_sizes_of_the_core():
    for options, shapes in (
        ({}, ([(100, 10)], [(10, 40)])),
        ({"core": 7, "over_parameterised": 20}, ([(100, 20), (20, 7)], [(7, 20), (20, 40)])),
    ):
        layer = GeneratedLinear(100, 40, 5, **options)
        found = ([tuple(w.shape) for w in layer.down], [tuple(w.shape) for w in layer.up])
        assert found == shapes
        k = layer.core
        assert layer.generator.weight.shape == (k * k + k, 5)
    assert GeneratedLinear(9, 30, 5).core == 3  # ceil(9 / 4)


@pytest.mark.parametrize("over", [None, 30])
def test_all_conditions_start_with_almost_the_same_map(over):
    """S(0) is the identity, so that the first map is x U V, at the scale of x; published code starts at about 0."""
    torch.manual_seed(0)
    layer = GeneratedLinear(200, 120, 8, over_parameterised=over)
    x, z = torch.randn(500, 200), torch.randn(500, 8)
    weight = torch.eye(200)
    for matrix in (*layer.down, *layer.up):
        weight = weight @ matrix
    with torch.no_grad():
        torch.testing.assert_close(layer(x, 0 * z), x @ weight, rtol=1e-4, atol=1e-5)
        assert 0.3 < layer(x, 0 * z).std() < 1.5
        assert 0 < (layer(x, z) - layer(x, 0 * z)).std() < 0.2 * layer(x, z).std()


@pytest.mark.parametrize("condition", ["group", "self", "mix"])
def test_a_detached_condition(condition):
    schema = tiny_schema()
    features = tiny_features(schema, 8)
    fields = {"condition_fields": ["t0"]} if condition != "self" else {}
    model = build(schema, condition=condition, detach_condition=True, **fields)
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, 2, condition, (0,), detach=True),
        entries=2,
    )


def test_the_domains_of_a_condition_are_trained():
    """In published code the condition is detached."""
    schema = tiny_schema(domains=3)
    features = replace(tiny_features(schema, 12), domain=torch.arange(12) % 3)
    model = build(schema, condition="group")
    model(features).logits.sum().backward()
    assert model.domains.weight.grad.abs().sum(1).min() > 0
    with pytest.raises(UsageError, match=r"detach_condition: the embeddings of domains .* would never be trained"):
        build(schema, condition="mix", detach_condition=True)


def test_a_domain_without_training_rows_has_the_mean_condition():
    schema = tiny_schema(domains=3)
    features = tiny_features(schema, 12)
    model = build(schema, condition="group").double()
    model(replace(features, domain=torch.arange(12) % 2))
    third = replace(features, domain=torch.full((12,), 2))
    p = dict(parameters_of(model))
    p["domains.weight"] = np.concatenate([p["domains.weight"][:2], p["domains.weight"][:2].mean(0, keepdims=True)])
    assert_close(model.eval()(third).logits, reference(p, schema, third, 2, "group"), 1e-10, "an unseen domain")


def test_the_default_condition():
    assert build(tiny_schema()).condition == "self"
    assert build(tiny_schema(domains=2)).condition == "group"
    assert build(tiny_schema(), condition_fields=["t0"]).condition == "group"
    assert build(tiny_schema(domains=2), condition="self").condition == "self"


def test_dropout_masks_generated_layers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, tower_hidden=[], dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(30, 6), (30, 5)]
    expected = reference(parameters_of(model), schema, features, 2, "self", masks=masks)
    assert_close(logits, expected, 1e-10, "with dropout")


def test_what_is_missing_is_refused():
    for condition in ("group", "mix"):
        with pytest.raises(UsageError, match=f"condition: '{condition}' needs a group: set domain_field"):
            build(tiny_schema(), condition=condition)
    with pytest.raises(UsageError, match="condition_fields: expected one field or more"):
        build(tiny_schema(), condition_fields=[])
    with pytest.raises(UsageError, match="condition_fields: 'age' is not a field of the data set"):
        build(tiny_schema(), condition_fields=["age"])
    with pytest.raises(UsageError, match="generated_hidden: expected one width or more"):
        build(tiny_schema(), generated_hidden=[])
    schema = tiny_schema(domains=2)
    with pytest.raises(UsageError, match="domain_field: APG reads the domain of every row, and this batch has none"):
        build(schema)(replace(take_rows(tiny_features(schema, 4), [1]), domain=None))
