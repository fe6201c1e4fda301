"""The contract of a loss of one task."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from recbole_dtn.schema import TaskKind

__all__ = ["TaskLoss"]


class TaskLoss(nn.Module):
    """Base of a loss: elementwise, without any reduction.

    :class:`~recbole_dtn.loss.tasks.TaskLosses` masks the rows that are not observed, weights the samples and takes the
    mean, so that a loss states its equation and nothing else. It is called once for all tasks with the same loss and
    options, so the tensors may be (B,) or (B, T). A loss may have parameters: they are trained with the model's.

    Attributes:
        task_kind: kind of task that the loss is for.

    >>> import torch
    >>> class Hinge(TaskLoss):
    ...     def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
    ...         return torch.relu(1 - (2 * labels - 1) * logits)
    >>> Hinge()(torch.tensor([0.5, 3.0]), torch.tensor([1.0, 0.0])).tolist()
    [0.5, 4.0]
    """

    task_kind: ClassVar[TaskKind] = "binary"

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of every row.

        Args:
            logits: (B,) log-odds (binary) or predicted values (regression). labels: (B,), of the same type; 0 at rows
                that are not observed, where ``logits`` is 0 too and the result is not used.

        Returns:
            (B,).
        """
