"""SingleTask, the baseline against which transfer between tasks is measured."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from recbole_dtn.config.settings import Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["SingleTask", "SingleTaskSettings"]


class SingleTaskSettings(Settings):
    """Settings of :class:`SingleTask`."""

    hidden: Annotated[Widths, Field(description="widths of each task's hidden layers (ReLU)")] = [128, 64]


@MODELS.register("SingleTask", paper="baseline")
class SingleTask(MultiTaskRecommender):
    """A separate network per task, embeddings included.

    ``logit_t = MLP_t(x_t)``, ``x_t`` from the task's own embedding table.
    """

    settings_class: ClassVar = SingleTaskSettings

    def build(self, settings: SingleTaskSettings, schema: DataSchema) -> None:
        """T embeddings and T networks."""
        # A table per task: nothing is shared, which makes it the baseline of transfer.
        width = self.new_inputs(schema.num_tasks)
        self.networks = Towers(width, settings.hidden, count=schema.num_tasks, dropout=settings.dropout)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        return ModelOutput(logits=self.networks(torch.stack(self.inputs(features), dim=1)))
