"""AdaTT, adaptive task-to-task fusion (Li et al., KDD 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.kernels.choice import are_fused
from recbole_dtn.layers.experts import Experts, run_together
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.owners import owner_names
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["AdaTT", "AdaTTSettings", "FusionLevel"]


class FusionLevel(nn.Module):
    """One level: ``h_t <- sum_e softmax(W_t h_t + b_t)_e E_e + sum_{e native of t} v_te E_e``.

    The sum with the gate is over the experts of all units, in the order of the units; an expert reads the h of its own
    unit. v is free, without a softmax, and starts at U(-1 / sqrt(m), 1 / sqrt(m)) for a unit of m experts. Where every
    unit has one expert, v is 1 and not trained.

    Args:
        input_dim: width of h. hidden: widths of an expert. counts: native experts of each unit. mixed: units that have
            a gate, the first ones; the others have experts alone. dropout: inside the experts.
    """

    ones: Tensor

    def __init__(
        self, input_dim: int, hidden: Sequence[int], *, counts: Sequence[int], mixed: int, dropout: float
    ) -> None:
        super().__init__()
        groups = [Experts(input_dim, hidden, count=count, dropout=dropout) for count in counts]
        self.experts = nn.ModuleList(groups)
        self.output_dim = groups[0].output_dim
        self.gates = nn.ModuleList(SoftmaxGate(input_dim, sum(counts), bias=True) for _ in range(mixed))
        self.native = nn.ParameterList()
        if max(counts) > 1:
            for count in counts[:mixed]:
                bound = 1.0 / math.sqrt(count)
                self.native.append(nn.Parameter(torch.empty(count).uniform_(-bound, bound)))
        self.foreign = sum(counts[mixed:])
        # v where it is not trained. It follows from the sizes, so that no checkpoint needs it.
        self.register_buffer("ones", torch.eye(mixed, sum(counts)), persistent=False)

    def own_weights(self) -> Tensor:
        """v in the columns of each unit's own experts, 0 in the others: (gated units, experts)."""
        if not self.native:
            return self.ones
        blocks = torch.block_diag(*[own.unsqueeze(0) for own in self.native])  # type: ignore[no-untyped-call]
        # The experts of units without a gate come last.
        return functional.pad(blocks, (0, self.foreign))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One level.

        Args:
            inputs: h of each unit, (B, I).

        Returns:
            The new h of the units with a gate, (B, units, H), and their softmax weights (B, experts).
        """
        groups = [group for group in self.experts if isinstance(group, Experts)]
        # On the first level all units read x: one product for all experts.
        if are_fused(*groups) and all(each is inputs[0] for each in inputs):
            outputs = run_together(groups, inputs[0])
        else:
            outputs = [group(h) for group, h in zip(groups, inputs, strict=True)]
        weights = [gate(h) for gate, h in zip(self.gates, inputs, strict=False)]
        # A new tensor: the weights that are returned stay those of the softmax.
        total = torch.stack(weights, dim=1) + self.own_weights()
        return torch.bmm(total, torch.cat(outputs, dim=1)), weights


class AdaTTSettings(Settings):
    """Settings of :class:`AdaTT`. The authors have two levels."""

    form: Annotated[
        Literal["sp", "general"], Field(description="units: sp, one per task; general, a shared unit too")
    ] = "sp"
    levels: Annotated[Count, Field(description="fusion levels")] = 1
    task_experts: Annotated[Count, Field(description="native experts of each task per level")] = 1
    shared_experts: Annotated[Count, Field(description="experts of the shared unit per level (general)")] = 1
    expert_hidden: Annotated[Widths, Field(description="widths of each expert's layers (ReLU)")] = [128]
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


@MODELS.register("AdaTT", paper="Li et al., KDD 2023 (arXiv 2304.04959)")
class AdaTT(MultiTaskRecommender):
    """Levels in which every task adds a gated mix of all tasks' experts to a free combination of its own.

    ``h_t^0 = x``; levels as :class:`FusionLevel`, in which an expert is a perceptron with a ReLU after every layer, the
    last too; ``logit_t = tower_t(h_t^L)``. With one native expert per unit the second sum is that expert's output:
    ``h_t <- gated mix + E_t``.

    ``form: general`` has a shared unit beside the tasks', with experts on every level; its own mix is absent on the
    last one, where nothing reads it. ``gates`` are the softmax weights of the last level, without v.
    """

    settings_class: ClassVar = AdaTTSettings
    width_options = ("expert_hidden", "tower_hidden")
    min_tasks: ClassVar[int] = 2

    def build(self, settings: AdaTTSettings, schema: DataSchema) -> None:
        """The embedding, the levels and T towers."""
        general = settings.form == "general"
        owners = owner_names(schema, shared=general)
        counts = [settings.task_experts] * schema.num_tasks + [settings.shared_experts] * general
        width = self.new_input()
        self.levels = nn.ModuleList()
        for number in range(1, settings.levels + 1):
            level = FusionLevel(
                width,
                settings.expert_hidden,
                counts=counts,
                mixed=schema.num_tasks if number == settings.levels else len(counts),
                dropout=settings.dropout,
            )
            self.levels.append(level)
            width = level.output_dim
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)
        self.units = len(counts)
        names = tuple(f"{owner}/expert{k}" for owner, count in zip(owners, counts, strict=True) for k in range(count))
        self.gate_names = dict.fromkeys(schema.task_names, names)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's last softmax weights over all experts."""
        x = self.input(features)
        inputs: Sequence[Tensor] = [x] * self.units
        for level in self.levels:
            mixed, weights = level(inputs)
            inputs = mixed.unbind(1)
        gates = dict(zip(self.schema.task_names, weights, strict=True))
        return ModelOutput(self.towers(mixed), gates=gates, shared=x)
