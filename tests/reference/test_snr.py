"""SNR against its equations in numpy, with the random numbers of a training pass drawn again."""

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.reach import find_reach
from recbole_dtn.model.snr import SNR
from recbole_dtn.optim.build import decays
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
    sigmoid,
    tower_of,
)

BETA, GAMMA, ZETA = 0.9, -0.1, 1.1


def gate(log_alpha, u):
    """One gate; ``u`` is None in evaluation."""
    s = sigmoid(log_alpha) if u is None else sigmoid((np.log(u) - np.log(1 - u) + log_alpha) / BETA)
    z = s * (ZETA - GAMMA) + GAMMA
    return 0.0 if z.real < 0 else 1.0 if z.real > 1 else z


def subnetwork(p, level, j, x, masks):
    """Sub-network j of a level above the first, whose input is its own."""
    h, layer = x, 0
    while f"levels.{level}.weights.{layer}" in p:
        h = relu(h @ p[f"levels.{level}.weights.{layer}"][j] + p[f"levels.{level}.biases.{layer}"][j, 0])
        h = h if masks is None else h * masks[level, layer][j]
        layer += 1
    return h


def reference(p, schema, features, levels, subnetworks, draws=None, masks=None, towers=None):
    """``draws[level][i, j]``: u of each connection; ``masks[level, layer]``: dropout of a layer of sub-networks."""
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    read = [x] * subnetworks
    for level in range(levels):
        u = [subnetwork(p, level, j, read[j], masks) for j in range(subnetworks)]
        read = []
        for i in range(schema.num_tasks if level == levels - 1 else subnetworks):
            v = 0
            for j in range(subnetworks):
                log_alpha = p[f"routes.{level}.gates.{i}.log_alpha"][j]
                z = gate(log_alpha, None if draws is None else draws[level][i, j])
                matrices = p.get(f"routes.{level}.weights.{i}")
                v = v + z * (u[j] if matrices is None else u[j] @ matrices[j].T)
            read.append(v)
    return np.stack([tower_of(p, f"towers.towers.{t}", read[t], towers) for t in range(schema.num_tasks)], 1)


def build(schema, **settings):
    settings = {"embedding_size": 3, "subnetworks": 3, "expert_hidden": [5], "tower_hidden": [4], **settings}
    model = SNR(make_settings("SNR", **settings), schema)
    redraw(model)
    return model


def drawn(model, seed):
    """The random numbers of a pass after ``torch.manual_seed(seed)``, one per connection."""
    torch.manual_seed(seed)
    return [
        torch.stack([torch.rand_like(gate.log_alpha) for gate in route.gates]).detach().double().numpy()
        for route in model.routes
    ]


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(("tasks", "levels"), [(1, 1), (3, 1), (2, 3)])
@pytest.mark.parametrize("form", ["trans", "aver"])
def test_evaluation_equals_numpy(rows, tasks, levels, form):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, form=form, levels=levels).eval()
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, levels, 3),
        entries=2 if rows > 1 else 0,
    )


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(("form", "hidden"), [("trans", [6, 4]), ("aver", [6, 4]), ("trans", [])])
def test_training_equals_numpy(rows, form, hidden):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, rows)
    model = build(schema, form=form, levels=2, expert_hidden=hidden).double()
    closed = 0
    for seed in range(4):
        draws = drawn(model, seed)

        def forward(module, seed=seed):
            torch.manual_seed(seed)
            return module(features).logits

        def expected(p, draws=draws):
            return reference(p, schema, features, 2, 3, draws)

        # The parameters' type is that of the draws: at float32 torch draws other numbers.
        assert_close(forward(model), expected(parameters_of(model)), 1e-10, "output")
        model.zero_grad()
        forward(model).sum().backward()
        values = parameters_of(model)
        generator = np.random.default_rng(seed)
        for name, parameter in model.named_parameters():
            along = generator.normal(size=parameter.shape)
            slope = expected({**values, name: values[name] + 1e-30j * along}).imag.sum() / 1e-30
            assert (parameter.grad.numpy() * along).sum() == pytest.approx(slope, rel=1e-9, abs=1e-10), name
        closed += sum(
            gate(p, u) == 0
            for route, us in zip(model.routes, draws, strict=True)
            for own, row in zip(route.gates, us, strict=True)
            for p, u in zip(own.log_alpha.detach().numpy(), row, strict=True)
        )
    assert closed > 0


