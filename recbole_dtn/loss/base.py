"""The contract of a loss of one task."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from recbole_dtn.schema import TaskKind

__all__ = ["Link", "TaskLoss"]

Link = Literal["identity", "exp"]


class TaskLoss(nn.Module):
    """Base of a loss: elementwise, without any reduction.

    :class:`~recbole_dtn.loss.tasks.TaskLosses` masks the rows that are not observed, weights the samples and takes the
    mean, so that a loss states its equation and nothing else. It is called once for all tasks with the same loss and
    options, so the tensors may be (B,) or (B, T). A loss may have parameters: they are trained with the model's.

    Attributes:
        task_kind: kind of task that the loss is for.
        calibrated: of a binary task, whether the sigmoid of the logit is the probability of the data where the loss is
            least; if not, metrics that read it as such are null.
        link: of a regression, what makes the logit the value: itself, or its exponential (labels are then at least 0).

    >>> import torch
    >>> class Hinge(TaskLoss):
    ...     def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
    ...         return torch.relu(1 - (2 * labels - 1) * logits)
    >>> Hinge()(torch.tensor([0.5, 3.0]), torch.tensor([1.0, 0.0])).tolist()
    [0.5, 4.0]
    """

    task_kind: ClassVar[TaskKind] = "binary"
    calibrated: ClassVar[bool] = True
    link: ClassVar[Link] = "identity"

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of every row.

        Args:
            logits: (B,) log-odds (binary) or predicted values (regression). labels: (B,), of the same type; those of a
                regression are scaled (:class:`~recbole_dtn.loss.scales.Scales`). Both are 0 at rows that are not
                observed, and the result is not used there.

        Returns:
            (B,).
        """
