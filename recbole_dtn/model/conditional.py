"""Losses of conditional probabilities (such as CVR) over the entire space, weighted by propensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recbole_dtn.data.features import Features
from recbole_dtn.loss.tasks import loss_weights
from recbole_dtn.model.base import ModelOutput
from recbole_dtn.model.chains import TaskChain
from recbole_dtn.schema import TaskSpec

__all__ = ["ConditionalLosses", "ConditionalRows", "inverse_probability"]


def inverse_probability(logit: Tensor, largest: float) -> Tensor:
    """``min(1 / sigmoid(logit), largest)`` without a gradient.

    >>> inverse_probability(torch.tensor([0.0, -500.0]), 15.0).tolist()
    [2.0, 15.0]
    """
    # 1 / p = 1 + exp(-logit), which may be infinite before it is clipped.
    return (1.0 + torch.exp(-logit.detach())).clamp(max=largest)


@dataclass(frozen=True)
class ConditionalRows:
    """A batch as the S steps of a chain see it: task t given the task s before it.

    Attributes:
        happened: o = label_s, (B, S). label: r = label_t, (B, S). Both are 0 where they are not observed.
        prior: log-odds of P(o = 1 | x), (B, S). logit: log-odds of P(r = 1 | o = 1, x), (B, S).
        weight: weight of each row, 0 where o or r is not observed, (B, S). total: what sums are divided by, (S,).
        positive: ``pos_weight`` of task t, (S,). spread: whether the batch is spread over processes.
    """

    happened: Tensor
    label: Tensor
    prior: Tensor
    logit: Tensor
    weight: Tensor
    total: Tensor
    positive: Tensor
    spread: bool

    def errors(self) -> Tensor:
        """Cross entropy of the conditional probability, (B, S), times ``pos_weight`` where r is 1."""
        each = binary_cross_entropy_with_logits(self.logit, self.label, reduction="none")
        return each * (1.0 + (self.positive - 1.0) * self.label)

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean (S,) of ``values`` (B, S) over all rows, not only those where o is 1."""
        return (values * self.weight).sum(0) / torch.where(self.total > 0, self.total, 1.0)


class ConditionalLosses(nn.Module):
    """Finds the steps of a chain in a batch, and adds a loss of each to that of its task.

    Args:
        chain: the tasks' order. tasks: the T tasks.
    """

    later: Tensor
    earlier: Tensor
    positive: Tensor

    def __init__(self, chain: TaskChain, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        later, earlier = zip(*chain.steps, strict=True)
        # Buffers, so that indexing copies nothing to a GPU.
        self.register_buffer("later", torch.tensor(later), persistent=False)
        self.register_buffer("earlier", torch.tensor(earlier), persistent=False)
        factors = torch.tensor([tasks[task].pos_weight for task in later], dtype=torch.float64)
        self.register_buffer("positive", factors, persistent=False)

    def rows(self, features: Features, output: ModelOutput, total: Tensor | None) -> ConditionalRows:
        """The steps of a batch.

        Args:
            features: with labels. output: its ``factors`` are those of the steps, in order. total: as ``task_losses``
                takes it.
        """
        logit = torch.stack([factor.logit for factor in output.factors.values()], dim=1)
        kind = torch.promote_types(logit.dtype, torch.float32)
        labels = torch.where(features.observed, features.labels.to(kind), 0.0)
        weights = loss_weights(features.observed, features.sample_weight, kind)
        divisor = weights.sum(0) if total is None else total.to(kind)
        return ConditionalRows(
            happened=labels[:, self.earlier],
            label=labels[:, self.later],
            prior=output.logits[:, self.earlier].to(kind),
            logit=logit.to(kind),
            weight=weights[:, self.later] * features.observed[:, self.earlier],
            total=divisor[self.later],
            positive=self.positive.to(kind),
            spread=total is not None,
        )

    def add(self, losses: Tensor, conditional: Tensor, *, scale: float = 1.0) -> Tensor:
        """``scale * L_t + conditional_t`` for each later task t, ``L_t`` for the others: (T,), (S,) -> (T,)."""
        if scale != 1.0:
            losses = losses.index_add(0, self.later, (scale - 1.0) * losses[self.later])
        return losses.index_add(0, self.later, conditional.to(losses.dtype))
