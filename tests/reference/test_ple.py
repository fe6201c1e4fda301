"""PLE (and CGC, its one-level form) against its paper's equations in numpy."""

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.model.ple import PLE
from recbole_dtn.schema import TaskSpec
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


def mix(gate, choices):
    assert gate.shape[1] == len(choices)
    return sum(gate[:, k, None] * choice for k, choice in enumerate(choices))


def reference(p, schema, features, levels, masks=None, last_gates=None, shared_gate="all"):
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    tasks = schema.num_tasks
    h = [x] * (tasks + 1)  # each task's input, the shared owner's last
    for level in range(levels):
        experts = [experts_of(p, f"levels.{level}.experts.{o}", h[o], masks) for o in range(tasks + 1)]
        gates = [gate_of(p, f"levels.{level}.gates.{t}", h[t]) for t in range(tasks)]
        mixed = [mix(gates[t], experts[t] + experts[tasks]) for t in range(tasks)]
        if level < levels - 1:
            gate = gate_of(p, f"levels.{level}.shared_gate", h[tasks])
            read = experts if shared_gate == "all" else experts[tasks:]
            mixed.append(mix(gate, [output for owned in read for output in owned]))
        h = mixed
    if last_gates is not None:
        last_gates.extend(gates)
    logits = []
    for t in range(tasks):
        logits.append(tower_of(p, f"towers.towers.{t}", h[t], masks))
    return np.stack(logits, 1)


def build(schema, **settings):
    settings = {"expert_hidden": [5], "tower_hidden": [4], **settings}
    model = PLE(make_settings("PLE", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_equals_numpy(rows, tasks, levels):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, levels=levels)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, levels))


@pytest.mark.parametrize(
    "sizes",
    [
        {"shared_experts": 1, "task_experts": 1, "expert_hidden": [6, 4], "tower_hidden": []},
        {"shared_experts": 3, "task_experts": 1, "expert_hidden": [4]},
        {"shared_experts": 1, "task_experts": 3, "expert_hidden": [7, 5]},
    ],
)
def test_equals_numpy_at_other_sizes(sizes):
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, 5)
    model = build(schema, levels=2, **sizes)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, 2))


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(("hidden", "bias"), [([5], False), ([6, 4], True), ([], True)])
def test_gates_with_hidden_layers_and_a_bias(rows, levels, hidden, bias):
    schema = tiny_schema()
    features = tiny_features(schema, rows)
    model = build(schema, levels=levels, gate_hidden=hidden, gate_bias=bias)
    assert (model.levels[0].gates[0].linear.bias is not None) == bias
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, levels), entries=2)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("shared_experts", [1, 3])
def test_a_shared_gate_over_the_shared_experts_alone(rows, shared_experts):
    """The reading of published code; the paper's mixes all experts of the level."""
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, rows)
    model = build(schema, levels=3, shared_gate="shared", shared_experts=shared_experts)
    assert [level.shared_gate and level.shared_gate.linear.out_features for level in model.levels] == [
        shared_experts,
        shared_experts,
        None,
    ]
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, 3, shared_gate="shared"),
        entries=2,
    )


def test_gates_are_those_of_the_last_level():
    schema = tiny_schema()
    features = tiny_features(schema, 6)
    model = build(schema, levels=2, shared_experts=2, task_experts=1).double()
    gates = []
    reference(parameters_of(model), schema, features, 2, last_gates=gates)
    found = model(features).gates
    for task, gate in zip(schema.task_names, gates, strict=True):
        assert_close(found[task], gate, 1e-12, f"gates of {task}")
        assert np.ptp(gate, axis=1).max() > 0.2
    assert model.gate_names == {
        "click": ("click/expert0", "shared/expert0", "shared/expert1"),
        "cart": ("cart/expert0", "shared/expert0", "shared/expert1"),
    }


def test_shared_gate_covers_all_experts_and_is_absent_on_the_last_level():
    model = build(tiny_schema(tasks=3), levels=2, shared_experts=2, task_experts=4)
    first, last = model.levels
    assert first.shared_gate.linear.out_features == 3 * 4 + 2
    assert last.shared_gate is None
    assert all(gate.linear.out_features == 4 + 2 for level in model.levels for gate in level.gates)


def test_who_reads_whose_experts():
    """On the last level a task's experts serve that task alone; below it the shared gate spreads them to all."""
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 20)
    model = build(schema, levels=2)
    model(features).logits[:, 0].sum().backward()

    def moved(level, owner):
        return all(p.grad is not None and bool(p.grad.any()) for p in model.levels[level].experts[owner].parameters())

    assert [moved(1, owner) for owner in range(3)] == [True, False, True]
    assert [moved(0, owner) for owner in range(3)] == [True, True, True]


def test_dropout_masks_experts_and_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, levels=2, dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(2, 30, 5)] * 6 + [(30, 4)] * 2
    p = parameters_of(model)
    assert_close(logits, reference(p, schema, features, 2, iter(masks)), 1e-10, "with dropout")
    assert_close(model.eval()(features).logits, reference(p, schema, features, 2), 1e-10, "in evaluation")
    assert not torch.equal(logits, model(features).logits)


def test_a_task_named_shared_is_refused():
    schema = tiny_schema(tasks=[TaskSpec("shared", "binary", "y")])
    with pytest.raises(UsageError, match="'shared' is the name of what all tasks share"):
        build(schema)
