"""MSSM against its equations in numpy, row by row, with the gates that were drawn."""

import math

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.reach import find_reach
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.hard_concrete import HardConcrete
from recbole_dtn.model.mssm import MSSM
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


def clip(z):
    return np.where(z.real < 0, 0, np.where(z.real > 1, 1, z))


def gates(p, name, noise=None):
    """Hard concrete gates; ``noise``: the uniform numbers of a training step, in order, None in evaluation."""
    s = p[f"{name}.log_alpha"]
    if noise is not None:
        u = next(noise)
        s = (np.log(u) - np.log(1 - u) + s) / BETA
    return clip(sigmoid(s) * (ZETA - GAMMA) + GAMMA)


def reference(p, schema, features, levels, noise=None, masks=None, front=None):
    e = embed(p["embedding.table.weight"], schema, features)
    weights = [p[f"field_cells.cells.weights.{i}"] for i in range(9) if f"field_cells.cells.weights.{i}" in p]
    biases = [p[f"field_cells.cells.biases.{i}"] for i in range(len(weights))]
    cells = len(weights[0])
    z = gates(p, "field_cells.gates", noise)
    # All gates of a forward are drawn before a row is looked at, in this order.
    above = [[gates(p, f"routes.{level}.{i}.gates", noise) for i in range(cells)] for level in range(levels - 1)]
    last = [gates(p, f"task_routes.{t}.gates", noise) for t in range(schema.num_tasks)]
    drops = [next(masks) for _ in weights] if masks is not None else None
    deeper = [next(masks) for _ in above] if masks is not None else None
    read = []
    for row in range(len(features)):
        u = []
        for c in range(cells):
            x = (
                np.concatenate([z[c, f] * e[row, f] for f in range(schema.num_fields)])
                if front is None
                else front(p, np.array([z[c, f] * e[row, f] for f in range(schema.num_fields)]))
            )
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                x = relu(x @ weight[c] + bias[c, 0])
                x = x if drops is None else x * drops[layer][c, row]
            u.append(x)
        for level, found in enumerate(above):
            u = [
                relu(
                    sum(found[i][j] * (p[f"routes.{level}.{i}.weight"][j] @ u[j]) for j in range(cells))
                    + p[f"routes.{level}.{i}.bias"]
                )
                for i in range(cells)
            ]
            u = u if deeper is None else [each * deeper[level][row, i] for i, each in enumerate(u)]
        read.append(
            [
                sum(last[t][j] * (p[f"task_routes.{t}.weight"][j] @ u[j]) for j in range(cells))
                for t in range(schema.num_tasks)
            ]
        )
    read = np.array(read)
    return np.stack([tower_of(p, f"towers.towers.{t}", read[:, t]) for t in range(schema.num_tasks)], 1)


def build(schema, **settings):
    settings = {"cells": 3, "cell_hidden": [5], "tower_hidden": [4], **settings}
    model = MSSM(make_settings("MSSM", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize(("rows", "tasks"), [(1, 2), (7, 1), (6, 3)])
@pytest.mark.parametrize(
    ("levels", "options"), [(1, {}), (3, {"cells": 2}), (2, {"cell_hidden": [6, 4], "tower_hidden": []})]
)
def test_equals_numpy_in_evaluation(rows, tasks, levels, options):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, levels=levels, **options).eval()
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, levels), entries=2)


class Noise:
    """Gives the same uniform numbers to torch's gates and to the reference."""

    def __init__(self, monkeypatch):
        self.drawn, self.place = [], None
        self.draw = np.random.default_rng(5)
        monkeypatch.setattr(torch, "rand_like", self)

    def __call__(self, like):
        # A pass after the first repeats its numbers.
        if self.place is None:
            self.drawn.append(self.draw.uniform(0.02, 0.98, tuple(like.shape)))
            return torch.as_tensor(self.drawn[-1], dtype=like.dtype)
        self.place = (self.place + 1) % len(self.drawn)
        return torch.as_tensor(self.drawn[self.place], dtype=like.dtype)


@pytest.mark.parametrize("levels", [1, 2])
def test_equals_numpy_in_training(levels, monkeypatch):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 6)
    model = build(schema, levels=levels)
    noise = Noise(monkeypatch)
    model(features)
    noise.place = -1
    assert len(noise.drawn) == 1 + 3 * (levels - 1) + 2
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, levels, noise=iter(noise.drawn)),
        entries=2,
    )


def test_every_step_draws_the_gates_anew_and_evaluation_draws_none():
    schema = tiny_schema()
    features = tiny_features(schema, 6)
    model = build(schema)
    assert not torch.equal(model(features).logits, model(features).logits)
    model.eval()
    assert torch.equal(model(features).logits, model(features).logits)


