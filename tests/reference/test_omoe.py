"""OMoE against its equation in numpy."""

import numpy as np
import pytest

from recbole_dtn.model.omoe import OMoE
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


def reference(p, schema, features, masks=None):
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    outputs = experts_of(p, "experts", x, masks)
    gate = gate_of(p, "gate", x)
    h = sum(gate[:, k, None] * output for k, output in enumerate(outputs)) if outputs else x
    logits = []
    for t in range(schema.num_tasks):
        logits.append(tower_of(p, f"towers.towers.{t}", h, masks))
    return np.stack(logits, 1)


def build(schema, **settings):
    model = OMoE(make_settings("OMoE", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize(("experts", "hidden", "tower_hidden"), [(3, [6, 5], [4]), (1, [5], []), (4, [5], [4, 3])])
def test_equals_numpy(rows, tasks, experts, hidden, tower_hidden):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, experts=experts, expert_hidden=hidden, tower_hidden=tower_hidden)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features))


def test_all_tasks_share_one_gate():
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, 6)
    model = build(schema, experts=3, expert_hidden=[5]).double()
    output = model(features)
    p = parameters_of(model)
    x = embed(p["embedding.table.weight"], schema, features).reshape(6, -1)
    gate = gate_of(p, "gate", x)
    assert np.ptp(gate, axis=1).max() > 0.3
    for task in schema.task_names:
        assert_close(output.gates[task], gate, 1e-12, f"gates of {task}")
        assert model.gate_names[task] == ("shared/expert0", "shared/expert1", "shared/expert2")
    mixed = sum(gate[:, k, None] * each for k, each in enumerate(experts_of(p, "experts", x)))
    assert_close(output.shared, mixed, 1e-12, "shared")


def test_dropout_masks_experts_and_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, experts=3, expert_hidden=[8, 6], tower_hidden=[5], dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(3, 30, 8), (3, 30, 6), (30, 5), (30, 5)]
    p = parameters_of(model)
    assert_close(logits, reference(p, schema, features, iter(masks)), 1e-10, "with dropout")
    assert_close(model.eval()(features).logits, reference(p, schema, features), 1e-10, "in evaluation")
