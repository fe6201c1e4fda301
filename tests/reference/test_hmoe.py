"""HMoE against its equations in numpy, row by row."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.reach import find_reach
from recbole_dtn.errors import UsageError
from recbole_dtn.model.hmoe import HMoE
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    experts_of,
    gate_of,
    mlp,
    parameters_of,
    recorded_dropout,
    redraw,
)


def reference(p, schema, features, mix="logits", domains=0, masks=None, gates=None):
    """``domains``: N_d where owners are pairs."""
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    tasks = schema.num_tasks
    owners = tasks * max(1, domains)
    experts = experts_of(p, "experts", x, masks)
    hidden, heads = [], []
    for j in range(owners):
        gate = gate_of(p, f"gates.gates.{j}", x)
        z = sum(gate[:, k, None] * output for k, output in enumerate(experts))
        hidden.append(mlp(p, f"towers.towers.{j}.hidden.layers", z, masks))
        heads.append((p[f"towers.towers.{j}.logit.weight"][0], p[f"towers.towers.{j}.logit.bias"][0]))
    logits = []
    for row in range(len(x)):
        for t in range(tasks):
            i = t + (tasks * int(features.domain[row]) if domains else 0)
            w = gate_of(p, f"nets.gates.{i}", x[row : row + 1])[0] if owners > 1 else np.ones(1)
            if gates is not None:
                gates.append(np.concatenate([gate_of(p, f"gates.gates.{i}", x[row : row + 1])[0], w]))
            if mix == "logits":
                scores = [hidden[j][row] @ heads[j][0] + heads[j][1] for j in range(owners)]
                # ``.real`` is a stopped gradient.
                logits.append(sum(w[j] * (scores[j] if j == i else scores[j].real) for j in range(owners)))
            else:
                mixed = sum(w[j] * (hidden[j][row] if j == i else hidden[j][row].real) for j in range(owners))
                logits.append(mixed @ heads[i][0] + heads[i][1])
    return np.array(logits).reshape(len(x), tasks)


def build(schema, **settings):
    settings = {"expert_hidden": [5], "tower_hidden": [4], "experts": 3, **settings}
    model = HMoE(make_settings("HMoE", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize(
    ("rows", "tasks", "domains"), [(1, 2, 0), (1, 2, 3), (5, 1, 0), (8, 3, 0), (8, 1, 3), (8, 2, 2)]
)
@pytest.mark.parametrize("mix", ["logits", "hidden"])
def test_equals_numpy(rows, tasks, domains, mix):
    schema = tiny_schema(tasks=tasks, domains=domains)
    features = tiny_features(schema, rows)
    model = build(schema, mix=mix, owners="pairs" if domains else "tasks")
    check_reference(
        model, lambda m: m(features).logits, lambda p: reference(p, schema, features, mix, domains), entries=2
    )


@pytest.mark.parametrize("mix", ["logits", "hidden"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"tower_hidden": [], "weight_hidden": [4], "gate_hidden": [6, 5]},
        {"tower_hidden": [4, 3], "expert_hidden": [6, 5], "experts": 2},
    ],
)
def test_equals_numpy_at_other_sizes(mix, sizes):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 9)
    model = build(schema, mix=mix, **sizes)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, mix), entries=2)


@pytest.mark.parametrize("mix", ["logits", "hidden"])
@pytest.mark.parametrize("owners", ["tasks", "pairs"])
def test_an_owner_trains_its_own_tower_alone(owners, mix):
    """The gradient of f_i with respect to tower j is 0, and none at all reaches the gate over experts of j."""
    schema = tiny_schema(tasks=2, domains=2)
    features = tiny_features(schema, 20)
    model = build(schema, owners=owners, mix=mix)
    of_first = (features.domain == 0).float() if owners == "pairs" else torch.ones(20)
    (model(features).logits[:, 1] * of_first).sum().backward()
    for part in (model.towers.towers, model.gates.gates):
        moved = [any(bool(p.grad.any()) for p in each.parameters() if p.grad is not None) for each in part]
        assert moved == ([False, True] if owners == "tasks" else [False, True, False, False])
    # The other towers are read all the same: they change the logit.
    before = model(features).logits[:, 1].detach()
    with torch.no_grad():
        model.towers.towers[0].hidden.layers[0].bias.add_(1.0)
    assert (model(features).logits[:, 1] - before).abs().min() > 1e-4


@pytest.mark.parametrize("domains", [0, 2])
def test_gates_are_weights_over_experts_then_over_towers(domains):
    schema = tiny_schema(tasks=2, domains=domains)
    features = tiny_features(schema, 8)
    model = build(schema, owners="pairs" if domains else "tasks").double()
    gates = []
    reference(parameters_of(model), schema, features, domains=domains, gates=gates)
    found = torch.stack([model(features).gates[task] for task in schema.task_names], dim=1)
    assert_close(found, np.array(gates).reshape(8, 2, -1), 1e-12, "gates")
    owners = ["click", "cart"] if not domains else ["click@0", "cart@0", "click@1", "cart@1"]
    experts = ("shared/expert0", "shared/expert1", "shared/expert2")
    assert model.gate_names == dict.fromkeys(["click", "cart"], (*experts, *(f"{owner}/tower" for owner in owners)))


@pytest.mark.parametrize("mix", ["logits", "hidden"])
def test_a_domain_without_training_rows_has_the_mean_of_the_others(mix):
    schema = tiny_schema(tasks=2, domains=3)
    features = tiny_features(schema, 10)
    model = build(schema, owners="pairs", mix=mix)
    model(replace(features, domain=features.domain % 2))
    model.eval()
    third = replace(features, domain=torch.full((10,), 2))
    x = model.input(third)
    z = [sum(model.gates.gates[j](x)[:, k, None] * model.experts(x)[:, k] for k in range(3)) for j in range(6)]
    scores = torch.stack([tower(each) for tower, each in zip(model.towers.towers, z, strict=True)], 1)
    expected = (scores[:, :2] + scores[:, 2:4]) / 2
    torch.testing.assert_close(model(third).logits, expected)


def test_the_tasks_of_a_row_read_the_nets_of_its_domain_alone():
    schema = tiny_schema(tasks=2, domains=2)
    features = tiny_features(schema, 20)
    model = build(schema, owners="pairs")
    whole = model(features).logits.detach()
    with torch.no_grad():
        model.nets.gates[3].linear.weight.fill_(torch.nan)  # domain 1, second task
    found = model(features).logits
    first = features.domain == 0
    assert torch.equal(found[first], whole[first])
    assert torch.equal(found[~first, 0], whole[~first, 0])
    assert found[~first, 1].isnan().all()


def test_task_parameters_of_pairs_hold_for_a_batch_of_one_domain():
    schema = tiny_schema(tasks=2, domains=2)
    model = build(schema, owners="pairs")
    reach = [{id(p) for p in each} for each in model.task_parameters()]
    towers = [{id(p) for p in tower.parameters()} for tower in model.towers.towers]
    assert [[tower <= each for tower in towers] for each in reach] == [[True, False] * 2, [False, True] * 2]
    assert all(id(model.embedding.table.weight) in each for each in reach)
    features = tiny_features(schema, 30)
    for t in range(2):
        model.zero_grad(set_to_none=True)
        model(features).logits[:, t].sum().backward()
        moved = {id(p) for p in model.parameters() if p.grad is not None and p.grad.any()}
        assert moved <= reach[t]
    assert build(tiny_schema()).task_parameters() is None


def test_pairs_start_at_the_base_rate_of_their_task():
    tasks = [TaskSpec("a", "binary", "a", rate=0.2), TaskSpec("b", "binary", "b", rate=0.1, pos_weight=3.0)]
    model = HMoE(make_settings("HMoE", owners="pairs"), tiny_schema(tasks=tasks, domains=3))
    expected = [math.log(0.25), math.log(3 / 9)] * 3
    assert [tower.logit.bias.item() for tower in model.towers.towers] == pytest.approx(expected)


def test_dropout_masks_experts_and_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(3, 30, 5), (30, 4), (30, 4)]
    assert_close(logits, reference(parameters_of(model), schema, features, masks=iter(masks)), 1e-10, "with dropout")


def test_what_is_missing_is_refused():
    with pytest.raises(UsageError, match="owners: 'pairs' needs the domain of every row; set domain_field"):
        build(tiny_schema(), owners="pairs")
    schema = tiny_schema(domains=2)
    with pytest.raises(UsageError, match="domain_field: HMoE reads the domain of every row, and this batch has none"):
        build(schema, owners="pairs")(replace(take_rows(tiny_features(schema, 4), [1]), domain=None))


def test_what_each_task_reaches():
    schema = tiny_schema(tasks=2)
    model = build(schema)
    reach = find_reach(model, tiny_features(schema, 30))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for t, own in enumerate(reach.specific):
        found = {names[id(parameter)] for parameter in own}
        assert found == {
            name
            for name in names.values()
            if name.startswith((f"gates.gates.{t}.", f"nets.gates.{t}.", f"towers.towers.{t}."))
        }
