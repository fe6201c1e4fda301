"""SingleTask, the baseline against which transfer between tasks is measured."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from recbole_dtn.config.settings import Count, Interaction, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.interaction_sets import InteractionSets, interaction_experts
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["SingleTask", "SingleTaskSettings"]


class SingleTaskSettings(Settings):
    """Settings of :class:`SingleTask`."""

    hidden: Annotated[Widths, Field(description="widths of each task's hidden layers (ReLU)")] = [128, 64]
    experts: Annotated[
        Annotated[list[Interaction], Field(min_length=1)] | None,
        Field(description="interaction modules of each task, which its network reads; null: it reads the embeddings"),
    ] = None
    module_dim: Annotated[Count, Field(description="output width of interaction modules")] = 64
    fusion: Annotated[Literal["concat", "sum"], Field(description="how a task's interaction modules are joined")] = (
        "concat"
    )


@MODELS.register("SingleTask", paper="baseline")
class SingleTask(MultiTaskRecommender):
    """A separate network per task, embeddings included.

    ``logit_t = MLP_t(x_t)``, ``x_t`` from the task's own embedding table. With ``experts: [gdcn, masknet, memonet]``
    task t has its own interaction modules F_tj of its embeddings: ``x_t = [F_t1, ..., F_tM]``, or their sum
    (``fusion``).
    """

    settings_class: ClassVar = SingleTaskSettings
    width_options = ("hidden", "module_dim")

    def build(self, settings: SingleTaskSettings, schema: DataSchema) -> None:
        """T embeddings, T sets of interaction modules where there are any, and T networks."""
        self.experts: InteractionSets | None = None
        # A table per task: nothing is shared, which makes it the baseline of transfer.
        if settings.experts is None:
            width = self.new_inputs(schema.num_tasks)
        else:
            self.embeddings = nn.ModuleList(self.new_embedding() for _ in schema.tasks)
            self.experts = interaction_experts(self, settings.experts, owners=schema.num_tasks)
            width = settings.module_dim * (len(self.experts.names) if settings.fusion == "concat" else 1)
        self.networks = Towers(width, settings.hidden, count=schema.num_tasks, dropout=settings.dropout)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        if self.experts is None:
            return ModelOutput(logits=self.networks(torch.stack(self.inputs(features), dim=1)))
        embeddings = [embedding(features) for embedding in self.embeddings]
        outputs, auxiliary = self.experts(embeddings, features.ids)
        every = torch.stack(outputs, dim=1)  # (B, T, M, O)
        x = every.flatten(2) if self.settings.fusion == "concat" else every.sum(2)
        return ModelOutput(logits=self.networks(x), auxiliary=auxiliary)
