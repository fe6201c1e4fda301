"""The contract of a metric as a check, for the tests of this project and of plug-ins."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.metric.base import TaskMetric
from recbole_dtn.registry import METRICS

__all__ = ["check_metric"]

ROWS, GROUPS = 80, 6
TOLERANCE = 1e-12
FLAGS = ("needs_calibrated", "needs_group", "needs_domain", "by_default")


def check_metric(cls_or_name: type[TaskMetric] | str, **options: Any) -> None:
    """Check that a metric keeps its contract.

    * ``compute`` returns a float64 scalar: NaN without rows, finite or NaN if only one class or row is observed.
    * Unobserved rows do not count, even if they hold NaN. A row of weight 2 counts as two, one of weight 0 as none.
    * The value does not depend on the batch size, the order of the batches or the order of tied rows.
    * Two processes give the value of one process, also if one of them has no rows, and in a second call of ``compute``.
    * The state stays on the CPU and keeps its type when the module is moved.
    * ``compute`` between batches does not change the result, and ``reset`` removes all state.
    * Logits may be float64 or bfloat16. The given tensors are not changed.
    * A standard error, where there is one, is a float64 scalar of at least 0, or NaN where undefined; it does not
      depend on batches, processes, unobserved rows, rows of weight 0 or the scale of the weights.

    Args:
        cls_or_name: the class, or the name under which it is registered.
        options: the metric's own options, where the defaults are not to be checked.

    Raises:
        AssertionError: with a sentence that says what is wrong.

    >>> check_metric("logloss")
    """
    kind = METRICS.load(cls_or_name) if isinstance(cls_or_name, str) else cls_or_name
    assert isinstance(kind, type), f"expected a class, found {kind!r}"
    assert issubclass(kind, TaskMetric), f"{kind.__name__} is not a TaskMetric"
    assert kind.task_kind in ("binary", "regression"), f"task_kind is {kind.task_kind!r}"
    assert kind.higher_is_better in (True, False, None), "higher_is_better is True, False or None"
    for flag in FLAGS:
        assert isinstance(getattr(kind, flag), bool), f"{flag} is True or False, a class attribute"
    case = _Case(lambda: kind(**options), _draw(kind.task_kind))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*``compute`` method .* before the ``update`` method")
        for check in CHECKS:
            check(case)


@dataclass(frozen=True)
class _Batch:
    """(N,) each; ``weights`` only where a check gives some."""

    logits: Tensor
    labels: Tensor
    group: Tensor | None
    domain: Tensor | None
    weights: Tensor | None = None

    def take(self, rows: Tensor) -> _Batch:
        parts = (None if part is None else part[rows] for part in (self.group, self.domain, self.weights))
        return _Batch(self.logits[rows], self.labels[rows], *parts)


@dataclass(frozen=True)
class _Case:
    new: Callable[[], TaskMetric]
    rows: _Batch

    def update(self, metric: TaskMetric, batch: _Batch, observed: Tensor | None = None) -> None:
        metric.update(batch.logits, batch.labels, observed, batch.weights, batch.group, batch.domain)

    def value(self, *batches: _Batch) -> float:
        return self.results(*batches)[0]

    def results(self, *batches: _Batch) -> tuple[float, float | None]:
        """The value and its standard error."""
        metric = self.new()
        for batch in batches:
            self.update(metric, batch)
        return _results(metric)


def _results(metric: TaskMetric) -> tuple[float, float | None]:
    value, error = metric.compute(), metric.standard_error()
    return float(value), None if error is None else float(error)


def _draw(kind: str) -> _Batch:
    """Rows with ties among the scores, in groups of which each has both classes."""
    draw = torch.Generator().manual_seed(2020)
    group = torch.arange(ROWS) % GROUPS
    labels = (torch.rand(ROWS, generator=draw) < 0.4).float()
    # Rows i and i + GROUPS are of one group: each has a negative and a positive.
    labels[:GROUPS], labels[GROUPS : 2 * GROUPS] = 0.0, 1.0
    # Quarters: many ties, and numbers that bfloat16 holds exactly.
    logits = (torch.randn(ROWS, generator=draw) * 4).round() / 4
    if kind == "regression":
        labels = torch.randn(ROWS, generator=draw)
    return _Batch(logits, labels, group, torch.randint(2, (ROWS,), generator=draw))


def _same(found: float, expected: float, what: str) -> None:
    equal = math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    assert equal or (math.isnan(found) and math.isnan(expected)), f"{what}: {found} instead of {expected}"


# ---- the checks -----------------------------------------------------------------------------------------------------


def _check_value(case: _Case) -> None:
    metric, batch = case.new(), case.rows
    before = replace(batch, logits=batch.logits.clone(), labels=batch.labels.clone())
    case.update(metric, batch)
    value = metric.compute()
    assert value.shape == (), f"compute returns a scalar, not a tensor of shape {tuple(value.shape)}"
    assert value.dtype is torch.float64, f"compute returns float64, not {value.dtype}"
    assert math.isfinite(value), f"80 ordinary rows give {float(value)}"
    unchanged = torch.equal(batch.logits, before.logits) and torch.equal(batch.labels, before.labels)
    assert unchanged, "the tensors given to update are changed"
    for part in ("group", "domain"):
        if not getattr(metric, f"needs_{part}"):
            missing: Any = {part: None}
            without = case.value(replace(batch, **missing))
            _same(without, float(value), f"without rows.{part}, which a metric reads only with needs_{part} = True")
    for dtype in (torch.float64, torch.bfloat16):  # the scores are quarters, which both types hold
        _same(case.value(replace(batch, logits=batch.logits.to(dtype))), float(value), f"logits of {dtype}")


def _check_nothing(case: _Case) -> None:
    none, metric = torch.zeros(ROWS, dtype=torch.bool), case.new()
    assert math.isnan(case.value()), "compute without any row is NaN (undefined), never 0"
    case.update(metric, case.rows, none)
    assert math.isnan(metric.compute()), "compute is NaN (undefined) where no row is observed, never 0"


def _check_one_class(case: _Case) -> None:
    every = torch.arange(ROWS)
    parts = {"one row": every[:1]}
    if case.new().task_kind == "binary":
        parts |= {f"labels of {label:g} only": every[case.rows.labels == label] for label in (0.0, 1.0)}
    for what, rows in parts.items():
        value = case.value(case.rows.take(rows))
        assert not math.isinf(value), f"{what}: the value is {value}; where it is undefined it is NaN"


def _check_masking(case: _Case) -> None:
    # NaN in the label and in the logit: multiplied by 0 either would stay NaN.
    observed, metric = torch.arange(ROWS) % 3 > 0, case.new()
    holes = replace(
        case.rows,
        labels=torch.where(observed, case.rows.labels, math.nan),
        logits=torch.where(observed, case.rows.logits, math.nan),
    )
    case.update(metric, holes, observed)
    _same(float(metric.compute()), case.value(case.rows.take(observed)), "rows that are not observed count")


def _check_batches(case: _Case) -> None:
    whole = case.value(case.rows)
    draw = torch.Generator().manual_seed(1)
    for _ in range(3):
        order = torch.randperm(ROWS, generator=draw)
        _same(case.value(case.rows.take(order)), whole, "another order of the rows, some of them tied")
        parts = [case.rows.take(part) for part in torch.split(order, 17)]
        _same(case.value(*parts[:2], case.rows.take(order[:0]), *parts[2:]), whole, "several batches, one without rows")


def _check_weights(case: _Case) -> None:
    # 0 included: a row of weight 0 must not count, not even as a class.
    counts = torch.arange(ROWS) % 4
    found = case.value(replace(case.rows, weights=counts.float()))
    repeated = case.value(case.rows.take(torch.arange(ROWS).repeat_interleave(counts)))
    _same(found, repeated, "sample weights 0, 1, 2 and 3, against each row that many times")
    ones = case.value(replace(case.rows, weights=torch.ones(ROWS)))
    _same(ones, case.value(case.rows), "sample weights of 1, against none")


def _check_processes(case: _Case) -> None:
    weighted = replace(case.rows, weights=torch.rand(ROWS, generator=torch.Generator().manual_seed(3)))
    for batch in (case.rows, weighted, replace(case.rows, logits=case.rows.logits.double())):
        whole, error = case.results(batch)
        for cut in (30, ROWS):
            parts = [batch.take(torch.arange(ROWS)[:cut]), batch.take(torch.arange(ROWS)[cut:])]
            for found, found_error in _in_two_processes(case, parts):
                what = f"two processes with {cut} and {ROWS - cut} rows, against one"
                _same(found, whole, what)
                if error is not None:
                    _same_error(found_error, error, what)


def _check_state(case: _Case) -> None:
    whole, metric = case.value(case.rows), case.new()
    # Meta has no values: a state that moved there could not be computed from.
    metric.to("meta").half()
    for value in metric.metric_state.values():
        if isinstance(value, Tensor):
            assert value.device.type == "cpu", "the state leaves the CPU when the module is moved"
            assert value.dtype is not torch.float16, "the state changes its type when the module does"
    for rows in torch.split(torch.arange(ROWS), 50):
        case.update(metric, case.rows.take(rows))
        metric.compute()
    _same(float(metric.compute()), whole, "compute between two batches")
    metric.reset()
    assert math.isnan(metric.compute()), "reset leaves rows behind"
    case.update(metric, case.rows)
    _same(float(metric.compute()), whole, "the same rows after reset")


def _check_error(case: _Case) -> None:
    metric = case.new()
    case.update(metric, case.rows)
    error = metric.standard_error()
    if error is None:
        return
    assert error.shape == (), f"a standard error is a scalar, not a tensor of shape {tuple(error.shape)}"
    assert error.dtype is torch.float64, f"a standard error is float64, not {error.dtype}"
    assert math.isfinite(error), f"80 ordinary rows have a standard error of {float(error)}"
    assert error > 0, f"80 ordinary rows have a standard error of {float(error)}"
    every = torch.arange(ROWS)
    for rows in (every[:0], every[:1], every[case.rows.labels == case.rows.labels[0]]):
        found = case.results(case.rows.take(rows))[1]
        assert found is not None, "the standard error is None for some rows only; where it is undefined it is NaN"
        assert math.isnan(found) or 0 <= found < math.inf, f"a standard error of {found}; undefined it is NaN"
    metric.reset()
    _same_error(_results(metric)[1], math.nan, "after reset")

    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    parts = [case.rows.take(part) for part in torch.split(order, 17)]
    _same_error(case.results(*parts)[1], float(error), "several batches in another order")
    observed, metric = every % 3 > 0, case.new()
    case.update(metric, case.rows, observed)
    _same_error(_results(metric)[1], case.results(case.rows.take(observed))[1], "rows that are not observed count")

    weighted = replace(case.rows, weights=(every % 4).float())
    scaled, heavy = replace(case.rows, weights=(every % 4).float() * 8), weighted.take(every % 4 > 0)
    for what, batch in (("weights times 8", scaled), ("rows of weight 0", heavy)):
        _same_error(case.results(batch)[1], case.results(weighted)[1], what)
    ones = case.results(replace(case.rows, weights=torch.ones(ROWS)))[1]
    _same_error(ones, float(error), "sample weights of 1, against none")


def _same_error(found: float | None, expected: float | None, what: str) -> None:
    assert found is not None, f"the standard error is None: {what}"
    assert expected is not None, f"the standard error is None: {what}"
    _same(found, expected, f"the standard error: {what}")


CHECKS = (
    _check_value,
    _check_error,
    _check_nothing,
    _check_one_class,
    _check_masking,
    _check_batches,
    _check_weights,
    _check_processes,
    _check_state,
)


# ---- two processes, played by two threads ---------------------------------------------------------------------------


class _Meeting:
    """Replaces ``all_gather`` for two threads: each thread gets both tensors, in rank order."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=30)
        self.given: list[Tensor] = [torch.empty(0), torch.empty(0)]

    def gather_of(self, rank: int) -> Callable[..., list[Tensor]]:
        def gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
            self.given[rank] = tensor
            self.barrier.wait()
            both = list(self.given)
            # A second meeting, so that neither thread gives its next tensor before the other has read this one.
            self.barrier.wait()
            assert both[0].dtype is both[1].dtype, f"processes gather {both[0].dtype} and {both[1].dtype}"
            return [part.clone() for part in both]

        return gather


def _in_two_processes(case: _Case, parts: list[_Batch]) -> list[tuple[float, float | None]]:
    """The value and error that each of two processes computes, and computes again."""
    meeting, found, errors = _Meeting(), [], []

    def run(rank: int) -> None:
        try:
            metric = case.new()
            # torchmetrics asks the second whether to gather, and gathers by the first.
            metric.dist_sync_fn, metric.distributed_available_fn = meeting.gather_of(rank), lambda: True
            if len(parts[rank].logits):
                case.update(metric, parts[rank])
            first = _results(metric)
            metric._computed = None  # so that it gathers again: rows gathered once must not count twice
            found.extend([first, _results(metric)])
        except Exception as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), None)
    if told is not None or errors:
        raise AssertionError(f"two processes: {told or 'one gathers more often than the other'}") from told
    return found
