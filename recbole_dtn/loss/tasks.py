"""The loss of every task: the weighted mean over the rows where its label is observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.loss.bce import BCE
from recbole_dtn.loss.mse import MSE
from recbole_dtn.loss.pairwise import pairwise_loss
from recbole_dtn.loss.scales import Scales
from recbole_dtn.registry import LOSSES
from recbole_dtn.schema import TaskKind, TaskSpec

__all__ = ["TaskLosses", "loss_weights", "task_losses"]

DEFAULT_LOSSES: dict[TaskKind, type[TaskLoss]] = {"binary": BCE, "regression": MSE}
"""The loss of a task that names none."""


def loss_weights(observed: Tensor, sample_weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weight (B, T) of each label in its task's mean: the sample's weight where it is observed, else 0."""
    weights = observed.to(dtype)
    return weights if sample_weight is None else weights * sample_weight.to(dtype).unsqueeze(1)


class TaskLosses(nn.Module):
    """Mean loss of each task over its observed rows, not yet times the task's weight.

    With l_t the task's loss (:class:`BCE` for a binary task and :class:`MSE` for a regression unless it names
    another), w the sample weight (1 without any), y the label (of a regression in the units of :class:`Scales`) and the
    sums over the rows where task t is observed::

        L_t = sum_b w_b (1 + (pos_weight_t - 1) y_b) l_t(logit_b, y_b) / sum_b w_b

    A task with ``pairwise`` above 0 adds that many times the :func:`pairwise_loss` of its observed rows, whose pairs
    are those of one process.

    A task without an observed row (or with weights that sum to 0) has loss 0 and gradient 0. A label that is not
    observed may be anything, NaN included. float64 logits give float64 losses; all others are computed in float32.

    Args:
        tasks: the T tasks, in the order of the columns.

    Raises:
        UsageError: for an unknown loss, a wrong option, or a loss for the other kind of task.
    """

    positive: Tensor | None

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        chosen: list[tuple[Any, list[int]]] = []  # each distinct loss, with the columns of its tasks
        # Tasks with one loss and the same options share a module, which is called once on all their columns.
        for column, task in enumerate(tasks):
            wanted = (task.kind, task.loss)
            columns = next((columns for known, columns in chosen if known == wanted), None)
            if columns is None:
                chosen.append((wanted, [column]))
            else:
                columns.append(column)
        built = [_build(tasks[columns[0]]) for _, columns in chosen]
        self.losses = nn.ModuleList(built)
        self.columns = [columns for _, columns in chosen]
        # ``order``: columns as the losses give them; ``places[t]`` finds task t's among them.
        order = [column for columns in self.columns for column in columns]
        self.places = [order.index(column) for column in range(len(order))]
        # What is known of the two built-in losses: they are finite, with finite gradients, for any label.
        self.safe = all(type(loss) in (BCE, MSE) for loss in self.losses)
        links = [loss.link for loss, columns in zip(built, self.columns, strict=True) for _ in columns]
        self.scales = Scales(tasks, [links[place] for place in self.places])
        self.pairwise = {column: task.pairwise for column, task in enumerate(tasks) if task.pairwise > 0}
        factors = [task.pos_weight for task in tasks]
        positive = None if set(factors) <= {1.0} else torch.tensor(factors, dtype=torch.float64)
        self.register_buffer("positive", positive, persistent=False)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        observed: Tensor,
        sample_weight: Tensor | None = None,
        total: Tensor | None = None,
        group: Tensor | None = None,
    ) -> Tensor:
        """The T losses of a batch.

        Args:
            logits: (B, T). labels: (B, T). observed: (B, T) bool. sample_weight: (B,) or None.
            total: (T,) what to divide by instead of ``sum_b w_b``; for a batch that is spread over processes.
            group: (B,) or None, for ``pairwise``.

        Returns:
            (T,).
        """
        logits = logits if logits.dtype is torch.float64 else logits.float()
        targets = torch.where(observed, self.scales.labels(labels.to(logits.dtype)), 0.0)
        # Masked before the loss as well as after it: if the loss of an unobserved label is infinite, masking only
        # afterwards would give the gradient 0 * inf = NaN.
        each = self._each(logits if self.safe else torch.where(observed, logits, 0.0), targets)
        if self.positive is not None:
            each = each * (1.0 + (self.positive.to(logits) - 1.0) * targets)
        # The mask once more in torch.where: 0 times an infinite loss would be NaN.
        weights = loss_weights(observed, sample_weight, logits.dtype)
        total = weights.sum(0) if total is None else total.to(logits.dtype)
        found = (torch.where(observed, each, 0.0) * weights).sum(0) / torch.where(total > 0, total, 1.0)
        return found + self._pairs(logits, targets, observed, sample_weight, group) if self.pairwise else found

    def _pairs(
        self, logits: Tensor, targets: Tensor, observed: Tensor, sample_weight: Tensor | None, group: Tensor | None
    ) -> Tensor:
        """(T,): the ranking losses of the tasks that have one, times their weights."""
        mass = None if sample_weight is None else sample_weight.to(logits.dtype)
        found = [logits.new_zeros(())] * logits.shape[1]
        for column, weight in self.pairwise.items():
            seen = observed[:, column]
            rest = (None if part is None else part[seen] for part in (mass, group))
            found[column] = weight * pairwise_loss(logits[seen, column], targets[seen, column], *rest)
        return torch.stack(found)

    def _each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, T): every loss over the columns of its tasks, put back in the order of the tasks."""
        if len(self.losses) == 1:
            each: Tensor = self.losses[0](logits, targets)
            return each
        scores, labels = logits.unbind(1), targets.unbind(1)
        parts: list[Tensor] = []
        for loss, columns in zip(self.losses, self.columns, strict=True):
            own, truth = [scores[t] for t in columns], [labels[t] for t in columns]
            parts += loss(torch.stack(own, 1), torch.stack(truth, 1)).unbind(1)
        return torch.stack([parts[place] for place in self.places], 1)


def _build(task: TaskSpec) -> TaskLoss:
    if task.loss is None:
        return DEFAULT_LOSSES[task.kind]()
    options = {key: value for key, value in task.loss.items() if key != "name"}
    name = task.loss["name"]
    found = LOSSES.load(name)
    if not (isinstance(found, type) and issubclass(found, TaskLoss)):
        raise UsageError(f"loss {name!r}: expected a subclass of recbole_dtn.loss.base.TaskLoss, found {found!r}")
    if found.task_kind != task.kind:
        raise UsageError(f"task {task.name!r}: loss {name!r} is for {found.task_kind} tasks; this one is {task.kind}")
    return found(**options)


def task_losses(
    logits: Tensor,
    labels: Tensor,
    observed: Tensor,
    tasks: Sequence[TaskSpec],
    sample_weight: Tensor | None = None,
    total: Tensor | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """:class:`TaskLosses` of one batch, built for this call.

    >>> tasks = (TaskSpec("t", "binary", "y"), TaskSpec("u", "regression", "z"))
    >>> labels = torch.tensor([[1.0, 2.0], [0.0, float("nan")]])
    >>> task_losses(torch.zeros(2, 2), labels, ~labels.isnan(), tasks).tolist()
    [0.6931471824645996, 4.0]
    """
    losses: Tensor = TaskLosses(tasks).to(logits.device)(logits, labels, observed, sample_weight, total, group)
    return losses
