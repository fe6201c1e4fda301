"""DTN against its equations in numpy: both variants, every option on its own, and chains of every shape."""

import itertools

import numpy as np
import pytest
import torch

from recbole_dtn.model import dtn
from recbole_dtn.schema import TaskSpec
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
    softmax,
    tower_of,
)

PAPER = {"fusion": "concat", "gate_input": "embedding", "gate_activation": "none", "tsn_detach": False}
RELEASED = {"fusion": "sum", "gate_input": "module", "gate_activation": "relu", "tsn_detach": True}
SMALL = {"embedding_size": 2, "module_dim": 3, "tower_hidden": [4], "interactions": ["gdcn", "gdcn"]}


def chain_of(**after):
    return [TaskSpec(name, "binary", name, after=before) for name, before in after.items()]


CHAINS = {
    "one task": chain_of(click=()),
    "two tasks": chain_of(click=(), buy=("click",)),
    "no chain": chain_of(like=(), share=()),
    "out of order": chain_of(buy=("cart",), click=(), cart=("click",)),
    "two predecessors": chain_of(c=("a", "b"), a=(), b=()),
    "four tasks": chain_of(click=(), cart=("click",), buy=("cart",), like=("click",)),
}
ORDERS = {
    "one task": ["click"],
    "two tasks": ["click", "buy"],
    "no chain": ["like", "share"],
    "out of order": ["click", "cart", "buy"],
    "two predecessors": ["a", "b", "c"],
    "four tasks": ["click", "cart", "like", "buy"],
}


def gdcn(p, prefix, c0):
    """The module, written out: c <- c0 * (W_c c + b) * sigmoid(W_g c) + c, then a linear head."""
    c = c0
    for layer in range(sum(key.startswith(f"{prefix}.gates.") for key in p)):
        cross = c @ p[f"{prefix}.crosses.{layer}.weight"].T + p[f"{prefix}.crosses.{layer}.bias"]
        c = c0 * cross * sigmoid(c @ p[f"{prefix}.gates.{layer}.weight"].T) + c
    return c @ p[f"{prefix}.head.weight"].T + p[f"{prefix}.head.bias"]


def gdcn_modules(names):
    def run(p, owner, x):
        if "affine.gamma" in p:
            x = p["affine.gamma"] * x + p["affine.beta"]
        return [gdcn(p, f"interactions.{owner}.{name}", x) for name in names]

    return run


def group(p, prefix, x, modules, options):
    """softmax-gated sum of (already scaled) modules."""
    weight, bias = p[f"{prefix}.gate.weight"], p[f"{prefix}.gate.bias"]
    if options["gate_input"] == "module":
        logits = np.stack([(F * weight[k]).sum(1) + bias[k] for k, F in enumerate(modules)], 1)
    else:
        logits = x @ weight.T + bias
    g = softmax(relu(logits) if options["gate_activation"] == "relu" else logits)
    return sum(g[:, k, None] * F for k, F in enumerate(modules)), g


def reference(p, schema, features, order, modules, options, *, chain=None, means=None, masks=None, gates=None):
    """Logits (B, T). ``means``: divisor of each predecessor's probability (normalised scale), or "batch"."""
    names = list(schema.task_names)
    owners = [*names, "shared"] if options.get("use_shared", True) else names
    chain = {task.name: task.after for task in schema.tasks} if chain is None else chain
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    F = {owner: modules(p, position, x) for position, owner in enumerate(owners)}
    logits, scale = {}, {}
    for task in order:
        t = names.index(task)
        own, own_gate = group(p, f"selectors.{t}.own", x, F[task], options)
        rest = []
        for other in owners:
            if other == task:
                continue
            scaled = options.get("use_tsn", True) and other in chain[task]
            rest += [A * scale[other][:, None] if scaled else A for A in F[other]]
        mixes, weights = [own], [own_gate]
        if rest:
            mixed, gate = group(p, f"selectors.{t}.rest", x, rest, options)
            mixes.append(mixed)
            weights.append(gate)
        fused = np.concatenate(mixes, 1) if options["fusion"] == "concat" else sum(mixes)
        logits[task] = tower_of(p, f"towers.{t}", fused, masks)
        pred = sigmoid(logits[task])
        pred = pred.real if options["tsn_detach"] else pred
        mean = 1.0 if means is None else pred.real.mean() if means == "batch" else means[task]
        scale[task] = pred / mean
        if gates is not None:
            gates[task] = np.concatenate(weights, 1)
    return np.stack([logits[name] for name in names], 1)


