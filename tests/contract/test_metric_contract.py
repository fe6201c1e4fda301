"""Every registered metric passes the shipped checks, and the checks find the faults that they are for."""

import pytest
import torch
from torch import Tensor

from recbole_dtn.metric.base import Rows, TaskMetric
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing import check_metric

OPTIONS = [("gauc", {"weights": "equal"})]


@pytest.mark.parametrize("name", METRICS.names())
def test_the_shipped_checks_pass(name: str) -> None:
    check_metric(name)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_they_pass_with_other_options(name: str, options: dict) -> None:
    check_metric(name, **options)


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_is_reported_for_a_task_of_its_kind(name: str) -> None:
    tasks = (TaskSpec("a", "binary", "a"), TaskSpec("b", "regression", "b"))
    binary, regression = MultiTaskMetrics(tasks, grouped=True, domains=True).names
    kind = METRICS.attributes(name)["task_kind"]
    assert (name in binary, name in regression) == (kind == "binary", kind == "regression")


class Mean(TaskMetric):
    """A sound metric, of which each fault below is a small change: the mean logit."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("total")
        self.add_sum("rows")

    def add(self, rows: Rows) -> None:
        self.total += (rows.mass * rows.logits.double()).sum()
        self.rows += rows.mass.sum()

    def compute(self) -> Tensor:
        return self.total / self.rows


class Zero(Mean):
    def compute(self) -> Tensor:
        return self.total / self.rows if self.rows > 0 else self.total


class Infinite(Mean):
    def compute(self) -> Tensor:
        return super().compute() if self.rows != 1 else self.rows / 0


class Float(Mean):
    def compute(self) -> Tensor:
        return super().compute().float()


class Unweighted(Mean):
    def add(self, rows: Rows) -> None:
        super().add(Rows(rows.logits, rows.labels))


class Ordered(Mean):
    def add(self, rows: Rows) -> None:
        super().add(rows)
        if len(rows) > 1:
            self.total += rows.logits[0].double() * 1e-3


class Unmasked(Mean):
    def update(self, logits, labels, observed=None, *rest) -> None:
        super().update(logits, labels, None if observed is None or observed.any() else observed, *rest)


class Forgetful(Mean):
    def reset(self) -> None:
        rows = self.rows
        super().reset()
        self.rows = rows


class Overwriting(Mean):
    def add(self, rows: Rows) -> None:
        super().add(rows)
        rows.logits.zero_()


class Unsummed(Mean):
    def __init__(self) -> None:
        super().__init__()
        self._reductions["rows"] = torch.mean


class Moving(Mean):
    def _apply(self, fn, *args, **kwargs):
        return super(TaskMetric, self)._apply(fn, *args, **kwargs)


def test_a_sound_metric_passes() -> None:
    check_metric(Mean)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Zero, "compute without any row is NaN"),
        (Infinite, "one row: the value is inf"),
        (Float, "compute returns float64, not torch.float32"),
        (Unweighted, "sample weights 0, 1, 2 and 3"),
        (Ordered, "another order of the rows"),
        (Unmasked, "rows that are not observed count"),
        (Forgetful, "reset leaves rows behind|after reset"),
        (Overwriting, "the tensors given to update are changed"),
        (Unsummed, "two processes with 30 and 50 rows"),
        (Moving, "the state leaves the CPU"),
        (torch.nn.Module, "Module is not a TaskMetric"),
        (type("Sided", (Mean,), {"task_kind": "ranking"}), "task_kind is 'ranking'"),
        (type("Flagged", (Mean,), {"needs_group": "user"}), "needs_group is True or False"),
    ],
)
def test_the_checks_find(kind: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_metric(kind)
