"""A logit that is not a number is seen, and refused, wherever rows are scored."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError
from recbole_dtn.kernels import products as product
from recbole_dtn.kernels.products import linear
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.load import LoadedRun
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.training.module import TrainingModule

ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(params=["onednn", "torch"], autouse=True)
def _routine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "onednn" and not ONEDNN:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(product, "prefers_onednn", lambda: request.param == "onednn")


def build(name: str, **settings: Any) -> MultiTaskRecommender:
    torch.manual_seed(0)
    model: MultiTaskRecommender = MODELS.load(name)(make_settings(name, **settings), tiny_schema(domains=3)).eval()
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
@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.attributes(name)["has_gradients"]])
def test_a_table_of_nan_gives_logits_of_nan(name: str, fused: bool, rows: int) -> None:
    model = build(name, fused=fused)
    with torch.inference_mode():
        for table in model.tables():
            table.weight.fill_(math.nan)
        logits = model(tiny_features(model.schema, rows)).logits
    assert logits.isnan().all()


# ---- where rows are scored ------------------------------------------------------------------------------------------


def broken(name: str = "MMoE") -> MultiTaskRecommender:
    """A model of which one token's embedding is NaN: only the rows with that token have no score."""
    model = build(name, group_field=None)
    spec = model.schema.fields[0]
    with torch.no_grad():
        for table in model.tables():
            table.weight[spec.offset + 3] = math.nan
    return model


def test_evaluation_names_task_and_row() -> None:
    model = broken()
    module = TrainingModule(model, model.settings)
    batch = tiny_features(model.schema, 300)
    first = int((batch.ids[:, 0] == model.schema.fields[0].offset + 3).nonzero()[0])
    batch = replace(batch, row=torch.arange(300) + 5000)
    for step in (module.validation_step, module.test_step):
        with torch.inference_mode(), pytest.raises(DataError, match=rf"task 'click' is nan in row {5000 + first} "):
            step(batch, 0)


def test_scoring_a_batch_names_task_and_row() -> None:
    model = broken()
    run = LoadedRun(model, model.settings, Vocabularies({}), None)
    batch = replace(tiny_features(model.schema, 300), row=None)
    first = int((batch.ids[:, 0] == model.schema.fields[0].offset + 3).nonzero()[0])
    with pytest.raises(DataError, match=rf"the logit of task 'click' is nan in row {first} \(and \d+ more"):
        run.scores(batch)
    sound = take_rows(batch, [row for row in range(300) if batch.ids[row, 0] != model.schema.fields[0].offset + 3])
    assert run.scores(sound).isfinite().all()


def test_one_infinite_logit_of_an_unobserved_row_is_refused_too() -> None:
    metrics = MultiTaskMetrics((TaskSpec("a", "binary", "a"), TaskSpec("b", "regression", "b")))
    logits = torch.tensor([[0.0, 0.0], [1.0, -math.inf]])
    with pytest.raises(DataError, match=r"the logit of task 'b' is -inf in row 1: the model's weights are not finite"):
        metrics.update(logits, torch.zeros(2, 2), torch.tensor([[True, True], [True, False]]))