def build(schema, **settings):
    model = dtn.DTN(make_settings("DTN", **{**SMALL, **settings}), schema)
    redraw(model)
    return model


def case(chain, rows=5):
    schema = tiny_schema(tokens=2, multi=("mean",), dense=1, tasks=CHAINS[chain])
    return schema, tiny_features(schema, rows)


GRID = list(
    itertools.product(
        ["concat", "sum"],
        ["embedding", "module"],
        ["none", "relu"],
        [False, True],
        ["raw", "normalised"],
        [True, False],
    )
)


@pytest.mark.parametrize(("fusion", "gate_input", "activation", "detach", "scale", "shared"), GRID)
def test_every_combination_of_options(fusion, gate_input, activation, detach, scale, shared):
    schema, features = case("two predecessors")
    options = {
        "fusion": fusion,
        "gate_input": gate_input,
        "gate_activation": activation,
        "tsn_detach": detach,
        "use_shared": shared,
    }
    model = build(schema, tsn_scale=scale, **options)
    run = gdcn_modules(["gdcn#1", "gdcn#2"])
    means = "batch" if scale == "normalised" else None  # the first batch in training: its own mean
    check_reference(
        model.train(),
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, ["a", "b", "c"], run, options, means=means),
        entries=0,
    )


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("chain", CHAINS)
def test_chains(chain, rows, variant):
    schema, features = case(chain, rows)
    options = PAPER if variant == "paper" else RELEASED
    model = build(schema, variant=variant)
    run = gdcn_modules(["gdcn#1", "gdcn#2"])
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, ORDERS[chain], run, options),
        entries=1,
    )


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chain", ["one task", "two tasks"])
def test_one_module_per_owner(chain, shared, variant):
    schema, features = case(chain)
    options = {**(PAPER if variant == "paper" else RELEASED), "use_shared": shared}
    model = build(schema, variant=variant, use_shared=shared, interactions=["gdcn"])
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, ORDERS[chain], gdcn_modules(["gdcn"]), options),
    )
    weights = model(features).gates["click"]
    assert (weights[:, 0] == 1).all()
    if chain == "one task" and not shared:
        assert weights.shape == (5, 1)
        assert model.gate_names == {"click": ("click/gdcn",)}
        assert model.towers[0].hidden.layers[0].in_features == 3
        assert model.selectors[0].rest is None


def test_repeated_modules_with_their_own_options_and_the_affine():
    schema, features = case("two tasks")
    interactions = ["gdcn", {"name": "gdcn", "layers": 1}, "gdcn"]
    model = build(schema, interactions=interactions, input_affine=True, tower_hidden=[])
    run = gdcn_modules(["gdcn#1", "gdcn#2", "gdcn#3"])
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, ["click", "buy"], run, PAPER),
    )
    assert model.gate_names["buy"] == tuple(f"{o}/gdcn#{k}" for o in ("buy", "click", "shared") for k in (1, 2, 3))


