"""SharedBottom (Caruana, Machine Learning 1997)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from recbole_dtn.config.settings import Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["SharedBottom", "SharedBottomSettings"]


class SharedBottomSettings(Settings):
    """Settings of :class:`SharedBottom`."""

    bottom_hidden: Annotated[Widths, Field(description="widths of the shared network's layers (ReLU)")] = [128]
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


@MODELS.register("SharedBottom", paper="Caruana, 1997")
class SharedBottom(MultiTaskRecommender):
    """One shared network, one tower per task.

    ``logit_t = tower_t(MLP(x))``.
    """

    settings_class: ClassVar = SharedBottomSettings
    width_options = ("bottom_hidden", "tower_hidden")

    def build(self, settings: SharedBottomSettings, schema: DataSchema) -> None:
        """The embedding, one bottom and T towers."""
        self.bottom = MLP(self.new_input(), settings.bottom_hidden, dropout=settings.dropout)
        self.towers = Towers(
            self.bottom.output_dim, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout
        )

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        shared = self.bottom(self.input(features))  # (B, H)
        each = shared.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)  # (B, T, H)
        return ModelOutput(logits=self.towers(each), shared=shared)
