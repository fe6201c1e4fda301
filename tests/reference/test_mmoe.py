"""MMoE against eq. 6-8 of its paper in numpy."""

import numpy as np
import pytest

from recbole_dtn.layers.experts import Experts
from recbole_dtn.model.mmoe import MMoE
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


def reference(p, schema, features, experts, masks=None, uniform=False):
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    outputs = experts_of(p, "experts", x, masks) or [x] * experts
    logits = []
    for t in range(schema.num_tasks):
        gate = np.full((len(x), experts), 1 / experts) if uniform else gate_of(p, f"gates.gates.{t}", x)
        h = sum(gate[:, k, None] * outputs[k] for k in range(experts))
        logits.append(tower_of(p, f"towers.towers.{t}", h, masks))
    return np.stack(logits, 1)


def build(schema, **settings):
    model = MMoE(make_settings("MMoE", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize(
    ("experts", "hidden", "tower_hidden"), [(3, [6, 5], [4]), (1, [5], []), (4, [5, 4, 3], [3]), (2, [], [4])]
)
def test_equals_numpy(rows, tasks, experts, hidden, tower_hidden):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, experts=experts, expert_hidden=hidden, tower_hidden=tower_hidden)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, experts))


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(("hidden", "bias"), [([5], False), ([6, 4], True), ([], True)])
@pytest.mark.parametrize("experts", [[5], [6, 5]])
def test_gates_with_hidden_layers_and_a_bias(rows, hidden, bias, experts):
    """The reading of published code; it differs from the paper's by more than rounding."""
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, rows)
    model = build(schema, experts=3, expert_hidden=experts, gate_hidden=hidden, gate_bias=bias, tower_hidden=[4])
    gate = model.gates.gates[0]
    assert [layer.out_features for layer in gate.hidden.layers if hasattr(layer, "out_features")] == hidden
    assert (gate.linear.bias is not None) == bias
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, 3))
    without = {name: 0 * value if ".linear.bias" in name else value for name, value in parameters_of(model).items()}
    if bias:
        changed = reference(without, schema, features, 3) - reference(parameters_of(model), schema, features, 3)
        assert np.abs(changed).max() > 1e-2


def test_gates_are_a_linear_softmax_over_experts():
    schema = tiny_schema()
    features = tiny_features(schema, 6)
    model = build(schema, experts=3, expert_hidden=[5]).double()
    output = model(features)
    p = parameters_of(model)
    x = embed(p["embedding.table.weight"], schema, features).reshape(6, -1)
    for t, task in enumerate(schema.task_names):
        gate = gate_of(p, f"gates.gates.{t}", x)
        assert_close(output.gates[task], gate, 1e-12, f"gates of {task}")
        assert np.ptp(gate, axis=1).max() > 0.3
    assert "gates.gates.0.linear.bias" not in p
    assert model.gate_names == dict.fromkeys(("click", "cart"), ("shared/expert0", "shared/expert1", "shared/expert2"))
    ignored = reference(p, schema, features, 3, uniform=True)
    assert np.abs(output.logits.detach().numpy() - ignored).max() > 0.05


def test_experts_are_summed_not_concatenated():
    schema = tiny_schema()
    for experts in (2, 5):
        model = build(schema, experts=experts, expert_hidden=[7], tower_hidden=[4])
        assert model.towers.towers[0].hidden.layers[0].in_features == 7


def test_dropout_masks_experts_and_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, experts=3, expert_hidden=[8, 6], tower_hidden=[5], dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(3, 30, 8), (3, 30, 6), (30, 5), (30, 5)]
    p = parameters_of(model)
    assert_close(logits, reference(p, schema, features, 3, iter(masks)), 1e-10, "with dropout")
    assert_close(model.eval()(features).logits, reference(p, schema, features, 3), 1e-10, "in evaluation")


def test_each_expert_starts_as_a_linear_layer_does():
    experts = Experts(64, [50, 40], count=6)
    for weight, bias, width in zip(experts.weights, experts.biases, (64, 50), strict=True):
        bound = width**-0.5
        for tensor in (weight, bias):
            assert tensor.abs().max() <= bound
            assert tensor.abs().max() > 0.9 * bound
            assert tensor.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
