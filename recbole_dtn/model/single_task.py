"""SingleTask: a network per task that shares nothing, the baseline against which transfer is measured."""

from __future__ import annotations

import torch
from torch import nn

from recbole_dtn.config.models import SingleTaskSettings
from recbole_dtn.data.features import Features
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.schema import DataSchema

__all__ = ["SingleTask"]


class SingleTask(MultiTaskRecommender):
    """``logit_t = MLP_t(x_t)``, ``x_t`` from the task's own embedding table."""

    def build(self, settings: SingleTaskSettings, schema: DataSchema) -> None:
        """T embeddings and T networks."""
        self.embeddings = nn.ModuleList(self.new_embedding() for _ in schema.tasks)
        self.networks = Towers(self.flat_dim, settings.hidden, count=schema.num_tasks, dropout=settings.dropout)
        if not settings.fused:
            set_fused(self, False)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        inputs = torch.stack([embedding(features).flatten(1) for embedding in self.embeddings], dim=1)  # (B, T, F*D)
        return ModelOutput(logits=self.networks(inputs))