def test_affine_starts_as_the_identity():
    schema, features = case("two tasks")
    settings = make_settings("DTN", **{**SMALL, "input_affine": True})
    model = dtn.DTN(settings, schema)
    assert torch.equal(model.affine(model.embedding(features)), model.embedding(features))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_all_three_methods_and_who_reads_the_raw_embeddings(variant):
    """Outputs of the modules are taken as given (they have their own tests); what is done with them is numpy's."""
    schema = tiny_schema(tokens=3, multi=("sum",), dense=1, tasks=CHAINS["four tasks"])
    features = tiny_features(schema, 6)
    interactions = ["gdcn", {"name": "masknet", "block_dim": 4}, {"name": "memonet", "codes": 20}]
    model = build(schema, variant=variant, interactions=interactions, input_affine=True).double()
    embeddings = model.embedding(features)
    flat = embeddings.flatten(1) * model.affine.gamma + model.affine.beta
    affine = flat.view_as(embeddings)

    def run(p, owner, x):
        owned = model.interactions[owner]
        read = {"gdcn": affine, "masknet": affine, "memonet": embeddings}
        return [owned[name](read[name], features.ids).detach().numpy() for name in owned]

    options = PAPER if variant == "paper" else RELEASED
    gates = {}
    p = parameters_of(model)
    expected = reference(p, schema, features, ORDERS["four tasks"], run, options, gates=gates)
    output = model(features)
    assert_close(output.logits, expected, 1e-10, "logits")
    for task in schema.task_names:
        assert_close(output.gates[task], gates[task], 1e-10, f"gates of {task}")
    assert list(output.gates) == list(schema.task_names)
    owners = ("cart", "click", "buy", "like", "shared")
    assert model.gate_names["cart"] == tuple(f"{o}/{m}" for o in owners for m in ("gdcn", "masknet", "memonet"))


def test_gates_and_scaling_matter_in_these_tests():
    """The references would not agree by chance: without gates, scaling or the right group they are far off."""
    schema, features = case("two predecessors")
    run = gdcn_modules(["gdcn#1", "gdcn#2"])
    for options, variant in ((PAPER, "paper"), (RELEASED, "released")):
        model = build(schema, variant=variant).double()
        p = parameters_of(model)
        logits = model(features).logits.detach().numpy()
        flat = {name: value * (0 if ".gate." in name else 1) for name, value in p.items()}
        no_chain = {"a": (), "b": (), "c": ()}
        wrong_chain = {"a": (), "b": (), "c": ("a",)}
        assert np.abs(reference(flat, schema, features, "abc", run, options) - logits).max() > 0.02
        for chain in (no_chain, wrong_chain):
            wrong = reference(p, schema, features, "abc", run, options, chain=chain)
            assert np.abs(wrong - logits)[:, 0].max() > 0.005
            assert np.abs(wrong - logits)[:, 1:].max() < 1e-10


def test_without_tsn_nothing_is_scaled():
    schema, features = case("two predecessors")
    model = build(schema, use_tsn=False)
    run = gdcn_modules(["gdcn#1", "gdcn#2"])
    options = {**PAPER, "use_tsn": False}
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features, "abc", run, options))


def test_task_chain_overrides_the_data_set():
    schema, features = case("two predecessors")
    model = build(schema, task_chain={"a": ["c"]})
    run = gdcn_modules(["gdcn#1", "gdcn#2"])
    chain = {"a": ("c",), "b": (), "c": ()}
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, "cab", run, PAPER, chain=chain),
    )


@pytest.mark.parametrize("detach", [False, True])
def test_normalised_scale_in_evaluation(detach):
    schema, features = case("two predecessors")
    model = build(schema, tsn_scale="normalised", tsn_detach=detach).eval()
    means = {"a": 0.25, "b": 0.5, "c": 1.0}
    for position, name in enumerate(schema.task_names):
        model.scales[position].mean.fill_(means[name])
    run = gdcn_modules(["gdcn#1", "gdcn#2"])
    options = {**PAPER, "tsn_detach": detach}
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, "abc", run, options, means=means),
    )


def test_dropout_masks_the_towers_in_the_order_of_the_chain():
    schema, features = case("out of order", rows=40)
    model = build(schema, dropout=0.4, tower_hidden=[6, 5]).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(40, 6), (40, 5)] * 3
    run = gdcn_modules(["gdcn#1", "gdcn#2"])
    p = parameters_of(model)
    order = ORDERS["out of order"]
    expected = reference(p, schema, features, order, run, PAPER, masks=iter(masks))
    assert_close(logits, expected, 1e-10, "with dropout")
    plain = reference(p, schema, features, order, run, PAPER)
    assert_close(model.eval()(features).logits, plain, 1e-10, "in evaluation")
    assert np.abs(expected - plain).max() > 0.1
