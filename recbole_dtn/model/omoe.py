"""OMoE, one-gate mixture of experts (Ma et al., KDD 2018)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.mixture import mixtures
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["OMoE", "OMoESettings"]


class OMoESettings(Settings):
    """Settings of :class:`OMoE`."""

    experts: Annotated[Count, Field(description="number of shared experts")] = 4
    expert_hidden: Annotated[Widths, Field(description="widths of each expert's layers (ReLU)")] = [128]
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


@MODELS.register("OMoE", paper="Ma et al., KDD 2018")
class OMoE(MultiTaskRecommender):
    """Shared experts, one softmax gate for all tasks.

    ``h = sum_k softmax(W x)_k E_k(x);  logit_t = tower_t(h)`` (eq. 5).
    """

    settings_class: ClassVar = OMoESettings
    width_options = ("expert_hidden", "tower_hidden")

    def build(self, settings: OMoESettings, schema: DataSchema) -> None:
        """The embedding, K experts, one gate and T towers."""
        width = self.new_input()
        self.experts = Experts(width, settings.expert_hidden, count=settings.experts, dropout=settings.dropout)
        self.gate = SoftmaxGate(width, settings.experts)
        self.towers = Towers(
            self.experts.output_dim, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout
        )
        names = tuple(f"shared/expert{k}" for k in range(settings.experts))
        self.gate_names = dict.fromkeys(schema.task_names, names)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and the weights over the experts (B, K), the same for every task."""
        mixed, (weights,) = mixtures([self.experts], [self.gate], [[0]], self.input(features))
        shared = mixed.squeeze(1)  # (B, H)
        return ModelOutput(
            # A view (B, T, H): every tower reads the same mix.
            logits=self.towers(shared.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)),
            gates=dict.fromkeys(self.schema.task_names, weights),
            shared=shared,
        )
