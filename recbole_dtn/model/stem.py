"""STEM, shared and task-specific embeddings (Su et al., AAAI 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.owners import owner_names
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["STEM", "STEMLevel", "STEMSettings"]


class STEMSettings(Settings):
    """Settings of :class:`STEM`. The authors' experts are [512, 256, 128]."""

    levels: Annotated[Count, Field(description="levels of experts and gates")] = 1
    shared_experts: Annotated[Count, Field(description="shared experts per level")] = 1
    task_experts: Annotated[Count, Field(description="experts of each task per level")] = 1
    expert_hidden: Annotated[Widths, Field(description="widths of each expert's layers (ReLU)")] = [128]
    gate_hidden: Annotated[Widths, Field(description="hidden widths of each gate's MLP (ReLU)")] = [128, 64]
    gate_bias: Annotated[bool, Field(description="whether the last map of each gate has a bias")] = True
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


class STEMLevel(nn.Module):
    """One level: each owner's experts read its own input, each gate weighs the experts of all owners.

    Task t mixes ``sum_k softmax(gate_t(x_t + x_s))_k E_k``, where the experts of the other tasks pass no gradient back.
    The shared unit mixes ``sum_k softmax(gate_s(x_s))_k E_k`` with all gradients; it is absent on the last level, where
    nothing reads it. The experts E are in the order task 1's, ..., task T's, shared.

    Args:
        input_dim: I. hidden: widths of an expert. counts: experts of each task, in order, and shared ones last.
        gate_hidden, gate_bias: of every gate. last: whether this is the last level. dropout: inside the experts.
    """

    def __init__(
        self,
        input_dim: int,
        hidden: Sequence[int],
        *,
        counts: Sequence[int],
        gate_hidden: Sequence[int],
        gate_bias: bool,
        last: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        experts = [Experts(input_dim, hidden, count=count, dropout=dropout) for count in counts]
        self.experts = nn.ModuleList(experts)
        self.gates = nn.ModuleList(
            SoftmaxGate(input_dim, sum(counts), hidden=gate_hidden, bias=gate_bias)
            for _ in counts[: -1 if last else None]
        )
        self.output_dim = experts[0].output_dim

    def forward(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """One level.

        Args:
            inputs: (B, I) per owner, tasks in order and the shared unit last.

        Returns:
            The mixes (B, H) per task, then (but on the last level) of the shared unit; and the weights (B, K) of each.
        """
        tasks, shared = len(inputs) - 1, inputs[-1]
        outputs = [experts(x) for experts, x in zip(self.experts, inputs, strict=True)]  # (B, K_o, H) per owner
        # The input of a task's gate is its own representation plus the shared one; zip drops the shared gate on the
        # last level.
        reads = [x + shared for x in inputs[:-1]] + [shared]
        weights = [gate(x) for gate, x in zip(self.gates, reads, strict=False)]
        mixed: list[Tensor] = []
        for owner, weight in enumerate(weights):
            kept = [
                # Stopped: another task's experts. Kept: its own, and the shared ones (at index ``tasks``).
                output.detach() if owner < tasks and other not in (owner, tasks) else output
                for other, output in enumerate(outputs)
            ]
            mixed.append(torch.einsum("bk,bkh->bh", weight, torch.cat(kept, dim=1)))
        return mixed, weights


@MODELS.register("STEM", paper="Su et al., AAAI 2024 (arXiv 2308.13537)")
class STEM(MultiTaskRecommender):
    """An embedding table per task and a shared one; gates over all experts, those of other tasks without gradient.

    Owner o (a task, or s that is shared) starts with ``x_o`` from its own table. Every level mixes experts
    (:class:`STEMLevel`); ``logit_t = tower_t(h_t)``. ``gates`` are those of the last level.
    """

    settings_class: ClassVar = STEMSettings
    width_options = ("expert_hidden", "gate_hidden", "tower_hidden")

    def build(self, settings: STEMSettings, schema: DataSchema) -> None:
        """T + 1 embeddings, the levels and T towers."""
        owners = owner_names(schema, shared=True)
        width = self.new_inputs(len(owners))
        self.levels = nn.ModuleList()
        counts = [settings.task_experts] * schema.num_tasks + [settings.shared_experts]
        for number in range(1, settings.levels + 1):
            level = STEMLevel(
                width,
                settings.expert_hidden,
                counts=counts,
                gate_hidden=settings.gate_hidden,
                gate_bias=settings.gate_bias,
                last=number == settings.levels,
                dropout=settings.dropout,
            )
            self.levels.append(level)
            width = level.output_dim
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)
        names = tuple(f"{owner}/expert{k}" for owner, count in zip(owners, counts, strict=True) for k in range(count))
        self.gate_names = dict.fromkeys(schema.task_names, names)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's last weights over all experts."""
        mixed = self.inputs(features)  # (B, I) per owner
        for level in self.levels:
            mixed, weights = level(mixed)
        return ModelOutput(
            logits=self.towers(torch.stack(mixed, dim=1)),
            gates=dict(zip(self.schema.task_names, weights, strict=True)),
        )
