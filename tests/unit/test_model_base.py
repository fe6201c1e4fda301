"""What the base does for every model: the front, settings, tasks, plain parts, penalties."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, WithAuxiliary
from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.front import Front
from recbole_dtn.model.mmoe import MMoE, MMoESettings
from recbole_dtn.model.shared_bottom import SharedBottom
from recbole_dtn.model.single_task import SingleTask
from recbole_dtn.registry import INTERACTIONS, MODELS, spelled
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.models import check_model


class Means(FeatureInteraction):
    """``W mean_f e_f + b``, and the mean square of the embeddings as a loss of its own."""

    def __init__(self, shape, output_dim):
        super().__init__(shape, output_dim)
        self.head = nn.Linear(shape.embedding_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared=None):
        return WithAuxiliary(self.head(embeddings.mean(1)), embeddings.square().mean())


class TooWide(Means):
    """Two columns too many."""

    def forward(self, embeddings: Tensor, ids: Tensor, shared=None):
        return super().forward(embeddings, ids).output.repeat(1, 2)


@pytest.fixture(autouse=True)
def _registered():
    """The two interactions, for the test alone; what it imports for the first time stays registered."""
    INTERACTIONS.register("test-means")(Means)
    INTERACTIONS.register("test-too-wide")(TooWide)
    yield
    for name, method in (("test-means", Means), ("test-too-wide", TooWide)):
        INTERACTIONS._entries.pop(name)
        INTERACTIONS.declared.pop(spelled(method))


FRONT = {"shared_interaction": {"name": "test-means"}, "shared_interaction_dim": 5}


def test_models_read_the_output_of_a_shared_interaction():
    schema = tiny_schema()
    features = tiny_features(schema, 6)
    model = SharedBottom(make_settings("SharedBottom", **FRONT, bottom_hidden=[7]), schema)
    e = model.embedding(features)
    x = e.mean(1) @ model.front.interaction.head.weight.T + model.front.interaction.head.bias
    torch.testing.assert_close(model.input(features), x)
    shared = torch.relu(x @ model.bottom.layers[0].weight.T + model.bottom.layers[0].bias)
    output = model(features)
    torch.testing.assert_close(output.shared, shared)
    for t, tower in enumerate(model.towers.towers):
        torch.testing.assert_close(output.logits[:, t], tower(shared))


def test_single_task_has_an_interaction_for_each_task():
    schema = tiny_schema(tasks=3)
    model = SingleTask(make_settings("SingleTask", **FRONT), schema)
    model(tiny_features(schema, 6)).logits[:, 1].sum().backward()
    moved = [bool(front.interaction.head.weight.grad.any()) for front in model.fronts]
    assert moved == [False, True, False]


def test_the_loss_of_a_shared_interaction_is_a_penalty():
    schema = tiny_schema()
    features = tiny_features(schema, 6)
    for model in (
        MMoE(make_settings("MMoE", **FRONT, aux_weight=0.25), schema),
        SingleTask(make_settings("SingleTask", **FRONT, aux_weight=0.25), schema),
    ):
        model(features)
        tables = [model.embedding] if isinstance(model, MMoE) else model.embeddings
        expected = 0.25 * sum(table(features).square().mean() for table in tables)
        torch.testing.assert_close(model.penalties()["shared_interaction"], expected)
    assert "shared_interaction" not in MMoE(make_settings("MMoE", **FRONT), schema).penalties()


def test_a_model_is_copied_without_the_loss_of_its_shared_interaction():
    schema = tiny_schema()
    model = SharedBottom(make_settings("SharedBottom", **FRONT, aux_weight=0.25), schema)
    model(tiny_features(schema, 6))
    twin = copy.deepcopy(model)
    assert model.front.penalty.item() > 0
    assert twin.front.penalty is None


@pytest.mark.parametrize(
    "name", [name for name in MODELS.names() if name != "DTN" and not MODELS.attributes(name)["fits_directly"]]
)
def test_every_model_takes_a_shared_interaction(name):
    check_model(name, shared_interaction={"name": "gdcn", "layers": 1}, shared_interaction_dim=6)


def test_an_interaction_of_another_width_is_named():
    schema = tiny_schema()
    model = SharedBottom(make_settings("SharedBottom", **{**FRONT, "shared_interaction": "test-too-wide"}), schema)
    with pytest.raises(UsageError, match=r"interaction TooWide: expected an output of shape \(3, 5\).*found \(3, 10\)"):
        model(tiny_features(schema, 3))


class Bare(MultiTaskRecommender):
    """A plug-in that flattens by itself, with a fusible part."""

    def build(self, settings, schema):
        self.embedding = self.new_embedding()
        self.bottom = MLP(self.flat_dim, [4])
        self.towers = Towers(4, [], count=schema.num_tasks)

    def forward(self, features):
        h = self.bottom(self.embedding(features).flatten(1))
        return ModelOutput(self.towers(h.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)))


def test_a_model_without_a_front_refuses_a_shared_interaction():
    with pytest.raises(UsageError, match="shared_interaction: Bare does not read it"):
        Bare(make_settings(Bare, **FRONT), tiny_schema())


@pytest.mark.parametrize("fused", [True, False])
def test_parts_of_a_plug_in_obey_the_setting_fused(fused):
    model = Bare(make_settings(Bare, fused=fused), tiny_schema())
    assert {part.fused for part in model.modules() if isinstance(part, Fusible)} == {fused}


def test_settings_of_another_class_become_the_model_s_own():
    """The command line builds a class of the same fields from the index, without importing the model."""
    given = make_settings("MMoE", experts=3, expert_hidden=[5])
    assert not isinstance(given, MMoESettings)
    model = MMoE(given, tiny_schema())
    assert isinstance(model.settings, MMoESettings)
    assert model.settings.dump() == given.dump()


class OneOfEach(Bare):
    task_kinds = frozenset({"regression"})
    min_tasks = 2
    needs_domain = True


@pytest.mark.parametrize(
    ("tasks", "domains", "message"),
    [
        ("binary", 2, "tasks: 'a' is a binary task, and OneOfEach takes regression tasks only"),
        ("alone", 2, r"tasks: OneOfEach needs 2 tasks or more; found 1 \(a\)"),
        ("right", 0, "domain_field: OneOfEach reads the domain of every row"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(tasks, domains, message):
    kinds = {"binary": ["binary", "regression"], "alone": ["regression"], "right": ["regression"] * 2}[tasks]
    made = [TaskSpec(name, kind, name) for name, kind in zip("ab", kinds, strict=False)]
    with pytest.raises(UsageError, match=message):
        OneOfEach(make_settings(OneOfEach), tiny_schema(tasks=made, domains=domains))


def test_a_front_without_an_interaction_has_no_parameter_and_flattens():
    model = SharedBottom(make_settings("SharedBottom"), tiny_schema())
    assert isinstance(model.front, Front)
    assert not list(model.front.parameters())
    features = tiny_features(tiny_schema(), 4)
    assert torch.equal(model.input(features), model.embedding(features).flatten(1))
    assert torch.equal(copy.deepcopy(model)(features).logits, model(features).logits)


RATES = (0.05, 0.01)
RELATIVE = ("DCMT", "ESCM2", "ESMM", "ResFlow")
"""Models whose later heads start from the task before."""


def rated(**given):
    tasks = [
        TaskSpec(name, "binary", name, after=after, pos_weight=weight, rate=rate)
        for name, after, weight, rate in zip(("click", "buy"), ((), ("click",)), (1.0, 3.0), RATES, strict=True)
    ]
    return tiny_schema(tasks=tasks, **given)


@pytest.mark.parametrize(
    "name", [name for name in MODELS.names() if name not in RELATIVE and not MODELS.attributes(name)["fits_directly"]]
)
def test_logits_start_at_the_base_rate(name):
    schema = rated(domains=3)
    model = MODELS.load(name)(make_settings(name), schema)
    expected = [math.log(rate * weight / (1 - rate)) for rate, weight in zip(RATES, (1.0, 3.0), strict=True)]
    assert [head.bias.item() for head in model.heads()] == pytest.approx(expected)
    plain = MODELS.load(name)(make_settings(name, head_bias="random"), schema)
    assert all(abs(head.bias.item()) < 1 for head in plain.heads()), "as torch draws it"


@pytest.mark.parametrize("name", ["DCMT", "ESCM2", "ESMM"])
def test_products_start_at_the_rate_given_the_task_before(name):
    model = MODELS.load(name)(make_settings(name), rated())
    # pCVR = pCTCVR / pCTR; the task's pos_weight applies to its loss.
    odds = [0.05 / 0.95, 3.0 * 0.2 / 0.8]
    assert [head.bias.item() for head in model.heads()] == pytest.approx([math.log(value) for value in odds])


def test_a_task_of_unknown_rate_keeps_its_bias():
    torch.manual_seed(3)
    given = SharedBottom(make_settings("SharedBottom"), tiny_schema())
    torch.manual_seed(3)
    plain = SharedBottom(make_settings("SharedBottom", head_bias="random"), tiny_schema())
    assert all(torch.equal(a, b) for a, b in zip(given.state_dict().values(), plain.state_dict().values(), strict=True))
