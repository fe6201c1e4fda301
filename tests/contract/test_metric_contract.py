"""Every registered metric passes the shipped checks, and the checks find the faults that they are for."""

import pytest
import torch
from torch import Tensor

from recbole_dtn.metric.base import Rows, TaskMetric
from recbole_dtn.metric.parts import metric_class
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing import check_metric

OPTIONS = [
    ("gauc", {"weights": "equal"}),
    ("ece", {"bins": 4}),
    ("ndcg", {"k": 3}),
    ("hit", {"k": 1}),
    ("hit", {"k": 4}),
    ("rauc", {"weights": "equal"}),
    ("rauc", {"weights": "pairs"}),
]
BY_DOMAIN = ["auc/domain", "auc/domain_weighted", "auc/domain_worst", "ne/domain_worst", "gauc/domain", "rmse/domain"]


@pytest.mark.parametrize("name", METRICS.names())
def test_the_shipped_checks_pass(name: str) -> None:
    check_metric(name)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_they_pass_with_other_options(name: str, options: dict) -> None:
    check_metric(name, **options)


@pytest.mark.parametrize("name", BY_DOMAIN)
def test_they_pass_by_domain(name: str) -> None:
    check_metric(metric_class(name))


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_is_reported_for_a_task_of_its_kind(name: str) -> None:
    tasks = (TaskSpec("a", "binary", "a"), TaskSpec("b", "regression", "b"))
    chosen = None if METRICS.attributes(name)["by_default"] else {name: {}}
    binary, regression = MultiTaskMetrics(tasks, chosen, grouped=True, domains=True).names
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


class MeanAndSpread(Mean):
    """The mean logit with its standard error."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("square_weights", "linear", "squares", "number"):
            self.add_sum(name)

    def add(self, rows: Rows) -> None:
        super().add(rows)
        self.square_weights += rows.mass.square().sum()
        self.linear += (rows.mass.square() * rows.logits.double()).sum()
        self.squares += (rows.mass * rows.logits.double()).square().sum()
        self.number += (rows.mass > 0).sum()

    def compute(self) -> Tensor:
        mean = super().compute()
        spread = self.squares - 2 * mean * self.linear + mean.square() * self.square_weights
        factor = self.number / (self.number - 1) if self.number > 1 else self.number * torch.nan
        self.sampling_error = (spread.clamp(min=0) * factor).sqrt() / self.rows
        return mean


class Sometimes(MeanAndSpread):
    def compute(self) -> Tensor:
        mean = super().compute()
        if self.number < 2:
            self.sampling_error = None
        return mean


class Scaled(MeanAndSpread):
    def compute(self) -> Tensor:
        mean = super().compute()
        self.sampling_error = self.sampling_error * self.rows
        return mean


class Stale(MeanAndSpread):
    """An error from the state outside compute, where a process has its own rows only."""

    def standard_error(self) -> Tensor:
        super().standard_error()
        return self.sampling_error * self.number / 80


class Narrow(MeanAndSpread):
    def standard_error(self) -> Tensor:
        return super().standard_error().float()


class Boundless(MeanAndSpread):
    def compute(self) -> Tensor:
        mean = super().compute()
        self.sampling_error = self.sampling_error.nan_to_num(torch.inf)
        return mean


@pytest.mark.parametrize("kind", [Mean, MeanAndSpread])
def test_a_sound_metric_passes(kind: type) -> None:
    check_metric(kind)


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
        (Sometimes, "the standard error is None for some rows only"),
        (Scaled, "the standard error: weights times 8"),
        (Stale, "the standard error: two processes with 30"),
        (Narrow, "a standard error is float64, not torch.float32"),
        (Boundless, "a standard error of inf"),
        (torch.nn.Module, "Module is not a TaskMetric"),
        (type("Sided", (Mean,), {"task_kind": "ranking"}), "task_kind is 'ranking'"),
        (type("Flagged", (Mean,), {"needs_group": "user"}), "needs_group is True or False"),
    ],
)
def test_the_checks_find(kind: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_metric(kind)
