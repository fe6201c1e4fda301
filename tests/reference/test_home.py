"""HoME against its equations in numpy, with the means of the batch in training and the running ones in evaluation."""

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.model.home import HoME, group_tasks
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    gate_of,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
    sigmoid,
    softmax,
    tower_of,
)

EPS = 1e-5


def normed(p, prefix, h, k, buffers):
    """Batch normalisation of expert k's outputs (B, H)."""
    place = slice(k * h.shape[1], (k + 1) * h.shape[1])
    if buffers is None:
        mean = h.mean(0)
        variance = ((h - mean) ** 2).mean(0)
    else:
        mean, variance = (buffers[f"{prefix}.norm.running_{part}"][place] for part in ("mean", "var"))
    scale, shift = p[f"{prefix}.norm.weight"][place], p[f"{prefix}.norm.bias"][place]
    return (h - mean) / np.sqrt(variance + EPS) * scale + shift


def experts(p, prefix, v, buffers, masks=None):
    """Outputs of an owner's experts, one after another."""
    count = len(p[f"{prefix}.last"])
    layers = sum(name.startswith(f"{prefix}.hidden.weights.") for name in p)
    drops = [np.ones((count, 1, 1)) if masks is None else next(masks) for _ in range(layers)]
    last = np.ones((1, count, 1)) if masks is None else next(masks)
    found = []
    for k in range(count):
        h = v
        if f"{prefix}.feature_gates.up" in p:
            up, down = p[f"{prefix}.feature_gates.up"], p[f"{prefix}.feature_gates.down.weight"]
            gate = k if len(up) > 1 else 0  # of its own, or of its owner
            rank = up.shape[1]
            h = h * 2 * sigmoid(v @ down[gate * rank : (gate + 1) * rank].T @ up[gate])
        for layer in range(layers):
            h = relu(h @ p[f"{prefix}.hidden.weights.{layer}"][k] + p[f"{prefix}.hidden.biases.{layer}"][k, 0])
            h = h * drops[layer][k]
        h = normed(p, prefix, h @ p[f"{prefix}.last"][k], k, buffers)
        found.append(h * sigmoid(h) * last[:, k])
    return found


def own_weights(p, prefix, v):
    logits = v @ p[f"{prefix}.down.weight"].T @ p[f"{prefix}.up.weight"].T
    return sigmoid(logits) if logits.shape[1] == 1 else softmax(logits)


def mix(weights, outputs):
    assert weights.shape[1] == len(outputs)
    return sum(weights[:, k, None] * output for k, output in enumerate(outputs))


def reference(p, schema, features, groups, buffers=None, masks=None, gates=None):
    """``groups``: the positions of the tasks of each group."""
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    owners = range(len(groups) + 1)
    meta = [experts(p, f"meta_experts.{o}", x, buffers, masks) for o in owners]
    z = []
    for o in owners:
        shared = o == len(groups)
        read = [each for g in (-1, *owners[:-1]) for each in meta[g]] if shared else meta[o] + meta[-1]
        z.append(mix(gate_of(p, f"meta_gates.{o}", x), read) + mix(own_weights(p, f"meta_self.{o}", x), meta[o]))
    h = {}
    for g, members in enumerate(groups):
        v = np.concatenate([z[g], z[-1]], 1)
        common = experts(p, f"group_experts.{g}", v, buffers, masks) + experts(p, "shared_experts", v, buffers, masks)
        for t in members:
            own = experts(p, f"task_experts.{t}", v, buffers, masks)
            gate = gate_of(p, f"task_gates.{t}", v)
            h[t] = mix(gate, own + common) + mix(own_weights(p, f"task_self.{t}", v), own)
            if gates is not None:
                gates[t] = gate
    return np.stack([tower_of(p, f"towers.towers.{t}", h[t], masks) for t in range(schema.num_tasks)], 1)


def build(schema, **settings):
    settings = {
        "embedding_size": 3,
        "meta_hidden": [5],
        "expert_hidden": [4],
        "feature_rank": 2,
        "self_rank": 2,
        **settings,
    }
    model = HoME(make_settings("HoME", **settings), schema)
    redraw(model)
    draw = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    return model


def buffers_of(model):
    return {name: buffer.double().numpy().copy() for name, buffer in model.named_buffers()}


TWO = {"task_groups": {"act": ["cart", "fav"], "watch": ["click"]}}
CASES = [
    (1, [[0]], {}),
    (2, [[0, 1]], {"meta_experts": 1, "task_experts": 1, "feature_gate": "owner", "tower_hidden": [3]}),
    (3, [[1, 2], [0]], {**TWO, "meta_hidden": [6, 5], "expert_hidden": [5, 4, 3], "group_experts": 1}),
    (3, [[1, 2], [0]], {**TWO, "feature_gate": "owner", "meta_hidden": [6, 5], "shared_experts": 3}),
    (3, [[1, 2], [0]], {**TWO, "feature_gate": "none", "expert_hidden": [4, 3], "task_experts": 1}),
]


