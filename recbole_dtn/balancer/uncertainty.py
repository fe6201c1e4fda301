"""Uncertainty weighting: a learned noise level for each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.config.strict import Positive
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["Uncertainty"]


@BALANCERS.register("uncertainty", paper="Kendall et al., CVPR 2018")
class Uncertainty(LossBalancer):
    """Losses weighted by learned uncertainties.

    With s_t = log sigma_t^2 learned for each task, the loss is ``sum_t (L_t / (c_t e^s_t) + s_t / 2) + extra``. The
    paper derives c = 2 for a Gaussian likelihood (regression, eq. 5) and c = 1 for a softmax one (classification, eq.
    10). An unobserved task adds nothing. The total may be negative.

    Args:
        tasks: the tasks. form: c by the task's kind (``auto``: 1 for binary tasks, 2 for regression), or one for all:
            ``whole`` (1) or ``half`` (2). init: s at the start. lr: learning rate of s; None for that of ``optimizer``.

    >>> balancer = Uncertainty([TaskSpec("a", "binary", "a")])
    >>> balancer.backward(Step(torch.tensor([0.5], requires_grad=True))).item()
    0.5
    >>> balancer.log_variance.grad  # -L e^-s + 1/2
    tensor([0.])
    """

    factors: Tensor

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        form: Annotated[
            Literal["auto", "half", "whole"],
            Field(description="L/(2e^s) + s/2 (half), L/e^s + s/2 (whole), or by the kind of task (auto)"),
        ] = "auto",
        init: Annotated[float, Field(description="log variance at the start")] = 0.0,
        lr: Annotated[Positive | None, Field(description="learning rate of s, ~ for optimizer.lr")] = None,
    ) -> None:
        super().__init__(tasks)
        self.lr = lr
        half = [form == "half" or (form == "auto" and task.kind == "regression") for task in tasks]
        self.log_variance = nn.Parameter(torch.full((len(tasks),), float(init)))
        self.register_buffer("factors", torch.tensor([0.5 if each else 1.0 for each in half]), persistent=False)

    def backward(self, step: Step) -> Tensor:
        spread = self.log_variance
        terms = self.factors * torch.exp(-spread) * step.losses + spread / 2
        # Masked, as s_t / 2 would move the s of a task that has no row.
        total = torch.where(step.observed, terms, 0.0).sum() + step.extra
        step.run(total)
        return total.detach()