@pytest.mark.parametrize("levels", [1, 3])
def test_the_penalty_is_the_expected_share_of_open_gates_of_each_kind(levels):
    model = build(tiny_schema(tasks=2), levels=levels, gate_penalty=0.5).double()
    p = parameters_of(model)

    def share(names):
        values = np.concatenate([p[f"{name}.log_alpha"].ravel() for name in names])
        return sigmoid(values - BETA * math.log(-GAMMA / ZETA)).mean()

    kinds = [["field_cells.gates"], ["task_routes.0.gates", "task_routes.1.gates"]]
    kinds += [[f"routes.{level}.{i}.gates" for i in range(3)] for level in range(levels - 1)]
    found = model(tiny_features(model.schema, 4)).auxiliary
    assert_close(found["gates"], np.array(0.5 * sum(share(names) for names in kinds)), 1e-12, "the penalty")
    assert not build(tiny_schema(), gate_penalty=0.0)(tiny_features(tiny_schema(), 4)).auxiliary


def test_every_gate_and_matrix_is_a_parameter():
    """In published code W, and all gates but one number, are in lists that the optimiser does not see."""
    model = build(tiny_schema(tasks=2), levels=3, cells=4)
    sizes = {name: tuple(p.shape) for name, p in model.named_parameters() if "log_alpha" in name}
    assert sizes.pop("field_cells.gates.log_alpha") == (4, 6)
    assert len(sizes) == 4 + 4 + 2
    assert set(sizes.values()) == {(4, 5)}
    matrices = [p for name, p in model.named_parameters() if "routes" in name and name.endswith("weight")]
    assert sum(p.numel() for p in matrices) == (4 + 4 + 2) * 4 * 5 * 5
    gates = [module for module in model.modules() if isinstance(module, HardConcrete)]
    assert all(gate.log_alpha.requires_grad for gate in gates)


def test_a_shut_gate_hides_a_field_from_a_cell_and_a_cell_from_a_task():
    schema = tiny_schema(tokens=3, multi=(), dense=0, tasks=2)
    features = tiny_features(schema, 6)
    model = build(schema, cells=2).eval()
    with torch.no_grad():
        for gates in (module for module in model.modules() if isinstance(module, HardConcrete)):
            gates.log_alpha.fill_(20.0)
        model.field_cells.gates.log_alpha[0, 1] = -20.0  # cell 0 does not read field 1
        model.task_routes[0].gates.log_alpha[1] = -20.0  # task 0 does not read cell 1
    e = model.embedding(features).detach().requires_grad_()
    model.embedding.forward = lambda _: e
    logits = model(features).logits
    (first,) = torch.autograd.grad(logits[:, 0].sum(), e, retain_graph=True)
    (second,) = torch.autograd.grad(logits[:, 1].sum(), e)
    assert not first[:, 1].any()
    assert first[:, 0].any()
    assert second[:, 1].any()
    kept = model.kept_gates()
    assert kept["fields"].tolist() == [[True, False, True], [True, True, True]]
    assert kept["tasks"].shape == (2, 2, 5)
    assert kept["tasks"].all(dim=2).tolist() == [[True, False], [True, True]]
    assert model.findings() == ["gates of fields: 5 of 6 open", "gates of tasks: 15 of 20 open"]


def test_with_an_interaction_every_cell_reads_that_of_its_gated_embeddings():
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 6)
    front = {"name": "gdcn", "layers": 1}
    model = build(schema, shared_interaction=front, shared_interaction_dim=4).eval()

    def gdcn(p, e):
        c = e.reshape(-1)
        gate = sigmoid(p["front.interaction.gates.0.weight"] @ c)
        c = c * (p["front.interaction.crosses.0.weight"] @ c + p["front.interaction.crosses.0.bias"]) * gate + c
        return p["front.interaction.head.weight"] @ c + p["front.interaction.head.bias"]

    check_reference(
        model, lambda m: m(features).logits, lambda p: reference(p, schema, features, 1, front=gdcn), entries=2
    )


def test_dropout_masks_cells():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, levels=2, tower_hidden=[], dropout=0.4).double()
    for gates in (module for module in model.modules() if isinstance(module, HardConcrete)):
        gates.eval()
    with recorded_dropout() as masks:
        model.dropout.train()
        logits = model(features).logits
    assert [mask.shape for mask in masks] == [(3, 30, 5), (30, 3, 5)]
    assert_close(logits, reference(parameters_of(model), schema, features, 2, masks=iter(masks)), 1e-10, "with dropout")


def test_cells_without_a_layer_are_refused():
    with pytest.raises(UsageError, match="cell_hidden: expected one width or more"):
        build(tiny_schema(), cell_hidden=[])


def test_what_each_task_reaches():
    schema = tiny_schema(tasks=2)
    model = build(schema)
    reach = find_reach(model, tiny_features(schema, 30))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for t, own in enumerate(reach.specific):
        found = {names[id(parameter)] for parameter in own}
        assert found == {
            name for name in names.values() if name.startswith((f"task_routes.{t}.", f"towers.towers.{t}."))
        }
