"""Which parameters each task depends on, by a probe of one batch."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from recbole_dtn.balancer.gradnorm import GradNorm
from recbole_dtn.balancer.reach import Reach, find_reach
from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema

SCHEMA = tiny_schema()
BATCH = tiny_features(SCHEMA, 48, masked=True)
SMALL = {"embedding_size": 4}
TOWER = "towers.towers.{}."


def build(model: str, **settings: Any) -> MultiTaskRecommender:
    torch.manual_seed(0)
    built: MultiTaskRecommender = MODELS.load(model)(make_settings(model, **SMALL, **settings), SCHEMA)
    return built


def named(model: nn.Module, reach: Reach) -> tuple[set[str], list[set[str]], set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def of(parameters: Sequence[nn.Parameter]) -> set[str]:
        return {names[id(parameter)] for parameter in parameters}

    return of(reach.shared), [of(own) for own in reach.specific], of(reach.other)


def under(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("name", "settings", "own"),
    [
        ("MMoE", {}, ["gates.gates.{}.", TOWER]),
        ("OMoE", {}, [TOWER]),
        ("SharedBottom", {}, [TOWER]),
        ("STEM", {}, ["embeddings.{}.", "levels.0.experts.{}.", "levels.0.gates.{}.", TOWER]),
        ("SingleTask", {}, ["embeddings.{}.", "networks.towers.{}."]),
        ("PLE", {"levels": 1}, ["levels.0.gates.{}.", "levels.0.experts.{}.", TOWER]),
        # The first level's experts of a task are read by the shared gate, and so by all.
        (
            "PLE",
            {"levels": 2},
            ["levels.0.gates.{}.", "levels.1.gates.{}.", "levels.1.experts.{}.", TOWER],
        ),
        ("DTN", {"use_tsn": False}, ["selectors.{}.", "towers.{}."]),
        ("DTN", {"tsn_detach": True}, ["selectors.{}.", "towers.{}."]),
    ],
)
def test_own_and_shared_parameters(name: str, settings: dict[str, Any], own: list[str], fused: bool) -> None:
    model = build(name, fused=fused, **settings)
    shared, specific, other = named(model, find_reach(model, BATCH))
    expected = [under(model, *(prefix.format(task) for prefix in own)) for task in range(2)]
    assert all(expected)
    assert specific == expected
    assert shared == {name for name, _ in model.named_parameters()} - expected[0] - expected[1]
    assert not other


def test_a_task_that_reads_the_prediction_of_another_reaches_its_tower() -> None:
    model = build("DTN", tsn_detach=False)
    shared, specific, _ = named(model, find_reach(model, BATCH))
    assert under(model, "towers.0.", "selectors.0.") <= shared
    assert specific == [set(), under(model, "towers.1.", "selectors.1.")]


def test_a_product_of_probabilities_shares_the_first_tower() -> None:
    model = build("ESMM")
    shared, specific, _ = named(model, find_reach(model, BATCH))
    assert shared == under(model, "embedding.", "towers.towers.0.")
    assert specific == [set(), under(model, "towers.towers.1.")]


def test_a_task_without_an_observed_row_and_one_task() -> None:
    model = build("MMoE")
    nothing = replace(BATCH, observed=torch.zeros_like(BATCH.observed))
    assert find_reach(model, nothing).shared == find_reach(model, BATCH).shared
    schema = tiny_schema(tasks=1)
    alone = MODELS.load("MMoE")(make_settings("MMoE", **SMALL), schema)
    reach = find_reach(alone, tiny_features(schema, 8))
    assert reach.shared == ()
    assert len(reach.specific[0]) == len([*alone.parameters()])


def test_frozen_parameters_and_tables() -> None:
    model = build("MMoE")
    model.experts.biases[0].requires_grad_(False)
    reach = find_reach(model, BATCH)
    shared, _, _ = named(model, reach)
    assert shared == {"embedding.table.weight", "experts.weights.0"}
    assert reach.tables == (model.embedding.table.weight,)
    assert "experts.biases.0" not in reach.names


def test_the_probe_leaves_no_trace() -> None:
    model = build("DTN", dropout=0.5, embedding_l2=0.1, tsn_scale="normalised")
    model.train()
    model.towers[1].eval()  # a part that its owner keeps in evaluation
    model(BATCH)  # running means have started
    model.task_losses(BATCH, model(BATCH)).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = {name: (id(value), value.clone()) for name, value in model.named_buffers()}
    gradients = {name: p.grad for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    paths = [vars(module).get("fused") for module in model.modules() if isinstance(module, Fusible)]
    random = torch.get_rng_state()
    find_reach(model, BATCH)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in model.named_buffers():
        assert id(value) == buffers[name][0]
        assert torch.equal(value, buffers[name][1])
    assert all(p.grad is gradients[name] for name, p in model.named_parameters())
    assert [module.training for module in model.modules()] == modes
    assert [vars(module).get("fused") for module in model.modules() if isinstance(module, Fusible)] == paths


def test_a_model_may_declare_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("MMoE")
    table, expert = model.embedding.table.weight, model.experts.weights[0]

    def declared() -> Sequence[Collection[nn.Parameter]]:
        return [[table, expert], [table]]

    monkeypatch.setattr(model, "task_parameters", declared)
    shared, specific, other = named(model, find_reach(model, BATCH))
    assert shared == {"embedding.table.weight"}
    assert specific == [{"experts.weights.0"}, set()]
    assert under(model, "towers", "gates") <= other


def test_a_relu_that_lets_nothing_through_hides_no_parameter() -> None:
    """With ReLU before the softmax and biases of -100, every gate's input is negative in every row."""
    model = build("DTN", variant="released", interactions=["gdcn"], module_dim=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("selectors.") and name.endswith("gate.bias"):
                parameter.fill_(-100.0)
    _, own, other = named(model, find_reach(model, BATCH))
    assert other == set()
    assert under(model, "selectors.0.") <= own[0]
    assert under(model, "selectors.1.") <= own[1]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("MMoE", "experts.weights.0"),
        ("OMoE", "experts.weights.0"),
        ("SharedBottom", "bottom.layers.0.weight"),
        ("STEM", "levels.0.experts.2.weights.0"),
        ("DTN", "interactions.2.memonet.head.weight"),
        ("ESMM", "towers.towers.0.logit.weight"),
    ],
)
def test_gradnorm_takes_a_layer_that_makes_the_representation(name: str, layer: str) -> None:
    settings = {"tsn_detach": False} if name == "DTN" else {}
    model = build(name, **settings)
    balancer = GradNorm(SCHEMA.tasks)
    reach = find_reach(model, BATCH)
    (chosen,) = balancer._layer(reach)
    assert [key for key, parameter in model.named_parameters() if parameter is chosen] == [layer]
