"""All metrics of all tasks: masks, weights, null values, selection."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from recbole_dtn.config.metrics import known_valid_metrics
from recbole_dtn.metric.select import is_better, mean_auc, select
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.schema import TaskSpec

TASKS = (
    TaskSpec("click", "binary", "c"),
    TaskSpec("buy", "binary", "b", pos_weight=3.0),
    TaskSpec("stay", "regression", "s"),
)


def batch(rows: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, 3, generator=draw)
    labels = (torch.rand(rows, 3, generator=draw) < 0.3).float()
    observed = torch.rand(rows, 3, generator=draw) < 0.8
    return logits, torch.where(observed, labels, torch.nan), observed, torch.rand(rows, generator=draw)


def filled(weighted: bool) -> MultiTaskMetrics:
    logits, labels, observed, weights = batch()
    metrics = MultiTaskMetrics(TASKS)
    for part in torch.arange(300).split(77):
        metrics.update(logits[part], labels[part], observed[part], weights[part] if weighted else None)
    return metrics


@pytest.mark.parametrize("weighted", [False, True])
def test_each_task_counts_its_observed_rows_only(weighted: bool) -> None:
    logits, labels, observed, weights = batch()
    found = filled(weighted).compute()
    assert [(task, list(values)) for task, values in found.items()] == [
        ("click", ["auc", "logloss", "ne", "calibration"]),
        ("buy", ["auc", "logloss", "ne", "calibration"]),
        ("stay", ["rmse", "mae"]),
    ]
    for position, task in enumerate(("click", "buy")):
        rows = observed[:, position]
        truth, scores = labels[rows, position].numpy(), logits[rows, position].double().numpy()
        mass = weights[rows].double().numpy() if weighted else None
        assert found[task]["auc"] == pytest.approx(roc_auc_score(truth, scores, sample_weight=mass), abs=1e-9)
        chances = 1 / (1 + np.exp(-scores))
        assert found[task]["logloss"] == pytest.approx(log_loss(truth, chances, sample_weight=mass), abs=1e-9)
    rows = observed[:, 2]
    mass = weights[rows].double() if weighted else torch.ones(int(rows.sum()), dtype=torch.float64)
    squares = (logits[rows, 2].double() - labels[rows, 2].double()).square()
    assert found["stay"]["rmse"] == pytest.approx(float(((mass * squares).sum() / mass.sum()).sqrt()), abs=1e-12)


def test_pos_weight_makes_calibration_and_ne_null() -> None:
    found = filled(False).compute()
    assert found["buy"]["ne"] is None
    assert found["buy"]["calibration"] is None
    assert found["click"]["ne"] is not None
    assert found["click"]["calibration"] is not None


def test_reset_forgets() -> None:
    metrics = filled(False)
    metrics.reset()
    metrics.update(torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), torch.ones(2, 3).bool())
    assert metrics.compute() == {
        "click": {"auc": 0.5, "logloss": pytest.approx(np.log(2)), "ne": pytest.approx(1.0), "calibration": 1.0},
        "buy": {"auc": None, "logloss": pytest.approx(np.log(2)), "ne": None, "calibration": None},
        "stay": {"rmse": pytest.approx(np.sqrt(2)), "mae": 1.0},
    }


def test_metrics_add_nothing_to_checkpoints() -> None:
    assert filled(True).state_dict() == {}


def test_select_reads_means_and_tasks() -> None:
    found = {"a_b": {"auc": 0.6, "logloss": 0.5}, "c": {"auc": None, "logloss": 0.7}, "d": {"rmse": 2.0, "mae": 1.0}}
    assert mean_auc(found) == 0.6
    assert select(found, "mean_auc") == 0.6
    assert select(found, "mean_logloss") == pytest.approx(0.6)
    assert select(found, "a_b_auc") == 0.6
    assert select(found, "c_auc") is None
    assert select(found, "d_rmse") == 2.0
    assert mean_auc({"c": {"auc": None}}) is None
    with pytest.raises(KeyError):
        select(found, "e_auc")


def test_every_known_name_can_be_selected() -> None:
    found = filled(False).compute()
    names = known_valid_metrics(TASKS)
    assert names == (
        "mean_auc", "mean_logloss", "click_auc", "click_logloss", "click_ne", "buy_auc", "buy_logloss",
        "stay_rmse", "stay_mae",
    )  # fmt: skip
    assert all(isinstance(select(found, name), float) for name in names)
    assert known_valid_metrics(TASKS[2:]) == ("stay_rmse", "stay_mae")


def test_direction() -> None:
    for name in ("mean_auc", "click_auc"):
        assert is_better(name, 0.8, 0.7)
        assert not is_better(name, 0.7, 0.7)
    for name in ("mean_logloss", "click_ne", "stay_rmse", "stay_mae"):
        assert is_better(name, 0.7, 0.8)
        assert not is_better(name, 0.8, 0.8)
    assert is_better("mean_auc", 0.1, None)
    assert not is_better("mean_auc", None, 0.1)
    assert not is_better("mean_auc", None, None)
