"""SharedBottom: one network below, one tower per task."""

from __future__ import annotations

from recbole_dtn.config.models import SharedBottomSettings
from recbole_dtn.data.features import Features
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.schema import DataSchema

__all__ = ["SharedBottom"]


class SharedBottom(MultiTaskRecommender):
    """``logit_t = tower_t(MLP(x))`` (Caruana, Machine Learning 1997)."""

    def build(self, settings: SharedBottomSettings, schema: DataSchema) -> None:
        """The embedding, one bottom and T towers."""
        self.embedding = self.new_embedding()
        self.bottom = MLP(self.flat_dim, settings.bottom_hidden, dropout=settings.dropout)
        self.towers = Towers(
            self.bottom.output_dim, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout
        )
        if not settings.fused:
            set_fused(self, False)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        shared = self.bottom(self.embedding(features).flatten(1))  # (B, H)
        return ModelOutput(logits=self.towers(shared.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)))
