"""Scores of a ready batch: probabilities of binary tasks, values of regression tasks."""

import numpy as np
import pytest
import torch

from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.load import LoadedRun
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
    logits = model(features).logits.detach().numpy()
    expected = 1 / (1 + np.exp(-logits))
    if kinds[1] == "regression":
        expected[:, 1] = logits[:, 1]
    assert scores.numpy() == pytest.approx(expected, abs=1e-6)
    assert run.scores(take_rows(features, [5])).numpy() == pytest.approx(expected[5:6], abs=1e-6)
