"""What every metric of one task shares: masking, state on the CPU, and a gather in which every row counts once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from recbole_dtn.schema import TaskKind

__all__ = ["TaskMetric", "gather_on_cpu", "value_or_none"]


def value_or_none(value: Tensor) -> float | None:
    """The number in ``value``, or None where it is undefined (NaN) or infinite, which JSON cannot carry.

    >>> value_or_none(torch.tensor(0.5)), value_or_none(torch.tensor(float("nan")))
    (0.5, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None


def gather_on_cpu(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """``tensor`` of every process, in rank order; first dimensions may differ. Back on the CPU whatever the backend."""
    if torch.distributed.get_backend(group) == "nccl":
        tensor = tensor.cuda()
    return [part.cpu() for part in gather_all_tensors(tensor, group)]


class TaskMetric(Metric):
    """Base of a metric of one task: ``update`` drops what is not observed, a subclass writes ``add`` and ``compute``.

    The state stays on the CPU when a trainer moves the module: float64 sums do not exist on every accelerator, and
    the logits of a whole split are better kept in host memory. ``compute`` returns a float64 scalar, NaN if undefined.

    Attributes:
        task_kind: kind of task that the metric is for.
        needs_calibrated: whether the metric reads a prediction as a probability of the data, so that it means nothing
            for a task trained with ``pos_weight``.
    """

    full_state_update = False
    is_differentiable = False
    task_kind: ClassVar[TaskKind] = "binary"
    needs_calibrated: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=gather_on_cpu)

    def _apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Self:
        return self

    def add_sum(self, name: str) -> None:
        """Declare a float64 scalar state that is summed over batches and processes."""
        self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, logits: Tensor, labels: Tensor, observed: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> None:
        """Add rows.

        Args:
            logits: (N,), before the sigmoid (binary), or the predicted value (regression).
            labels: (N,), 0 or 1 (binary), or the true value.
            observed: (N,) bool; rows where it is false do not count, whatever their label is. None: all count.
            sample_weight: (N,) or None. Either every update of a metric has it or none has.
        """
        logits, labels = logits.detach().cpu(), labels.detach().cpu()
        weights = None if sample_weight is None else sample_weight.detach().cpu()
        if observed is not None:
            rows = observed.cpu()
            logits, labels = logits[rows], labels[rows]
            weights = None if weights is None else weights[rows]
        self.add(logits, labels, weights)

    @abstractmethod
    def add(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> None:
        """Add (N,) observed rows to the state; all tensors are on the CPU."""

    @abstractmethod
    def compute(self) -> Tensor:
        """The metric over all rows of all processes."""
