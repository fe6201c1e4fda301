"""Scores of a ready batch: probabilities of binary tasks, values of regression tasks."""

import numpy as np
import pytest
import torch

from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.load import LoadedRun, probabilities
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema


@pytest.mark.parametrize("kinds", [("binary", "binary"), ("binary", "regression")])
def test_scores_are_those_of_the_logits_row_by_row(kinds: tuple[str, str]) -> None:
    torch.manual_seed(0)
    schema = tiny_schema(tasks=[TaskSpec(name, kind, name) for name, kind in zip("ab", kinds, strict=True)])
    settings = make_settings("MMoE")
    model = MODELS.load("MMoE")(settings, schema)
    run = LoadedRun(model, settings, Vocabularies({}), None)
    features = tiny_features(schema, 64)
    scores = run.scores(features)
    assert not scores.requires_grad
    assert scores.dtype == torch.float64
    logits = model(features).logits.detach().numpy()
    expected = 1 / (1 + np.exp(-logits))
    if kinds[1] == "regression":
        expected[:, 1] = logits[:, 1]
    assert scores.numpy() == pytest.approx(expected, abs=1e-6)
    assert run.scores(take_rows(features, [5])).numpy() == pytest.approx(expected[5:6], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_probability_is_never_zero_or_one(dtype: torch.dtype) -> None:
    tasks = (TaskSpec("a", "binary", "a"), TaskSpec("b", "regression", "b"))
    values = torch.tensor([-1000.0, -120.0, -40.0, -20.0, 20.0, 40.0, 1000.0], dtype=dtype)
    found = probabilities(torch.stack([values, values], 1), tasks)
    assert found.dtype == torch.float64
    chances = found[:, 0].tolist()
    # Each far from saturating is exact: exp(v) / (1 + exp(v)).
    assert chances[1:5] == pytest.approx(
        [np.exp(-120.0), np.exp(-40.0), 1 / (1 + np.exp(20)), 1 / (1 + np.exp(-20))], rel=1e-12
    )
    assert 0 < chances[0] < chances[1]
    assert chances[4] < chances[5] == chances[6] == np.nextafter(1.0, 0.0)
    assert torch.equal(found[:, 1], values.double())
    assert np.isfinite(np.log(chances)).all()
    assert np.isfinite(np.log1p(-np.array(chances))).all()
