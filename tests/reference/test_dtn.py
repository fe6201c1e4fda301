"""DTN against METHODS §1 in numpy: both variants, every option on its own, and chains of every shape."""

import itertools

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, WithAuxiliary
from recbole_dtn.interaction.gdcn import GDCN
from recbole_dtn.interaction.memonet import MemoNet
from recbole_dtn.loss.tasks import task_losses
from recbole_dtn.model import dtn
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    mlp,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
    sigmoid,
    softmax,
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
        hidden = mlp(p, f"towers.{t}.hidden.layers", fused, masks)
        logits[task] = hidden @ p[f"towers.{t}.logit.weight"][0] + p[f"towers.{t}.logit.bias"][0]
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
        entries=2,
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


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ({"d": ["a"]}, "task_chain: 'd' is no task"),
        ({"a": ["clck"]}, "task_chain: 'clck' is no task: known: a, b, c"),
        ({"a": ["b"], "b": ["a"]}, "cycle among a, b"),
        ({"a": ["a"]}, "cycle among a"),
    ],
)
def test_wrong_chains(chain, message):
    schema, _ = case("two predecessors")
    with pytest.raises(UsageError, match=message):
        build(schema, task_chain=chain)


def test_regression_predecessor_has_no_probability():
    tasks = [TaskSpec("dwell", "regression", "d"), TaskSpec("buy", "binary", "b", after=("dwell",))]
    schema = tiny_schema(tasks=tasks)
    with pytest.raises(UsageError, match="'dwell' comes before another task, but is a regression task"):
        build(schema)
    assert build(schema, use_tsn=False)(tiny_features(schema, 3)).logits.shape == (3, 2)
    assert build(schema, task_chain={})(tiny_features(schema, 3)).logits.shape == (3, 2)


def test_no_modules_and_a_task_named_shared_are_refused():
    with pytest.raises(UsageError, match="at least one interaction module"):
        build(case("two tasks")[0], interactions=[])
    with pytest.raises(UsageError, match="'shared' is the name of what all tasks share"):
        build(tiny_schema(tasks=chain_of(shared=())))


def test_normalised_scale_keeps_a_running_mean():
    scale = dtn.PredictionScale(normalised=True, detach=False)
    probabilities = [torch.tensor([0.1, 0.3]), torch.tensor([0.5, 0.9]), torch.tensor([0.2, 0.2])]
    logits = [torch.logit(p) for p in probabilities]
    scale.eval()
    torch.testing.assert_close(scale(logits[1]), probabilities[1])  # before training it divides by one
    scale.train()
    torch.testing.assert_close(scale(logits[0]), probabilities[0] / 0.2)
    mean = 0.99 * 0.2 + 0.01 * 0.7
    torch.testing.assert_close(scale(logits[1]), probabilities[1] / mean)
    scale.eval()
    for _ in range(3):
        torch.testing.assert_close(scale(logits[2]), probabilities[2] / mean)
    other = dtn.PredictionScale(normalised=True, detach=False).eval()
    other.load_state_dict(scale.state_dict())
    torch.testing.assert_close(other(logits[2]), probabilities[2] / mean)
    assert not list(dtn.PredictionScale(normalised=False, detach=False).buffers())


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


def test_owners_share_nothing_but_the_embedding():
    schema, features = case("four tasks")
    model = build(schema, interactions=["gdcn", {"name": "masknet", "block_dim": 4}, {"name": "memonet", "codes": 20}])
    assert len(model.interactions) == 5
    storages = [{p.untyped_storage().data_ptr() for p in owned.parameters()} for owned in model.interactions]
    for one, other in itertools.combinations(storages, 2):
        assert not one & other
    parts = [model.embedding, model.interactions, model.selectors, model.towers]
    assert sum(p.numel() for part in parts for p in part.parameters()) == sum(p.numel() for p in model.parameters())
    before = model._interact(model.embedding(features), features.ids)[0]
    with torch.no_grad():
        for parameter in model.interactions[2].parameters():
            parameter.add_(0.1)
    after = model._interact(model.embedding(features), features.ids)[0]
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        True,
        True,
    ]


def gradients(model, schema, features, labels):
    model.zero_grad()
    observed = torch.ones_like(labels, dtype=torch.bool)
    task_losses(model(features).logits, labels, observed, schema.tasks).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("detach", [False, True])
def test_which_label_reaches_which_gates_and_tower(detach, variant):
    """Chain first -> later. Without the detach a later label reaches the first task's head through its prediction."""
    schema, features = case("two tasks", rows=12)
    model = build(schema, variant=variant, tsn_detach=detach).double()
    labels = (torch.arange(24).view(12, 2) % 3 == 0).double()
    base = gradients(model, schema, features, labels)
    permuted = {}
    for task in (0, 1):
        changed = labels.clone()
        changed[:, task] = changed[:, task].roll(1)
        permuted[task] = gradients(model, schema, features, changed)

    def moved(task, *prefixes):
        return {not torch.equal(base[n], permuted[task][n]) for n in base if n.startswith(prefixes)}

    first, later = ("selectors.0.", "towers.0."), ("selectors.1.", "towers.1.")
    # Labels of a task reach its own head (a tower's bias sees only their mean) and the modules of every owner.
    assert True in moved(0, *first)
    assert True in moved(1, *later)
    assert moved(0, "interactions.0.", "interactions.1.", "interactions.2.") == {True}
    assert moved(1, "interactions.0.", "interactions.1.", "interactions.2.") == {True}
    # The first task's label never reaches the later task's gates and tower.
    assert moved(0, *later) == {False}
    if detach:
        assert moved(1, *first) == {False}
    else:
        assert True in moved(1, "selectors.0.")
        assert True in moved(1, "towers.0.")


def test_hashes_are_made_once_a_batch_for_all_owners(monkeypatch):
    schema = tiny_schema(tasks=3)
    interactions = [{"name": "memonet", "codes": 20}, "gdcn", {"name": "memonet", "codes": 30}]
    model = build(schema, interactions=interactions)
    made = []
    real = MemoNet.prepare

    def spy(self, ids):
        made.append(self.share_key())
        return real(self, ids)

    monkeypatch.setattr(MemoNet, "prepare", spy)
    model(tiny_features(schema, 4))
    assert len(made) == len(set(made)) == 2


class Costly(FeatureInteraction):
    """A module with a loss of its own: .25 times the number of rows."""

    def __init__(self, shape, output_dim):
        super().__init__(shape, output_dim)
        self.linear = torch.nn.Linear(shape.flat_dim, output_dim)

    def forward(self, embeddings, ids, shared=None):
        loss = 0.25 * len(ids) * self.linear.weight.new_ones(())
        return WithAuxiliary(self.linear(embeddings.flatten(1)), loss)


def test_losses_of_modules_are_weighted(monkeypatch):
    schema, features = case("two tasks", rows=6)

    def both(specs, shape, output_dim):
        return torch.nn.ModuleDict({"costly": Costly(shape, output_dim), "gdcn": GDCN(shape, output_dim)})

    monkeypatch.setattr(dtn, "build_interactions", both)
    output = build(schema, aux_weight=0.1)(features)
    assert {name: loss.item() for name, loss in output.auxiliary.items()} == {
        "interactions": pytest.approx(0.1 * 3 * 0.25 * 6)
    }
    assert build(schema, aux_weight=0.0)(features).auxiliary == {}


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
