"""SingleTask, the baseline against which transfer between tasks is measured."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn

from recbole_dtn.config.settings import Rate, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["SingleTask", "SingleTaskSettings"]


class SingleTaskSettings(Settings):
    """Settings of :class:`SingleTask`; its dropout was chosen on validation (docs/defaults.md)."""

    hidden: Annotated[Widths, Field(description="widths of each task's hidden layers (ReLU)")] = [128, 64]
    dropout: Annotated[Rate, Field(description="after each hidden layer")] = 0.3


@MODELS.register("SingleTask", paper="baseline")
class SingleTask(MultiTaskRecommender):
    """A separate network per task, embeddings included.

    ``logit_t = MLP_t(x_t)``, ``x_t`` from the task's own embedding table.
    """

    settings_class: ClassVar = SingleTaskSettings

    def build(self, settings: SingleTaskSettings, schema: DataSchema) -> None:
        """T embeddings and T networks."""
        self.embeddings = nn.ModuleList(self.new_embedding() for _ in schema.tasks)
        fronts = [self.new_front() for _ in schema.tasks]
        self.fronts = nn.ModuleList(fronts)
        self.networks = Towers(fronts[0].output_dim, settings.hidden, count=schema.num_tasks, dropout=settings.dropout)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        parts = zip(self.embeddings, self.fronts, strict=True)
        inputs = [front(embedding(features), features.ids) for embedding, front in parts]  # T times (B, I)
        return ModelOutput(logits=self.networks(torch.stack(inputs, dim=1)))