def schema_of(tasks):
    return tiny_schema(tasks=[TaskSpec(name, "binary", name) for name in ("click", "cart", "fav")[:tasks]])


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize(("tasks", "groups", "settings"), CASES)
def test_evaluation_equals_numpy(rows, tasks, groups, settings):
    schema = schema_of(tasks)
    features = tiny_features(schema, rows)
    model = build(schema, **settings).eval()
    buffers = buffers_of(model)
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, groups, buffers),
        entries=1 if rows > 1 else 0,
    )


@pytest.mark.parametrize(("tasks", "groups", "settings"), CASES[1::2])
def test_training_equals_numpy(tasks, groups, settings):
    schema = schema_of(tasks)
    # Enough rows, and experts of few layers, so that no variance is near 0, where float32 has few digits.
    features = tiny_features(schema, 24)
    model = build(schema, **settings)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, groups), entries=0)


def test_running_means_move_by_a_tenth_and_the_shared_experts_once_per_group():
    schema = schema_of(3)
    features = tiny_features(schema, 9)
    model = build(schema, **TWO)
    model.shared_experts.norm.register_forward_hook(lambda norm, given, result: seen.append(given[0].detach()))
    seen = []
    mean = model.shared_experts.norm.running_mean.clone()
    model(features)
    assert len(seen) == 2
    for batch in seen:
        mean = 0.9 * mean + 0.1 * batch.mean(0)
    torch.testing.assert_close(model.shared_experts.norm.running_mean, mean)


def test_gates_weigh_the_experts_of_task_group_and_all():
    schema = schema_of(3)
    features = tiny_features(schema, 6)
    model = build(schema, **TWO, group_experts=1, shared_experts=2, task_experts=1).double().eval()
    gates = {}
    reference(parameters_of(model), schema, features, [[1, 2], [0]], buffers_of(model), gates=gates)
    found = model(features).gates
    for t, task in enumerate(schema.task_names):
        assert_close(found[task], gates[t], 1e-12, f"gates of {task}")
        assert np.ptp(gates[t], axis=1).max() > 0.2
    assert model.gate_names["click"] == ("click/expert0", "watch/expert0", "shared/expert0", "shared/expert1")
    assert model.gate_names["fav"] == ("fav/expert0", "act/expert0", "shared/expert0", "shared/expert1")
    assert build(schema_of(2)).gate_names["cart"][2] == "all_tasks/expert0"


def test_a_task_reaches_no_expert_of_another_group_on_the_second_level():
    schema = schema_of(3)
    model = build(schema, **TWO)
    model(tiny_features(schema, 9)).logits[:, 0].sum().backward()

    def moved(module):
        return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())

    assert [moved(each) for each in model.task_experts] == [True, False, False]
    assert [moved(each) for each in model.group_experts] == [False, True]
    assert moved(model.shared_experts)
    # z_s, which every task reads, mixes the experts of all groups.
    assert all(moved(each) for each in model.meta_experts)


def test_dropout_masks_experts_and_towers():
    schema = schema_of(2)
    features = tiny_features(schema, 30)
    model = build(schema, meta_hidden=[6, 5], tower_hidden=[4], dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    meta, second, tower = [(2, 30, 6), (30, 2, 5)], [(30, 2, 4)], [(30, 4)]
    assert [mask.shape for mask in masks] == meta * 2 + second * 4 + tower * 2
    expected = reference(parameters_of(model), schema, features, [[0, 1]], masks=iter(masks))
    assert_close(logits, expected, 1e-10, "with dropout")


def test_a_training_batch_of_one_row_is_refused():
    schema = schema_of(2)
    features = tiny_features(schema, 4)
    model = build(schema)
    with pytest.raises(
        UsageError, match=r"train_batch_size: HoME normalises over the batch, .* 2 rows or more .*found 1"
    ):
        model(take_rows(features, [2]))
    assert model(take_rows(features, [2, 3])).logits.shape == (2, 2)
    assert model.eval()(take_rows(features, [2])).logits.shape == (1, 2)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["click"]}, "every task in a group; missing: cart, fav"),
        ({"a": ["click", "cart"], "b": ["cart", "fav"]}, "'cart' is in 'a' and 'b'"),
        ({"a": ["click", "cart", "fav"], "b": []}, "'b' has no task"),
        ({"a": ["clik", "cart", "fav"]}, "'clik' in 'a' is not a task; did you mean 'click'"),
        ({"click": ["click", "cart", "fav"]}, "'click' is the name of a task"),
        ({"shared": ["click", "cart", "fav"]}, "'shared' is taken"),
        ({"a/b": ["click", "cart", "fav"]}, "'a/b' is taken"),
    ],
)
def test_groups_that_are_no_partition_of_the_tasks_are_refused(groups, message):
    with pytest.raises(UsageError, match=f"task_groups: .*{message}"):
        group_tasks(groups, ("click", "cart", "fav"))


@pytest.mark.parametrize("key", ["meta_hidden", "expert_hidden"])
def test_experts_without_a_layer_are_refused(key):
    with pytest.raises(UsageError, match=f"{key}: expected one layer or more"):
        build(schema_of(2), **{key: []})
