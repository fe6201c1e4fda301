"""PEPNet and PPNet against their equations in numpy."""

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.model.pepnet import PEPNet, PPNet
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
    sigmoid,
)


def gate_nu(p, prefix, z):
    hidden = relu(z @ p[f"{prefix}.hidden.layers.0.weight"].T + p[f"{prefix}.hidden.layers.0.bias"])
    return 2 * sigmoid(hidden @ p[f"{prefix}.output.weight"].T + p[f"{prefix}.output.bias"])


def gate_ids(p, schema, features, fields):
    """Embeddings of the gates' fields, looked up in their own table, whose rows begin at 0."""
    starts = np.cumsum([0, *(schema.fields[i].size for i in fields)])
    table = p["gate_embedding.table.weight"]
    parts = []
    for start, i in zip(starts, fields, strict=False):
        spec = schema.fields[i]
        whole = np.zeros((schema.num_rows, table.shape[1]), dtype=table.dtype)
        whole[spec.offset : spec.offset + spec.size] = table[start : start + spec.size]
        parts.append(embed(whole, schema, features)[:, i])
    return np.concatenate(parts, 1)


def reference(p, schema, features, fields, layers, masks=None):
    e = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    x = e
    if "domains.weight" in p:
        domain = p["domains.weight"][features.domain.numpy()]
        x = e * gate_nu(p, "domain_gate", np.concatenate([domain, e.real], 1))
    z = np.concatenate([gate_ids(p, schema, features, fields), x.real], 1)
    logits = []
    for t in range(schema.num_tasks):
        h = x
        for layer in range(layers):
            h = h * gate_nu(p, f"towers.{t}.gates.{layer}", z)
            weight, bias = (p[f"towers.{t}.layers.{layer}.layers.0.{part}"] for part in ("weight", "bias"))
            h = relu(h @ weight.T + bias)
            h = h if masks is None else h * next(masks)
        h = h * gate_nu(p, f"towers.{t}.gates.{layers}", z)
        logits.append(h @ p[f"towers.{t}.logit.weight"][0] + p[f"towers.{t}.logit.bias"][0])
    return np.stack(logits, 1)


def build(model, schema, **settings):
    built = model(make_settings(model.__name__, embedding_size=3, **settings), schema)
    redraw(built)
    return built


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("hidden", [[], [5], [6, 4]])
@pytest.mark.parametrize("model", [PPNet, PEPNet])
def test_equals_numpy(rows, tasks, hidden, model):
    schema = tiny_schema(tasks=tasks, domains=3)
    features = tiny_features(schema, rows)
    built = build(model, schema, tower_hidden=hidden)
    chosen = (3, 5)  # t1 and t2; m1 has more tokens than t1, but many ids a row
    check_reference(
        built, lambda m: m(features).logits, lambda p: reference(p, schema, features, chosen, len(hidden)), entries=2
    )


@pytest.mark.parametrize(
    ("names", "positions"), [(["t0"], (0,)), (["t2", "m0", "d0"], (1, 2, 5)), (["t1", "t0"], (0, 3))]
)
def test_chosen_gate_fields_and_widths(names, positions):
    schema = tiny_schema(domains=2)
    features = tiny_features(schema, 8)
    built = build(PEPNet, schema, gate_fields=names, gate_embedding_size=2, domain_embedding_size=5, tower_hidden=[4])
    assert built.gate_embedding.table.weight.shape == (sum(schema.fields[i].size for i in positions), 2)
    assert built.domains.weight.shape == (2, 5)
    check_reference(built, lambda m: m(features).logits, lambda p: reference(p, schema, features, positions, 1))


def test_gates_read_the_embeddings_without_sending_a_gradient_back():
    """With layers that are 0 the logit is the bias: only the gates' path is left, and nothing reaches the table."""
    schema = tiny_schema(domains=3)
    features = tiny_features(schema, 9)
    built = build(PEPNet, schema, tower_hidden=[4])
    x = built.input(features).detach().requires_grad_()
    z = torch.cat([built.gate_embedding(features).flatten(1), x.detach()], dim=1)
    (straight,) = torch.autograd.grad(built.towers[0](x, z).sum(), x)
    shared = built(features)
    (through,) = torch.autograd.grad(shared.logits[:, 0].sum(), shared.shared)
    torch.testing.assert_close(through, straight)


def test_domains_change_the_logits_of_pepnet_alone():
    schema = tiny_schema(domains=3)
    features = tiny_features(schema, 9)
    row = take_rows(features, [0, 0, 0])
    moved = torch.arange(3)
    for model, differs in ((PEPNet, True), (PPNet, False)):
        built = build(model, schema)
        logits = built(type(row)(**{**vars(row), "domain": moved})).logits
        assert (logits[0] - logits[1]).abs().min() > 1e-3 if differs else torch.equal(logits[0], logits[1])


def test_dropout_masks_hidden_layers():
    schema = tiny_schema(domains=3)
    features = tiny_features(schema, 30)
    built = build(PEPNet, schema, tower_hidden=[8, 6], dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = built.train()(features).logits
    assert [mask.shape for mask in masks] == [(30, 8), (30, 6)] * 2
    expected = reference(parameters_of(built), schema, features, (3, 5), 2, iter(masks))
    assert_close(logits, expected, 1e-10, "with dropout")


def test_what_is_missing_is_refused():
    with pytest.raises(UsageError, match="domain_field: PEPNet reads the domain of every row"):
        build(PEPNet, tiny_schema())
    with pytest.raises(UsageError, match="gate_fields: 'user' is not a field of the data set"):
        build(PPNet, tiny_schema(), gate_fields=["user"])
    with pytest.raises(UsageError, match="gate_fields: expected one field or more"):
        build(PPNet, tiny_schema(), gate_fields=[])
    with pytest.raises(UsageError, match="gate_fields: no field has exactly one id per row"):
        build(PPNet, tiny_schema(tokens=0))
    built = build(PEPNet, tiny_schema(domains=2))
    with pytest.raises(UsageError, match="this batch has none"):
        built(tiny_features(tiny_schema(), 3))
