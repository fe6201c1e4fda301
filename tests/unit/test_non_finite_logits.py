"""A logit that is not a number is seen, and refused, wherever rows are scored."""

import math
from typing import Any

import pytest
import torch

from recbole_dtn.kernels import products as product
from recbole_dtn.kernels.products import linear
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema

ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(params=["onednn", "torch"], autouse=True)
def _routine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "onednn" and not ONEDNN:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(product, "prefers_onednn", lambda: request.param == "onednn")


def build(name: str, **settings: Any) -> MultiTaskRecommender:
    torch.manual_seed(0)
    model: MultiTaskRecommender = MODELS.load(name)(make_settings(name, **settings), tiny_schema()).eval()
    return model


@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias"])
def test_products_keep_what_is_not_finite(activation: Any, bad: float, where: str) -> None:
    given = {"x": torch.randn(300, 100), "weight": torch.randn(64, 100), "bias": torch.randn(64)}
    given[where].view(-1)[5] = bad
    found = linear(*given.values(), activation)
    expected = given["x"].double() @ given["weight"].double().T + given["bias"].double()
    expected = {"none": lambda y: y, "relu": torch.relu, "sigmoid": torch.sigmoid}[activation](expected)
    assert torch.equal(found.isnan(), expected.isnan())
    assert bool(expected.isnan().any()) == (math.isnan(bad))


@pytest.mark.parametrize("rows", [1, 99, 300])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", MODELS.names())
def test_a_table_of_nan_gives_logits_of_nan(name: str, fused: bool, rows: int) -> None:
    model = build(name, fused=fused)
    with torch.inference_mode():
        for table in model.tables():
            table.weight.fill_(math.nan)
        logits = model(tiny_features(model.schema, rows)).logits
    assert logits.isnan().all()
