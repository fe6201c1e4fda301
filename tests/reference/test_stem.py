"""STEM against its equations in numpy; ``x.real`` is a stopped gradient."""

import numpy as np
import pytest
import torch

from recbole_dtn.model.stem import STEM
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    experts_of,
    gate_of,
    parameters_of,
    recorded_dropout,
    redraw,
    tower_of,
)


def reference(p, schema, features, levels, masks=None, last_gates=None):
    tasks = schema.num_tasks
    h = [
        embed(p[f"embeddings.{o}.table.weight"], schema, features).reshape(len(features), -1) for o in range(tasks + 1)
    ]
    for level in range(levels):
        at = f"levels.{level}"
        experts = [experts_of(p, f"{at}.experts.{o}", h[o], masks) for o in range(tasks + 1)]
        mixed = []
        for t in range(tasks):
            gate = gate_of(p, f"{at}.gates.{t}", h[t] + h[tasks])
            choices = [each if o in (t, tasks) else each.real for o, owned in enumerate(experts) for each in owned]
            mixed.append(sum(gate[:, k, None] * each for k, each in enumerate(choices)))
            if last_gates is not None and level == levels - 1:
                last_gates.append(gate)
        if level < levels - 1:
            gate = gate_of(p, f"{at}.gates.{tasks}", h[tasks])
            choices = [each for owned in experts for each in owned]
            mixed.append(sum(gate[:, k, None] * each for k, each in enumerate(choices)))
        h = mixed
    logits = []
    for t in range(tasks):
        logits.append(tower_of(p, f"towers.towers.{t}", h[t], masks))
    return np.stack(logits, 1)


SMALL = {"expert_hidden": [5], "gate_hidden": [4], "tower_hidden": [4]}


def build(schema, **settings):
    model = STEM(make_settings("STEM", embedding_size=3, **{**SMALL, **settings}), schema)
    redraw(model, gain=1.2)
    return model


@pytest.mark.parametrize("rows", [1, 12])
@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_equals_numpy(rows, tasks, levels):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, levels=levels)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, levels), entries=2)


@pytest.mark.parametrize(
    "sizes",
    [
        {"shared_experts": 2, "task_experts": 3, "expert_hidden": [6, 4], "gate_hidden": []},
        {"shared_experts": 3, "task_experts": 1, "gate_hidden": [5, 4], "gate_bias": False, "tower_hidden": []},
    ],
)
def test_equals_numpy_at_other_sizes(sizes):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 8)
    model = build(schema, levels=2, **sizes)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, 2))


def test_gates_weigh_the_experts_of_all_owners():
    schema = tiny_schema()
    features = tiny_features(schema, 6)
    model = build(schema, levels=2, shared_experts=2, task_experts=1).double()
    gates = []
    reference(parameters_of(model), schema, features, 2, last_gates=gates)
    found = model(features).gates
    for task, gate in zip(schema.task_names, gates, strict=True):
        assert gate.shape == (6, 4)
        assert_close(found[task], gate, 1e-12, f"gates of {task}")
        assert np.ptp(gate, axis=1).max() > 0.2
    names = ("click/expert0", "cart/expert0", "shared/expert0", "shared/expert1")
    assert model.gate_names == {"click": names, "cart": names}


def test_a_task_moves_its_own_and_the_shared_part_alone():
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, 20)
    model = build(schema)
    model(features).logits[:, 1].sum().backward()

    def moved(module):
        return [p.grad is not None and bool(p.grad.any()) for p in module.parameters()]

    for parts in (model.embeddings, model.levels[0].experts):
        for owner, part in enumerate(parts):
            assert all(moved(part)) if owner in (1, 3) else not any(moved(part))


def test_the_shared_unit_sends_gradients_to_all_experts_and_is_absent_on_the_last_level():
    schema = tiny_schema(tasks=2)
    model = build(schema, levels=2)
    assert [len(level.gates) for level in model.levels] == [3, 2]
    model(tiny_features(schema, 20)).logits[:, 0].sum().backward()
    for experts in model.levels[0].experts:
        assert all(bool(p.grad.any()) for p in experts.parameters())


def test_dropout_masks_experts_and_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, levels=2, dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(1, 30, 5)] * 6 + [(30, 4)] * 2
    p = parameters_of(model)
    assert_close(logits, reference(p, schema, features, 2, iter(masks)), 1e-10, "with dropout")
    assert_close(model.eval()(features).logits, reference(p, schema, features, 2), 1e-10, "in evaluation")
    assert not torch.equal(logits, model(features).logits)
