"""ResFlow, residual connections from task to task (arXiv 2411.09705)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.chains import TaskChain
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["ResFlow", "ResFlowSettings"]


class ResFlowSettings(Settings):
    """Settings of :class:`ResFlow`."""

    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [128, 64]


@MODELS.register("ResFlow", paper="arXiv 2411.09705")
class ResFlow(MultiTaskRecommender):
    """A tower per task, to whose layer outputs and logit those of the task before are added.

    With s the task that ``after`` names, and without the terms of s for a task that comes after none::

        h_t^0 = x,   h_t^l = ReLU(W_t^l h_t^(l-1) + b_t^l) + h_s^l,   logit_t = w_t h_t^L + b_t + logit_s

    as specified here.

    Raises:
        UsageError: without a chain of tasks, or for a task after several others.
    """

    settings_class: ClassVar = ResFlowSettings
    width_options = ("tower_hidden",)
    task_kinds = frozenset({"binary"})
    min_tasks = 2
    needs_chain = "any_rows"

    def build(self, settings: ResFlowSettings, schema: DataSchema) -> None:
        """The embedding, and T towers layer by layer."""
        # Nothing is compared row by row: a later label may be observed in fewer rows.
        self.chain = TaskChain.of(schema, type(self).__name__, same_rows=False)
        widths = [self.new_input(), *settings.tower_hidden]
        self.layers = nn.ModuleList(
            nn.ModuleList(MLP(low, [high], dropout=settings.dropout) for _ in schema.tasks)
            for low, high in pairwise(widths)
        )
        self.towers = Towers(widths[-1], [], count=schema.num_tasks)

    def head_rates(self) -> list[float | None]:
        """Rates whose log-odds are the differences of a task's from those of the task before."""
        odds = [None if task.rate is None else task.rate / (1 - task.rate) for task in self.schema.tasks]
        found: list[float | None] = []
        for own, before in zip(odds, self.chain.before, strict=True):
            # The base adds log pos_weight of each head, which the sum over the chain would count again.
            less = 1.0 if before is None else odds[before]
            less = less and less * (1.0 if before is None else self.schema.tasks[before].pos_weight)
            found.append(None if own is None or less is None else own / less / (1 + own / less))
        return found

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        x = self.input(features)  # (B, I)
        h = [x] * self.schema.num_tasks
        for layer in self.layers:
            h = self._flow([part(each) for part, each in zip(cast(nn.ModuleList, layer), h, strict=True)])
        own = self.towers(torch.stack(h, dim=1))  # (B, T)
        return ModelOutput(torch.stack(self._flow([*own.unbind(1)]), dim=1), shared=x)

    def _flow(self, own: list[Tensor]) -> list[Tensor]:
        """Adds to each task's tensor that of the task before it, in the order of the chain."""
        # Sums, and no product with a matrix of zeros and ones: the gradient of a task reaches its predecessors alone.
        total = [*own]
        for task, before in self.chain.steps:
            total[task] = own[task] + total[before]
        return total
