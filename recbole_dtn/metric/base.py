"""Base class of a metric of one task.

It masks rows, keeps its state on the CPU, and gathers processes so that every row counts once.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from recbole_dtn.errors import UsageError
from recbole_dtn.schema import TaskKind

__all__ = ["Rows", "TaskMetric", "gather_on_cpu", "undefined", "value_or_none"]


def value_or_none(value: Tensor) -> float | None:
    """The number in ``value``, or None where it is undefined (NaN) or infinite, which JSON cannot carry.

    >>> value_or_none(torch.tensor(0.5)), value_or_none(torch.tensor(float("nan")))
    (0.5, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None


def undefined() -> Tensor:
    """NaN, as :meth:`TaskMetric.compute` returns it where the metric is undefined.

    >>> undefined()
    tensor(nan, dtype=torch.float64)
    """
    return torch.full((), math.nan, dtype=torch.float64)


def gather_on_cpu(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """``tensor`` of every process, in rank order; first dimensions may differ. Back on the CPU whatever the backend."""
    if torch.distributed.get_backend(group) == "nccl":
        tensor = tensor.cuda()
    return [part.cpu() for part in gather_all_tensors(tensor, group)]


def _wide(values: Tensor) -> Tensor:
    """On the CPU; float64 stays, and everything else becomes float32."""
    values = values.detach().cpu()
    return values if values.dtype is torch.float64 else values.float()


@dataclass(frozen=True)
class Rows:
    """Rows in which one task is observed, on the CPU.

    Attributes:
        logits: (N,), before the sigmoid (binary) or the predicted value (regression); float32, or float64 where the
            model computes in float64.
        labels: (N,), 0 or 1 (binary), or the true value.
        weights: (N,) sample weights, or None.
        group: (N,) int64, the group of each row (the setting ``group_field``), or None.
        domain: (N,) int64, the domain of each row (the setting ``domain_field``), or None.
    """

    logits: Tensor
    labels: Tensor
    weights: Tensor | None = None
    group: Tensor | None = None
    domain: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def mass(self) -> Tensor:
        """(N,) float64: what each row counts, its sample weight or 1."""
        return torch.ones(len(self), dtype=torch.float64) if self.weights is None else self.weights.double()

    @property
    def probabilities(self) -> Tensor:
        """(N,) float64: the sigmoid of the logits."""
        return torch.sigmoid(self.logits.double())

    def take(self, rows: Tensor) -> Rows:
        """The rows where ``rows``, (N,) bool, is true."""
        parts = (self.logits, self.labels, self.weights, self.group, self.domain)
        return Rows(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]


class TaskMetric(Metric):
    """Base of a metric of one task: ``update`` drops what is not observed, a subclass writes ``add`` and ``compute``.

    The state stays on the CPU when a trainer moves the module: float64 sums do not exist on every accelerator, and
    the logits of a whole split are better kept in host memory. ``compute`` returns a float64 scalar, NaN if undefined.
    A metric whose ``compute`` also sets ``sampling_error`` reports that as its standard error.

    Attributes:
        task_kind: kind of task that the metric is for.
        higher_is_better: True or False where the metric can select an epoch; None where neither end is best.
        needs_calibrated: whether the metric reads a prediction as a probability of the data, so that it means nothing
            for a task trained with ``pos_weight``.
        needs_group: whether ``Rows.group`` must be there. needs_domain: whether ``Rows.domain`` must be.
        by_default: whether it is computed where the setting ``metrics`` is null; if not, it has to be named there.
        sampling_error: standard error of the value that ``compute`` returned last: a float64 scalar, NaN where
            undefined; None if the metric reports none.

    >>> class Accuracy(TaskMetric):
    ...     higher_is_better = True
    ...
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.add_sum("right")
    ...         self.add_sum("rows")
    ...
    ...     def add(self, rows: Rows) -> None:
    ...         self.right += (rows.mass * ((rows.logits > 0) == (rows.labels > 0.5))).sum()
    ...         self.rows += rows.mass.sum()
    ...
    ...     def compute(self) -> Tensor:
    ...         return self.right / self.rows
    >>> metric = Accuracy()
    >>> metric.update(torch.tensor([1.0, -2.0, 3.0, 9.0]), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    >>> metric.compute()
    tensor(0.7500, dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    task_kind: ClassVar[TaskKind] = "binary"
    needs_calibrated: ClassVar[bool] = False
    needs_group: ClassVar[bool] = False
    needs_domain: ClassVar[bool] = False
    by_default: ClassVar[bool] = True
    sampling_error: Tensor | None = None

    def __init__(self) -> None:
        # The state is on the CPU, and NCCL sends tensors of a GPU only.
        super().__init__(dist_sync_fn=gather_on_cpu)

    def _apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Self:
        # Module.to, half, double and cuda all come through here.
        return self

    def add_sum(self, name: str) -> None:
        """Declare a float64 scalar state that is summed over batches and processes."""
        self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        logits: Tensor,
        labels: Tensor,
        observed: Tensor | None = None,
        sample_weight: Tensor | None = None,
        group: Tensor | None = None,
        domain: Tensor | None = None,
    ) -> None:
        """Add rows.

        Args:
            logits: (N,), before the sigmoid (binary), or the predicted value (regression).
            labels: (N,), 0 or 1 (binary), or the true value.
            observed: (N,) bool; rows where it is false do not count, whatever their label is. None: all count.
            sample_weight: (N,) or None. Either every update of a metric has it or none has.
            group, domain: (N,) int64, or None.

        Raises:
            UsageError: without the group or domain that the metric needs.
        """
        for name, needed, given in (("group", self.needs_group, group), ("domain", self.needs_domain, domain)):
            if needed and given is None:
                raise UsageError(f"{type(self).__name__} needs the {name} of every row: set {name}_field")
        weights = None if sample_weight is None else _wide(sample_weight)
        # Integers as they are; weights and logits become floating point.
        group, domain = (None if part is None else part.cpu() for part in (group, domain))
        # Labels keep their type here; a metric of sums takes them in float64.
        rows = Rows(_wide(logits), labels.detach().cpu(), weights, group, domain)
        # Selected, not multiplied by 0: a label that is not observed may be NaN.
        self.add(rows if observed is None else rows.take(observed.cpu()))

    @abstractmethod
    def add(self, rows: Rows) -> None:
        """Add observed rows to the state."""

    @abstractmethod
    def compute(self) -> Tensor:
        """The metric over all rows of all processes."""

    def details(self) -> dict[str, Any] | None:
        """What the record of a run keeps of the last :meth:`compute` beside the value, as plain values; or None."""
        return None

    def use_fit(self, details: Mapping[str, Any]) -> None:
        """Take over what the metric fitted on validation rows: their :meth:`details`. Called before the test rows."""

    def standard_error(self) -> Tensor | None:
        """Sampling error of :meth:`compute` over all rows of all processes; None if the metric reports none.

        How far the value would move on another sample of test rows, with the model held fixed. Gathers as ``compute``
        does: all processes have to call it, or none.
        """
        self.compute()  # torchmetrics keeps the value, unless rows were added since; only in there is the state whole
        return self.sampling_error