def test_penalty_is_lambda_times_the_expected_number_of_open_connections():
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 3)
    model = build(schema, levels=2, gate_penalty=0.3)

    def expected(p):
        names = [name for name in p if name.endswith("log_alpha")]
        assert sum(p[name].size for name in names) == 3 * 3 + 2 * 3
        return 0.3 * sum(sigmoid(p[name] - BETA * np.log(-GAMMA / ZETA)).sum() for name in names)

    check_reference(model, lambda m: m(features).auxiliary["gates"], expected)
    assert build(schema, gate_penalty=0.0)(features).auxiliary == {}
    default = build(schema).eval()
    assert default(features).auxiliary["gates"].item() == pytest.approx(
        1e-4 * expected({**parameters_of(default), "x.log_alpha": np.full(9, 1e9)}) / 0.3 - 9e-4, rel=1e-5
    )


def test_training_draws_every_gate_anew_and_a_seed_repeats():
    schema = tiny_schema()
    features = tiny_features(schema, 5)
    model = build(schema)
    torch.manual_seed(1)
    first, second = model(features).logits, model(features).logits
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(model(features).logits, first)
    model.eval()
    assert torch.equal(model(features).logits, model(features).logits)


@pytest.mark.parametrize(("form", "matrices"), [("trans", 2), ("aver", 0)])
def test_log_alpha_and_the_matrices_are_all_that_a_connection_trains(form, matrices):
    model = SNR(make_settings("SNR", form=form, subnetworks=4, expert_hidden=[5]), tiny_schema(tasks=2))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.routes[0].named_parameters()}
    assert shapes == {
        **{f"gates.{i}.log_alpha": (4,) for i in range(2)},
        **{f"weights.{i}": (4, 5, 5) for i in range(matrices)},
    }
    starts = torch.cat([gate.log_alpha for gate in model.routes[0].gates])
    assert len(set(starts.tolist())) == 8
    assert 0 <= starts.min() < starts.max() <= 1
    # As one linear map of all sub-networks' outputs: U(-1 / sqrt(20), 1 / sqrt(20)).
    for weight in model.routes[0].weights:
        assert 0.2 < weight.abs().max() <= 20**-0.5
    assert not any(decays(model, name) for name, _ in model.named_parameters() if name.endswith("log_alpha"))


def test_kept_connections_are_those_of_evaluation():
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 5)
    model = build(schema, levels=2).eval()
    with torch.no_grad():
        for route in model.routes:
            for i, own in enumerate(route.gates):
                own.log_alpha.copy_(torch.tensor([-5.0, 0.0, -5.0 if i else 5.0]))
    kept = [[[False, True, True]] + [[False, True, False]] * 2, [[False, True, True], [False, True, False]]]
    assert [found.tolist() for found in model.kept_connections()] == kept
    assert model.findings() == [
        "level 1: 4 of 9 connections kept (sub-network 0 2, sub-network 1 1, sub-network 2 1)",
        "level 2: 3 of 6 connections kept (click 2, cart 1)",
    ]
    before = model(features).logits
    with torch.no_grad():
        for name in ("weights", "biases"):
            for part in getattr(model.levels[1], name):
                part[0] += 100.0  # nothing reads sub-network 0
        for weight in model.routes[1].weights[1:]:
            weight[2] += 100.0  # nor the cart tower sub-network 2
    assert torch.equal(model(features).logits, before)


def test_the_last_connections_and_the_towers_are_each_task_s_own():
    schema = tiny_schema(tasks=2)
    model = build(schema, levels=2, tower_hidden=[])
    reach = find_reach(model, tiny_features(schema, 20))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for task, own in enumerate(reach.specific):
        assert {names[each] for each in own} == {
            f"routes.1.gates.{task}.log_alpha",
            f"routes.1.weights.{task}",
            f"towers.towers.{task}.logit.weight",
            f"towers.towers.{task}.logit.bias",
        }
    assert reach.other == ()


def test_dropout_masks_sub_networks_and_towers():
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 30)
    model = build(schema, levels=2, dropout=0.4).double()
    # In one run the masks come between the gates' draws, so that the gates are made to draw nothing: all of evaluation.
    model.train()
    for route in model.routes:
        route.eval()
    with recorded_dropout() as masks:
        logits = model(features).logits
    assert [mask.shape for mask in masks] == [(3, 30, 5)] * 2 + [(30, 4)] * 2
    p = parameters_of(model)
    expected = reference(p, schema, features, 2, 3, masks={(0, 0): masks[0], (1, 0): masks[1]}, towers=iter(masks[2:]))
    assert_close(logits, expected, 1e-10, "with dropout")
