"""DB-MTL: gradients of log losses, averaged over steps and made equally long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.gradients import TaskGradients
from recbole_dtn.balancer.step import Step
from recbole_dtn.registry import BALANCERS
from recbole_dtn.schema import TaskSpec

__all__ = ["DBMTL"]

LEAST_LOSS = 1e-8
"""Added to a loss in a quotient."""


@BALANCERS.register("db_mtl", paper="Lin et al., arXiv 2308.12029")
class DBMTL(LossBalancer):
    """Running means of the gradients of log losses, each scaled to the longest.

    With g_t the gradient of L_t in step k, shared parameters get ``sum_t (max_s |m_s| / |m_t|) m_t`` over the observed
    tasks, where::

        m_t <- beta_k m_t + (1 - beta_k) g_t / L_t      beta_k = beta / k^decay,  m = 0 at first

    A task's own parameters get ``g_t / L_t``, L_t plus 1e-8 throughout. The m_t of an unobserved task stays as it
    is, and is not used. The means take T times the memory of the shared parameters but the embedding tables. Those
    are not averaged, m_t = g_t / L_t: only the rows of the batch have a gradient, so that it stays sparse and every
    row moves by its whole gradient.

    Args:
        tasks: the tasks. beta: part of the old mean in the new; 0 takes the gradients of the step alone. decay: how
            beta falls over the steps.
    """

    means: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        beta: Annotated[float, Field(ge=0, lt=1, description="part of the old mean gradient in the new one")] = 0.9,
        decay: Annotated[float, Field(ge=0, description="power of the step's number that divides beta")] = 0.0,
    ) -> None:
        super().__init__(tasks)
        self.beta, self.decay = beta, decay
        # (T, P): m_t of all shared parameters but tables, one after another; P is known in the first step.
        self.register_buffer("means", torch.zeros(len(tasks), 0))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}means")
        if saved is not None:
            self.means = self.means.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def backward(self, step: Step) -> Tensor:
        factors = torch.where(step.observed, 1 / (step.values + LEAST_LOSS), 0.0)
        averaged, means = self._average(step, factors)
        gram = averaged.gram()
        weights = step.observed.cpu().double()
        if bool(gram.isfinite().all()):
            # A step that the fp16 scaler skips leaves the means as they are.
            self.means, self.steps = means, self.steps + 1
            norms = gram.diagonal().sqrt()
            longest = (norms * weights).max()
            weights = torch.where(norms > 0, longest / norms, 1.0) * weights
        step.apply(step.agreed(weights), factors, gradients=averaged)
        return step.losses.detach().sum() + step.extra.detach()

    def _average(self, step: Step, factors: Tensor) -> tuple[TaskGradients, Tensor]:
        """The m_t as gradients of this step, and the new (T, P) means that hold those of all but tables."""
        found = step.gradients()
        tables = {id(table) for table in step.reach.tables}
        logs = [values * factors.to(values).view(-1, *[1] * (values.ndim - 1)) for values in found.values]
        places = [i for i, parameter in enumerate(found.parameters) if id(parameter) not in tables]
        if not places:
            return replace(found, values=tuple(logs)), self.means
        new = torch.cat([logs[i].flatten(1) for i in places], dim=1)
        old = self.means.to(new) if self.means.numel() else torch.zeros_like(new)
        if old.shape != new.shape:
            raise ValueError(
                f"db_mtl: the saved means are of {old.shape[1]} shared values, the model has {new.shape[1]}: "
                "continue with the model of the checkpoint, or train from the start"
            )
        # On a GPU reading ``steps`` waits for it.
        beta = self.beta / float(self.steps + 1) ** self.decay if self.decay else self.beta
        means = torch.where(step.observed.unsqueeze(1), torch.lerp(new, old, beta), old)
        for i, part in zip(places, torch.split(means, [logs[i][0].numel() for i in places], dim=1), strict=True):
            logs[i] = part.view(logs[i].shape)
        return replace(found, values=tuple(logs)), means
