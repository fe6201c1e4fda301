"""The loss of every task over the rows where its label is observed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.schema import TaskSpec

__all__ = ["loss_weights", "task_losses"]


def loss_weights(observed: Tensor, sample_weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weight (B, T) of each label in its task's mean: the sample's weight where it is observed, else 0."""
    weights = observed.to(dtype)
    return weights if sample_weight is None else weights * sample_weight.to(dtype).unsqueeze(1)


def task_losses(
    logits: Tensor,
    labels: Tensor,
    observed: Tensor,
    tasks: Sequence[TaskSpec],
    sample_weight: Tensor | None = None,
    total: Tensor | None = None,
) -> Tensor:
    """Mean loss of each task over its observed rows, not yet times the task's weight.

    With s = sigmoid(logit), w the sample weight (1 without any) and the sums over the rows where task t is observed::

        binary:      L_t = sum_b w_b (-pos_weight_t y_b log s_b - (1 - y_b) log(1 - s_b)) / sum_b w_b
        regression:  L_t = sum_b w_b (logit_b - y_b)^2 / sum_b w_b

    A task that nothing is observed of (or with weights that sum to 0) has loss 0 and gradient 0. A label that is not
    observed may be anything, NaN included.

    Args:
        logits: (B, T). labels: (B, T). observed: (B, T) bool. tasks: T of them. sample_weight: (B,) or None.
        total: (T,) what to divide by instead of ``sum_b w_b``; for a batch that is spread over processes.

    Returns:
        (T,).

    >>> tasks = (TaskSpec("t", "binary", "y"), TaskSpec("u", "regression", "z"))
    >>> labels = torch.tensor([[1.0, 2.0], [0.0, float("nan")]])
    >>> task_losses(torch.zeros(2, 2), labels, ~labels.isnan(), tasks).tolist()
    [0.6931471824645996, 4.0]
    """
    targets = torch.where(observed, labels.to(logits.dtype), 0.0)
    factors = [task.pos_weight for task in tasks]
    positive = None if set(factors) == {1.0} else logits.new_tensor(factors)
    each = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive, reduction="none")
    binary = [task.kind == "binary" for task in tasks]
    if not all(binary):
        each = torch.where(torch.tensor(binary, device=logits.device), each, (logits - targets).square())
    weights = loss_weights(observed, sample_weight, logits.dtype)
    if total is None:
        total = weights.sum(0)
    return (torch.where(observed, each, 0.0) * weights).sum(0) / torch.where(total > 0, total, 1.0)
