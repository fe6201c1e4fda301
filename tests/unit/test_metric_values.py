"""Log loss, normalised entropy, calibration and regression errors against numpy and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_absolute_error, root_mean_squared_error

from recbole_dtn.metric.base import TaskMetric, value_or_none
from recbole_dtn.metric.calibration import Calibration
from recbole_dtn.metric.logloss import LogLoss
from recbole_dtn.metric.mae import MAE
from recbole_dtn.metric.ne import NormalisedEntropy
from recbole_dtn.metric.rmse import RMSE


def filled(metric: TaskMetric, weighted: bool = False) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=500) * 2, (rng.random(500) < 0.2).astype(np.float64)
    if metric.task_kind == "regression":
        labels = rng.normal(size=500) + logits
    weights = rng.random(500) * 2 if weighted else np.ones(500)
    for part in np.array_split(np.arange(500), 7):
        metric.update(
            torch.tensor(logits[part]),
            torch.tensor(labels[part]),
            sample_weight=torch.tensor(weights[part]) if weighted else None,
        )
    return metric.compute().item(), logits, labels, weights


@pytest.mark.parametrize("weighted", [False, True])
def test_log_loss(weighted: bool) -> None:
    found, logits, labels, weights = filled(LogLoss(), weighted)
    assert found == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits)), sample_weight=weights), abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_normalised_entropy(weighted: bool) -> None:
    found, logits, labels, weights = filled(NormalisedEntropy(), weighted)
    rate = np.average(labels, weights=weights)
    base = log_loss(labels, np.full(500, rate), sample_weight=weights)
    assert found == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits)), sample_weight=weights) / base, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_calibration(weighted: bool) -> None:
    found, logits, labels, weights = filled(Calibration(), weighted)
    expected = np.average(1 / (1 + np.exp(-logits)), weights=weights) / np.average(labels, weights=weights)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_errors(weighted: bool) -> None:
    found, values, labels, weights = filled(RMSE(), weighted)
    assert found == pytest.approx(root_mean_squared_error(labels, values, sample_weight=weights), abs=1e-12)
    found, values, labels, weights = filled(MAE(), weighted)
    assert found == pytest.approx(mean_absolute_error(labels, values, sample_weight=weights), abs=1e-12)


def test_log_loss_does_not_saturate() -> None:
    metric = LogLoss()
    metric.update(torch.tensor([200.0, -300.0]), torch.tensor([0.0, 1.0]))
    assert metric.compute().item() == 250.0


def test_sums_are_float64() -> None:
    metric = LogLoss()
    metric.update(torch.tensor([-9e8]), torch.tensor([1.0]))
    for _ in range(10):
        metric.update(torch.tensor([0.0]), torch.tensor([1.0]))
    assert metric.compute().item() == pytest.approx((9e8 + 10 * math.log(2)) / 11, abs=1e-6)  # float32 loses the ten


def test_what_is_undefined_is_none() -> None:
    for metric, label in ((NormalisedEntropy(), 0.0), (NormalisedEntropy(), 1.0), (Calibration(), 0.0)):
        metric.update(torch.zeros(3), torch.full((3,), label))
        assert value_or_none(metric.compute()) is None
    for metric in (LogLoss(), RMSE(), MAE(), Calibration(), NormalisedEntropy()):
        metric.update(torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool))
        assert value_or_none(metric.compute()) is None
    assert value_or_none(torch.tensor(float("inf"))) is None


def test_the_state_stays_on_the_cpu_in_float64() -> None:
    metric = LogLoss().to("meta").half()
    metric.update(torch.zeros(1), torch.ones(1))
    assert metric.loss.dtype == torch.float64
    assert metric.compute().item() == math.log(2)
