"""AdaTT against its equations in numpy."""

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.reach import find_reach
from recbole_dtn.errors import UsageError
from recbole_dtn.model.adatt import AdaTT
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


def reference(p, schema, features, levels, masks=None, last_gates=None):
    """The units are told from the parameters: one more than tasks where there is a shared unit."""
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    units = len({name.split(".")[3] for name in p if name.startswith("levels.0.experts.")})
    h = [x] * units
    for level in range(levels):
        experts = [experts_of(p, f"levels.{level}.experts.{u}", h[u], masks) for u in range(units)]
        every = [output for native in experts for output in native]
        mixed, gates = [], []
        for u in range(schema.num_tasks if level == levels - 1 else units):
            gate = gate_of(p, f"levels.{level}.gates.{u}", h[u])
            own = p.get(f"levels.{level}.native.{u}", np.ones(len(experts[u])))
            assert gate.shape[1] == len(every)
            total = sum(gate[:, e, None] * output for e, output in enumerate(every))
            mixed.append(total + sum(own[e] * output for e, output in enumerate(experts[u])))
            gates.append(gate)
        h = mixed
    if last_gates is not None:
        last_gates.extend(gates)
    return np.stack([tower_of(p, f"towers.towers.{t}", h[t], masks) for t in range(schema.num_tasks)], 1)


def build(schema, **settings):
    settings = {"embedding_size": 3, "expert_hidden": [5], "tower_hidden": [4], **settings}
    model = AdaTT(make_settings("AdaTT", **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize(
    ("tasks", "levels", "sizes"),
    [
        (2, 1, {}),
        (3, 2, {}),
        (2, 3, {"task_experts": 2, "expert_hidden": [5, 4]}),
        (2, 2, {"form": "general"}),
        (3, 1, {"form": "general", "task_experts": 1, "shared_experts": 3}),
        (2, 2, {"form": "general", "task_experts": 2, "shared_experts": 1, "tower_hidden": []}),
    ],
)
def test_equals_numpy(rows, tasks, levels, sizes):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, levels=levels, **sizes)
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, levels),
        entries=2 if rows > 1 else 0,
    )


@pytest.mark.parametrize(
    ("form", "owners"), [("sp", "click click cart cart"), ("general", "click click cart cart shared")]
)
def test_gates_are_the_softmax_alone_over_the_experts_of_all_units(form, owners):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 6)
    model = build(schema, form=form, levels=2, task_experts=2).double()
    gates = []
    reference(parameters_of(model), schema, features, 2, last_gates=gates)
    found = model(features).gates
    for task, gate in zip(schema.task_names, gates, strict=True):
        assert_close(found[task], gate, 1e-12, f"gates of {task}")
        assert_close(found[task].sum(1), np.ones(6), 1e-12, "without v")
        assert [name.split("/")[0] for name in model.gate_names[task]] == owners.split()
    assert model.gate_names["cart"][:4] == ("click/expert0", "click/expert1", "cart/expert0", "cart/expert1")


def test_native_weights_are_free_and_absent_where_every_unit_has_one_expert():
    schema = tiny_schema(tasks=2)

    def native(**settings):
        model = AdaTT(make_settings("AdaTT", **settings), schema)
        return [[v for name, v in level.named_parameters() if "native" in name] for level in model.levels]

    assert native(levels=2) == [[], []]
    assert native(form="general", levels=2) == [[], []]
    # The shared unit's are absent on the last level.
    sizes = [[len(v) for v in level] for level in native(form="general", levels=2, task_experts=3, shared_experts=4)]
    assert sizes == [[3, 3, 4], [3, 3]]
    # U(-1 / sqrt(m), 1 / sqrt(m)): neither positive only nor summing to 1.
    for own in native(task_experts=400)[0]:
        assert -0.05 <= own.min() < -0.045
        assert 0.045 < own.max() <= 0.05


def test_one_expert_per_unit_adds_its_output_and_not_its_input():
    """With gates that give one expert all the weight: the result is that expert's output plus the own one's."""
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 6)
    model = build(schema, levels=1, expert_hidden=[7])
    with torch.no_grad():
        for gate in model.levels[0].gates:
            gate.linear.weight.zero_()
            gate.linear.bias.copy_(torch.tensor([0.0, 200.0]))
    x = model.input(features)
    first, second = (experts(x)[:, 0] for experts in model.levels[0].experts)
    mixed, _ = model.levels[0]([x, x])
    torch.testing.assert_close(mixed, torch.stack([first + second, second + second], dim=1))


def test_the_shared_unit_has_no_gate_on_the_last_level():
    model = build(tiny_schema(tasks=3), form="general", levels=2)
    assert [(len(level.experts), len(level.gates)) for level in model.levels] == [(4, 4), (4, 3)]


def test_the_last_gates_and_native_weights_are_each_task_s_own():
    schema = tiny_schema(tasks=2)
    model = build(schema, levels=2, task_experts=2, tower_hidden=[])
    reach = find_reach(model, tiny_features(schema, 20))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for task, own in enumerate(reach.specific):
        gate, head = f"levels.1.gates.{task}.linear", f"towers.towers.{task}.logit"
        assert {names[each] for each in own} == {
            *(f"{part}.{kind}" for part in (gate, head) for kind in ("weight", "bias")),
            f"levels.1.native.{task}",
        }
    assert reach.other == ()


def test_dropout_masks_experts_and_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, levels=2, dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(1, 30, 5)] * 4 + [(30, 4)] * 2
    p = parameters_of(model)
    assert_close(logits, reference(p, schema, features, 2, iter(masks)), 1e-10, "with dropout")
    assert_close(model.eval()(features).logits, reference(p, schema, features, 2), 1e-10, "in evaluation")


def test_one_task_and_a_task_named_shared_are_refused():
    with pytest.raises(UsageError, match="AdaTT needs 2 tasks or more; found 1"):
        build(tiny_schema(tasks=1))
    named = tiny_schema(tasks=[TaskSpec("shared", "binary", "a"), TaskSpec("b", "binary", "b")])
    with pytest.raises(UsageError, match="tasks: 'shared' is the name of what all tasks share"):
        build(named)
