"""Settings of a task's loss: what is refused, scales of targets, and metrics that mean nothing then."""

import numpy as np
import pytest
import torch

from recbole_dtn.config.load import resolve
from recbole_dtn.config.tasks import check_fields_and_tasks
from recbole_dtn.data.targets import target_statistics
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.model.base import ModelOutput
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_schema

BASE = {"model": "MMoE", "dataset": "ml-100k"}
LIKE = {"name": "like", "label": "rating", "condition": "rating >= 4"}


def test_statistics_of_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_dtn.data.targets.BLOCK", 7)
    names = [{"name": n, "label": "rating", "kind": "regression"} for n in "abc"]
    tasks = [*names[:2], {**names[2], "standardise": False}, LIKE]
    settings = resolve({**BASE, "tasks": tasks}).settings
    random = np.random.default_rng(1)
    labels = (random.normal(size=(40, 4)) * 5 + 1e6).astype(np.float32)
    observed = random.random((40, 4)) < 0.5
    observed[:, 1] = [True] + [False] * 39
    found = target_statistics(settings.tasks, labels, observed)
    seen = labels[observed[:, 0], 0].astype(np.float64)
    assert set(found) == {"a", "b"}
    assert found["a"] == pytest.approx((seen.mean(), seen.std()), rel=1e-10)
    assert found["b"] == (float(labels[0, 1]), 1.0)
    assert target_statistics(settings.tasks, labels, np.zeros_like(observed)) == {}

    negative = resolve({**BASE, "tasks": [LIKE, {**names[0], "loss": "wlr"}]}).settings.tasks
    with pytest.raises(DataError, match="'a': loss 'wlr' expects labels of at least 0; found -2 in column 'rating'"):
        target_statistics(negative, np.array([[1.0, 0.0], [0.0, -2.0]]), np.ones((2, 2), bool))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "regression", "negative_rate": 0.5}, "'t': a regression has no negative rows; leave negative_rate"),
        ({"standardise": False}, "'t': standardise is for the labels of a regression"),
        ({"negative_rate": 0.0}, "negative_rate"),
        ({"pairwise": -1}, "pairwise"),
        ({"loss": {"name": "focal", "alpha": 1.5}}, "alpha"),
        ({"loss": "huber"}, "loss 'huber' is for regression tasks"),
    ],
)
def test_wrong_settings_are_refused(task: dict, message: str) -> None:
    others = [LIKE, {"name": "stars", "label": "rating", "kind": "regression"}]
    with pytest.raises(UsageError, match=message):
        check_fields_and_tasks(resolve({**BASE, "tasks": [{"name": "t", "label": "rating", **task}, *others]}).settings)


def test_metrics_of_probabilities_are_null_for_a_focal_task() -> None:
    task = TaskSpec("a", "binary", "a", loss={"name": "focal", "gamma": 2.0, "alpha": None})
    metrics = MultiTaskMetrics([task], {"ne": {}, "rne": {}, "auc": {}, "ece": {}})
    metrics.update(torch.tensor([[1.0], [0.0], [-1.0]]), torch.tensor([[1.0], [0.0], [1.0]]), torch.ones(3, 1).bool())
    found = metrics.compute()["a"]
    assert found["ne"] is None
    assert found["ece"] is None
    assert found["rne"] is not None
    assert found["auc"] == 0.5


def test_a_model_with_a_fit_of_its_own_reads_labels_as_they_are() -> None:
    stay = TaskSpec("stay", "regression", "s", mean=5.0, std=2.0, loss={"name": "wlr", "negatives": "all"})
    click = TaskSpec("click", "binary", "c", negative_rate=0.5)
    logits = torch.tensor([[3.0, 0.0]])
    kind = MODELS.load("Logistic")
    direct, other = (
        model(make_settings(name), tiny_schema(tasks=[stay, click])).served(ModelOutput(logits)).logits[0].tolist()
        for name, model in (("Logistic", kind), ("MMoE", MODELS.load("MMoE")))
    )
    assert direct == pytest.approx([3.0, np.log(0.5)], rel=1e-6)
    assert other == pytest.approx([5 * np.exp(3), np.log(0.5)], rel=1e-6)
    with pytest.raises(UsageError, match="task 'click': pairwise: Logistic has no batches to rank"):
        kind(make_settings("Logistic"), tiny_schema(tasks=[TaskSpec("click", "binary", "c", pairwise=1.0)]))
