"""MMoE: shared experts, one softmax gate per task."""

from __future__ import annotations

import torch

from recbole_dtn.config.models import MMoESettings
from recbole_dtn.data.features import Features
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGates
from recbole_dtn.layers.mixture import mixtures
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.schema import DataSchema

__all__ = ["MMoE"]


class MMoE(MultiTaskRecommender):
    """``h_t = sum_k softmax(W_t x)_k E_k(x);  logit_t = tower_t(h_t)`` (Ma et al., KDD 2018, eq. 6-8)."""

    def build(self, settings: MMoESettings, schema: DataSchema) -> None:
        """The embedding, K experts, T gates and T towers."""
        self.embedding = self.new_embedding()
        self.experts = Experts(self.flat_dim, settings.expert_hidden, count=settings.experts, dropout=settings.dropout)
        self.gates = SoftmaxGates(self.flat_dim, choices=settings.experts, count=schema.num_tasks)
        self.towers = Towers(
            self.experts.output_dim, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout
        )
        names = tuple(f"shared/expert{k}" for k in range(settings.experts))
        self.gate_names = dict.fromkeys(schema.task_names, names)
        if not settings.fused:
            set_fused(self, False)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's weights over the experts (B, K)."""
        x = self.embedding(features).flatten(1)
        if self.experts.fused:
            mixed, weights = mixtures([self.experts], [*self.gates.gates], [[0]] * self.schema.num_tasks, x)
        else:
            weights = self.gates(x).unbind(1)
            mixed = torch.einsum("btk,bkh->bth", torch.stack(weights, dim=1), self.experts(x))
        return ModelOutput(logits=self.towers(mixed), gates=dict(zip(self.schema.task_names, weights, strict=True)))
