"""DTN's parts and promises: refusals, the running mean, ownership, which label reaches what, hashes made once."""

import itertools

import pytest
import torch
from pydantic import ValidationError

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, WithAuxiliary
from recbole_dtn.interaction.gdcn import GDCN
from recbole_dtn.interaction.memonet import MemoNet
from recbole_dtn.loss.tasks import task_losses
from recbole_dtn.model import dtn, interaction_sets
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import redraw

SMALL = {"embedding_size": 2, "module_dim": 3, "tower_hidden": [4], "interactions": ["gdcn", "gdcn"]}


def chain_of(**after):
    return [TaskSpec(name, "binary", name, after=before) for name, before in after.items()]


CHAINS = {
    "two tasks": chain_of(click=(), buy=("click",)),
    "two predecessors": chain_of(c=("a", "b"), a=(), b=()),
    "four tasks": chain_of(click=(), cart=("click",), buy=("cart",), like=("click",)),
}


def build(schema, **settings):
    model = dtn.DTN(make_settings("DTN", **{**SMALL, **settings}), schema)
    redraw(model)
    return model


def case(chain, rows=5):
    schema = tiny_schema(tokens=2, multi=("mean",), dense=1, tasks=CHAINS[chain])
    return schema, tiny_features(schema, rows)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ({"d": ["a"]}, "task_chain: 'd' is not a task"),
        ({"a": ["clck"]}, "task_chain: 'clck' is not a task: known: a, b, c"),
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
    with pytest.raises(ValidationError, match="interactions\n  List should have at least 1 item"):
        build(case("two tasks")[0], interactions=[])
    with pytest.raises(UsageError, match="'shared' is the name of what all tasks share"):
        build(tiny_schema(tasks=chain_of(shared=())))


def test_a_shared_interaction_is_refused():
    with pytest.raises(UsageError, match="shared_interaction: DTN has modules of its own"):
        build(case("two tasks")[0], shared_interaction={"name": "gdcn"})


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


def test_owners_share_nothing_but_the_embedding():
    schema, features = case("four tasks")
    model = build(schema, interactions=["gdcn", {"name": "masknet", "block_dim": 4}, {"name": "memonet", "codes": 20}])
    assert len(model.interactions) == 5
    storages = [{p.untyped_storage().data_ptr() for p in owned.parameters()} for owned in model.interactions]
    for one, other in itertools.combinations(storages, 2):
        assert not one & other
    parts = [model.embedding, model.interactions, model.selectors, model.towers]
    assert sum(p.numel() for part in parts for p in part.parameters()) == sum(p.numel() for p in model.parameters())
    embeddings = [model.embedding(features)] * 5
    before = model.interactions(embeddings, features.ids)[0]
    with torch.no_grad():
        for parameter in model.interactions[2].parameters():
            parameter.add_(0.1)
    after = model.interactions(embeddings, features.ids)[0]
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

    monkeypatch.setattr(interaction_sets, "build_interactions", both)
    output = build(schema, aux_weight=0.1)(features)
    assert {name: loss.item() for name, loss in output.auxiliary.items()} == {
        "interactions": pytest.approx(0.1 * 3 * 0.25 * 6)
    }
    assert build(schema, aux_weight=0.0)(features).auxiliary == {}
