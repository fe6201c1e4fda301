"""MMoE (Ma et al., KDD 2018)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGates
from recbole_dtn.layers.mixture import mixtures
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["MMoE", "MMoESettings"]


class MMoESettings(Settings):
    """Settings of :class:`MMoE`."""

    experts: Annotated[Count, Field(description="number of shared experts")] = 4
    expert_hidden: Annotated[Widths, Field(description="widths of each expert's layers (ReLU)")] = [128]
    gate_hidden: Annotated[Widths, Field(description="hidden widths of each gate's MLP (ReLU); [] is the paper's")] = []
    gate_bias: Annotated[bool, Field(description="whether the last map of each gate has a bias")] = False
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


@MODELS.register("MMoE", paper="Ma et al., KDD 2018")
class MMoE(MultiTaskRecommender):
    """Shared experts, one softmax gate and one tower per task.

    ``h_t = sum_k softmax(W_t x)_k E_k(x);  logit_t = tower_t(h_t)`` (eq. 6-8). Published code has gates with hidden
    layers, ``softmax(W_t MLP_t(x) + b_t)``: ``gate_hidden`` and ``gate_bias``.
    """

    settings_class: ClassVar = MMoESettings

    def build(self, settings: MMoESettings, schema: DataSchema) -> None:
        """The embedding, K experts, T gates and T towers."""
        width = self.new_input()
        self.experts = Experts(width, settings.expert_hidden, count=settings.experts, dropout=settings.dropout)
        self.gates = SoftmaxGates(
            width, settings.experts, schema.num_tasks, hidden=settings.gate_hidden, bias=settings.gate_bias
        )
        self.towers = Towers(
            self.experts.output_dim, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout
        )
        names = tuple(f"shared/expert{k}" for k in range(settings.experts))
        self.gate_names = dict.fromkeys(schema.task_names, names)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's weights over the experts (B, K)."""
        x = self.input(features)
        # Every gate reads the one group of experts, number 0.
        mixed, weights = mixtures([self.experts], self.gates, [[0]] * self.schema.num_tasks, x)  # (B, T, H)
        gates = dict(zip(self.schema.task_names, weights, strict=True))
        return ModelOutput(logits=self.towers(mixed), gates=gates, shared=x)
