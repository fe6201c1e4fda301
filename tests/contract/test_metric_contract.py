"""Every registered metric and balancer keeps its contract."""

import math

import pytest
import torch

from recbole_dtn.metric.base import TaskMetric
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskSpec


def rows(metric: TaskMetric, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    labels = torch.randn(count, generator=draw)
    return torch.randn(count, generator=draw), (labels > 0).float() if metric.task_kind == "binary" else labels


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest) -> TaskMetric:
    found = METRICS.load(request.param)()
    assert isinstance(found, TaskMetric)
    return found


def test_it_is_a_float64_scalar(metric: TaskMetric) -> None:
    metric.update(*rows(metric, 40))
    value = metric.compute()
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert math.isfinite(value)


def test_nothing_observed_is_nan(metric: TaskMetric) -> None:
    logits, labels = rows(metric, 4)
    metric.update(logits, labels, torch.zeros(4, dtype=torch.bool))
    assert math.isnan(metric.compute())


def test_masked_rows_do_not_count_even_as_nan(metric: TaskMetric) -> None:
    logits, labels = rows(metric, 40)
    observed = torch.arange(40) % 3 > 0
    metric.update(logits, torch.where(observed, labels, torch.nan), observed)
    masked = metric.compute().item()
    metric.reset()
    metric.update(logits[observed], labels[observed])
    assert masked == metric.compute().item()


def test_batches_and_order_do_not_matter(metric: TaskMetric) -> None:
    logits, labels = rows(metric, 60)
    metric.update(logits, labels)
    whole = metric.compute().item()
    metric.reset()
    for part in torch.randperm(60).split(17):
        metric.update(logits[part], labels[part])
    assert metric.compute().item() == pytest.approx(whole, abs=1e-12)


def test_an_integer_weight_is_that_many_rows(metric: TaskMetric) -> None:
    logits, labels = rows(metric, 30)
    counts = torch.arange(30) % 4
    metric.update(logits, labels, sample_weight=counts.float())
    weighted = metric.compute().item()
    metric.reset()
    metric.update(logits.repeat_interleave(counts), labels.repeat_interleave(counts))
    assert weighted == pytest.approx(metric.compute().item(), abs=1e-12)


def test_every_metric_is_reported_for_a_task_of_its_kind(metric: TaskMetric) -> None:
    tasks = (TaskSpec("a", "binary", "a"), TaskSpec("b", "regression", "b"))
    reported = MultiTaskMetrics(tasks).names[0 if metric.task_kind == "binary" else 1]
    assert type(metric) in {METRICS.load(name) for name in reported}
