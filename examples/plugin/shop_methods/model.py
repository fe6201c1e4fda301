"""A shared network with a gate per task."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn

from recbole_dtn.config.settings import Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema


class ShopGatedSettings(Settings):
    """Settings of :class:`ShopGated`."""

    bottom_hidden: Annotated[Widths, Field(description="widths of the shared network's layers (ReLU)")] = [32]
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [16]


@MODELS.register("ShopGated", paper="an example")
class ShopGated(MultiTaskRecommender):
    """A shared network whose units every task scales by a gate of its own.

    ``h = MLP(x);  logit_t = tower_t(h * 2 sigmoid(W_t h + b_t))``.
    """

    settings_class: ClassVar = ShopGatedSettings

    def build(self, settings: ShopGatedSettings, schema: DataSchema) -> None:
        """The shared network, T gates and T towers."""
        self.bottom = MLP(self.new_input(), settings.bottom_hidden, dropout=settings.dropout)
        width = self.bottom.output_dim
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in schema.tasks)
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        shared = self.bottom(self.input(features))
        scaled = [shared * 2 * torch.sigmoid(gate(shared)) for gate in self.gates]
        return ModelOutput(logits=self.towers(torch.stack(scaled, dim=1)), shared=shared)
