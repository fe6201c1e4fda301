"""The setting ``fused``: the same parameters under the same names, the same logits, gates and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recbole_dtn.config.load import settings_digest
from recbole_dtn.errors import UsageError
from recbole_dtn.kernels import memory_chunks as memory
from recbole_dtn.kernels import products as product
from recbole_dtn.kernels.choice import Fusible, set_fused
from recbole_dtn.kernels.products import linear, outer, product_plus, product_times
from recbole_dtn.layers.experts import Experts, run_together
from recbole_dtn.layers.gates import SoftmaxGate, weigh_together
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no oneDNN"
)
MEMONETS = [{"name": "memonet", "codes": 40}, {"name": "memonet", "codes": 40, "shrink": "none"}]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in MODELS.names() if MODELS.attributes(name)["has_gradients"]),
    ("DTN", {"variant": "released", "interactions": ["gdcn", *MEMONETS, {"name": "gdcn", "low_rank": 2}]}),
    ("DTN", {"input_affine": True, "dropout": 0.3, "tower_hidden": []}),
    ("MMoE", {"experts": 3, "expert_hidden": [6, 5], "dropout": 0.3}),
    ("MMoE", {"expert_hidden": []}),
    ("PLE", {"levels": 3, "expert_hidden": [8, 4], "shared_experts": 1, "task_experts": 3, "dropout": 0.3}),
    ("PLE", {"levels": 2, "expert_hidden": []}),
    ("SharedBottom", {"bottom_hidden": []}),
]


def build(name: str, *, fused: bool, **settings: Any) -> MultiTaskRecommender:
    torch.manual_seed(1)
    cls: type[MultiTaskRecommender] = MODELS.load(name)
    schema = tiny_schema(domains=3 if cls.needs_domain else 0)
    return cls(make_settings(name, embedding_size=4, embedding_std=0.5, fused=fused, **settings), schema)


@pytest.fixture(params=["onednn", "torch"])
def _routine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "onednn" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(product, "prefers_onednn", lambda: request.param == "onednn")
    monkeypatch.setattr(product, "LEAST_WORK", 0)
    monkeypatch.setattr(product, "LEAST_COLUMNS", 1)
    monkeypatch.setattr(memory, "CHUNK", 200)


def run(model: MultiTaskRecommender, dtype: torch.dtype) -> dict[str, Tensor]:
    """Logits, gates, penalties and gradients in training; the same seed drops the same units."""
    torch.manual_seed(9)
    model.to(dtype).train().zero_grad()
    features = tiny_features(model.schema, 40)
    output = model(features)
    penalties = model.penalties()
    # The losses too: a model may have parts that they alone read.
    losses = model.task_losses(features, output).sum()
    (output.logits.square().sum() + losses + sum(penalties.values())).backward()
    found = {"logits": output.logits, **{f"gate {name}": gate for name, gate in output.gates.items()}, **penalties}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[f"gradient of {name}"] = parameter.grad
    return {name: value.detach().double() for name, value in found.items()}


@pytest.mark.usefixtures("_routine")
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_fused_is_plain(name: str, settings: dict[str, Any]) -> None:
    fused, plain = build(name, fused=True, **settings), build(name, fused=False, **settings)
    assert not any(part.fused for part in plain.modules() if isinstance(part, Fusible))
    for key, value in plain.state_dict().items():
        assert torch.equal(value, fused.state_dict()[key]), key  # the same draws, too
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 5e-6)):
        expected = run(plain, dtype)
        for what, value in run(fused, dtype).items():
            penalised = what.endswith("_l2") or what.endswith(("codebook.weight", "table.weight"))
            scale = expected[what].abs().max().clamp_min(1.0)
            allowed = max(tolerance, 1e-6) if penalised else tolerance
            assert (value - expected[what]).abs().max() <= allowed * scale, f"{what} in {dtype}"


@pytest.mark.parametrize("name", MODELS.names())
def test_a_trained_state_goes_from_one_way_to_the_other(name: str) -> None:
    fused, plain = build(name, fused=True), build(name, fused=False)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    plain.load_state_dict(fused.state_dict())
    features = tiny_features(plain.schema, 40)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(features).logits, fused.eval()(features).logits)


def test_the_digest_does_not_tell_the_two_ways_apart() -> None:
    one, other = (make_settings("DTN", fused=fused) for fused in (True, False))
    assert settings_digest(one) == settings_digest(other)


# ---- the products ---------------------------------------------------------------------------------------------------


@needs_onednn
@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid"])
@pytest.mark.parametrize("bias", [True, False])
def test_onednn_products_and_their_gradients(monkeypatch: pytest.MonkeyPatch, activation: Any, bias: bool) -> None:
    monkeypatch.setattr(product, "prefers_onednn", lambda: True)
    torch.manual_seed(0)
    x, weight = torch.randn(70, 150, requires_grad=True), torch.randn(100, 150, requires_grad=True)
    shift = torch.randn(100, requires_grad=True) if bias else None
    given = [leaf for leaf in (x, weight, shift) if leaf is not None]
    gradient = torch.randn(70, 100)
    output = linear(x, weight, shift, activation)
    assert "_Linear" in type(output.grad_fn).__name__
    found = torch.autograd.grad(output, given, gradient)
    exact = [leaf.detach().double().requires_grad_() for leaf in given]
    expected = exact[0] @ exact[1].T + (exact[2] if bias else 0.0)
    expected = {"none": lambda y: y, "relu": torch.relu, "sigmoid": torch.sigmoid}[activation](expected)
    truth = torch.autograd.grad(expected, exact, gradient.double())
    for one, other in zip((output, *found), (expected, *truth), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)


@needs_onednn
def test_products_of_slices_with_gaps_and_of_transposed_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "prefers_onednn", lambda: True)
    torch.manual_seed(0)
    x, wide = torch.randn(151, 80).t(), torch.randn(120, 400)
    weight, other = wide[:, 50:201], torch.randn(80, 240)[:, ::2]
    exact = x.double() @ weight.double().t()
    for found, expected in (
        (product.product(x, weight), exact),
        (product_times(x, weight, None, other), exact * other),
        (product_plus(x, weight, other), exact + other),
        (outer(other, x), other.double().t() @ x.double()),
        (outer(x, other), x.double().t() @ other.double()),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@needs_onednn
def test_second_order_gradients_are_refused_and_the_plain_path_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "prefers_onednn", lambda: True)
    layer = Linear(200, 100)
    x = torch.randn(80, 200, requires_grad=True)
    with pytest.raises(UsageError, match=r"_Linear: create_graph=True .* set fused: false"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (first,) = torch.autograd.grad(set_fused(layer, False)(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), layer.weight)
    expected = 2 * 80 * layer.weight.detach().sum(0).expand(100, -1)
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-3)


def test_small_or_narrow_products_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "prefers_onednn", lambda: True)
    for rows, inputs, outputs, taken in ((4096, 64, 1, False), (8, 100, 100, False), (100, 100, 100, True)):
        output = linear(torch.zeros(rows, inputs), torch.zeros(outputs, inputs, requires_grad=True))
        assert ("_Linear" in type(output.grad_fn).__name__) == taken


def test_linear_keeps_leading_axes_and_frozen_parameters_have_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "prefers_onednn", lambda: hasattr(torch.ops.mkldnn, "_linear_pointwise"))
    layer = Linear(100, 100)
    layer.weight.requires_grad_(False)
    x = torch.randn(10, 20, 100)
    output = layer(x)
    output.sum().backward()
    assert output.shape == (10, 20, 100)
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [200.0] * 100
    torch.testing.assert_close(output, nn.functional.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-5)


def test_groups_together_are_groups_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 5)
    groups = [Experts(5, [4, 3], count=2), Experts(5, [6, 3], count=1)]
    gates = [SoftmaxGate(5, 2), SoftmaxGate(5, 4)]
    for found, group in zip(run_together(groups, x), groups, strict=True):
        torch.testing.assert_close(found, set_fused(group, False)(x))
    for found, gate in zip(weigh_together(gates, x), gates, strict=True):
        torch.testing.assert_close(found, set_fused(gate, False)(x))
    assert [found.shape for found in run_together([Experts(5, [], count=3), groups[1]], x)] == [(9, 3, 5), (9, 1, 3)]


def test_dropout_of_an_mlp_drops_the_same_units() -> None:
    mlp = MLP(5, [8, 6], dropout=0.5)
    outputs = []
    for fused in (True, False):
        torch.manual_seed(4)
        outputs.append(set_fused(mlp, fused)(torch.ones(7, 5)))
    torch.testing.assert_close(*outputs)
