"""MMoE (Ma et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from recbole_dtn.config.settings import Count, Interaction, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.kernels.mixtures import mix
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGates
from recbole_dtn.layers.mixture import mixtures
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.interaction_sets import InteractionSets, interaction_experts
from recbole_dtn.model.owners import SHARED
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["MMoE", "MMoESettings"]


class MMoESettings(Settings):
    """Settings of :class:`MMoE`."""

    experts: Annotated[
        Count | Annotated[list[Interaction], Field(min_length=1)],
        Field(description="number of shared experts that are MLPs, or interaction modules in their place"),
    ] = 4
    expert_hidden: Annotated[Widths, Field(description="widths of each MLP expert's layers (ReLU)")] = [128]
    expert_sets: Annotated[
        Count | None,
        Field(description="how often the list of interaction modules is repeated; null: tasks + 1, as often as in DTN"),
    ] = None
    module_dim: Annotated[Count, Field(description="output width of interaction modules")] = 64
    gate_hidden: Annotated[Widths, Field(description="hidden widths of each gate's MLP (ReLU); [] is the paper's")] = []
    gate_bias: Annotated[bool, Field(description="whether the last map of each gate has a bias")] = False
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


@MODELS.register("MMoE", paper="Ma et al., KDD 2018")
class MMoE(MultiTaskRecommender):
    """Shared experts, one softmax gate and one tower per task.

    ``h_t = sum_k softmax(W_t x)_k E_k(x);  logit_t = tower_t(h_t)`` (eq. 6-8). Published code has gates with hidden
    layers, ``softmax(W_t MLP_t(x) + b_t)``: ``gate_hidden`` and ``gate_bias``.

    With ``experts: [gdcn, masknet, memonet]`` the experts are interaction modules of the embeddings, each the linear
    output of width ``module_dim`` that it has in :class:`~recbole_dtn.model.dtn.DTN`; x is the flat embedding. All
    tasks read all of them, so that by default it is DTN's list of modules without owners.
    """

    settings_class: ClassVar = MMoESettings
    width_options = ("expert_hidden", "module_dim", "gate_hidden", "tower_hidden")

    def build(self, settings: MMoESettings, schema: DataSchema) -> None:
        """The embedding, K experts, T gates and T towers."""
        experts: Experts | InteractionSets
        if isinstance(settings.experts, int):
            if settings.expert_sets is not None:
                raise UsageError(
                    f"expert_sets: it repeats interaction modules, but experts={settings.experts} are MLPs: give "
                    "experts a list such as [gdcn, masknet], or set expert_sets: null"
                )
            width = self.new_input()
            experts = Experts(width, settings.expert_hidden, count=settings.experts, dropout=settings.dropout)
            names = tuple(f"expert{k}" for k in range(settings.experts))
        else:
            self.embedding = self.new_embedding()
            width = self.flat_dim
            sets = settings.expert_sets or schema.num_tasks + 1
            experts = interaction_experts(self, settings.experts * sets, owners=1)
            names = experts.names
        self.experts = experts
        self.gates = SoftmaxGates(
            width, len(names), schema.num_tasks, hidden=settings.gate_hidden, bias=settings.gate_bias
        )
        self.towers = Towers(
            experts.output_dim, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout
        )
        self.gate_names = dict.fromkeys(schema.task_names, tuple(f"{SHARED}/{name}" for name in names))

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's weights over the experts (B, K)."""
        # Every gate reads the one group of experts, number 0.
        reads = [[0]] * self.schema.num_tasks
        auxiliary: Mapping[str, Tensor] = {}
        if isinstance(self.experts, Experts):
            x = self.input(features)
            mixed, weights = mixtures([self.experts], self.gates, reads, x)  # (B, T, H)
        else:
            embeddings = self.embedding(features)
            x = embeddings.flatten(1)
            # The experts read x too, so that its gradient is complete.
            outputs, auxiliary = self.experts([x.view_as(embeddings)], features.ids)
            weights = [*self.gates(x).unbind(1)]
            mixed = mix(weights, outputs, reads)
        gates = dict(zip(self.schema.task_names, weights, strict=True))
        return ModelOutput(logits=self.towers(mixed), gates=gates, auxiliary=auxiliary, shared=x)
