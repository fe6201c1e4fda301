"""Cross-stitch networks against their equations in numpy."""

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.reach import find_reach
from recbole_dtn.errors import UsageError
from recbole_dtn.model.cross_stitch import CrossStitch
from recbole_dtn.optim.build import build_optimizer
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


def reference(p, schema, features, layers, masks=None):
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    tasks = range(schema.num_tasks)
    h = [x for _ in tasks]
    for layer in range(layers):
        drop = np.ones((schema.num_tasks, 1, 1)) if masks is None else next(masks)
        weight, bias = p[f"body.weights.{layer}"], p[f"body.biases.{layer}"]
        activations = [relu(h[t] @ weight[t] + bias[t, 0]) * drop[t] for t in tasks]
        alpha = [p[f"body.stitches.{layer}.rows.{t}"] for t in tasks]
        h = [sum(alpha[t][s] * activations[s] for s in tasks) for t in tasks]
    return np.stack(
        [h[t] @ p[f"towers.towers.{t}.logit.weight"][0] + p[f"towers.towers.{t}.logit.bias"][0] for t in tasks], 1
    )


def build(schema, **settings):
    return CrossStitch(
        make_settings("CrossStitch", **{"embedding_size": 3, "tower_hidden": [5, 4], **settings}), schema
    )


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(("tasks", "hidden"), [(2, [5]), (3, [6, 4]), (2, [5, 4, 3])])
def test_equals_numpy(rows, tasks, hidden):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, tower_hidden=hidden)
    redraw(model)
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, len(hidden)),
        entries=2 if rows > 1 else 0,
    )


def test_dropout_comes_before_the_stitch():
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, 30)
    model = build(schema, dropout=0.4).double()
    redraw(model)
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(3, 30, 5), (3, 30, 4)]
    p = parameters_of(model)
    assert_close(logits, reference(p, schema, features, 2, iter(masks)), 1e-10, "with dropout")
    assert_close(model.eval()(features).logits, reference(p, schema, features, 2), 1e-10, "in evaluation")


@pytest.mark.parametrize(("own", "other"), [(0.9, 0.05), (0.5, 0.25), (0.0, 0.5)])
def test_stitches_start_at_their_constants_with_a_number_per_pair_of_tasks(own, other):
    model = build(tiny_schema(tasks=3), stitch_own=own)
    for stitch in model.body.stitches:
        assert sum(parameter.numel() for parameter in stitch.parameters()) == 9
        expected = torch.full((3, 3), other).fill_diagonal_(own)
        torch.testing.assert_close(stitch.alpha, expected)
    assert build(tiny_schema(tasks=2)).body.stitches[0].alpha.tolist() == [
        [pytest.approx(0.9), pytest.approx(0.1)],
        [pytest.approx(0.1), pytest.approx(0.9)],
    ]


def test_with_stitches_of_the_identity_tasks_are_apart():
    schema = tiny_schema(tasks=2)
    model = build(schema)
    with torch.no_grad():
        for stitch in model.body.stitches:
            for task, row in enumerate(stitch.rows):
                row.copy_(torch.eye(2)[task])
    model(tiny_features(schema, 20)).logits[:, 1].sum().backward()
    for weight in model.body.weights:
        assert not weight.grad[0].any()
        assert weight.grad[1].any()


def test_stitches_have_a_learning_rate_of_their_own():
    schema = tiny_schema(tasks=2)
    settings = {
        "stitch_lr": 30.0,
        "optimizer": {"name": "sgd", "lr": 0.01, "betas": (0.9, 0.9), "eps": 1e-8},
        "weight_decay": 0.5,
    }
    model = build(schema, **settings)
    stitches = {name for name, _ in model.named_parameters() if "stitches" in name}
    assert len(stitches) == 4
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = build_optimizer(model, model.settings)
    model(tiny_features(schema, 20)).logits.sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    optimizer.step()
    for name, value in model.named_parameters():
        if not gradients[name].is_sparse:
            # Weights decay, stitches and biases do not.
            start = before[name] * (1 if name in stitches or "bias" in name else 1 - 0.01 * 0.5)
            rate = 0.3 if name in stitches else 0.01
            torch.testing.assert_close(value.detach(), start - rate * gradients[name], msg=name)


def test_the_last_stitch_and_the_heads_are_each_task_s_own():
    schema = tiny_schema(tasks=2)
    model = build(schema)
    reach = find_reach(model, tiny_features(schema, 20))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for task, own in enumerate(reach.specific):
        head = f"towers.towers.{task}.logit"
        assert {names[each] for each in own} == {f"body.stitches.1.rows.{task}", f"{head}.weight", f"{head}.bias"}
    assert reach.other == ()


def test_one_task_and_towers_without_a_layer_are_refused():
    with pytest.raises(UsageError, match="CrossStitch needs 2 tasks or more; found 1"):
        build(tiny_schema(tasks=1))
    with pytest.raises(UsageError, match="tower_hidden: expected one layer or more"):
        build(tiny_schema(), tower_hidden=[])
