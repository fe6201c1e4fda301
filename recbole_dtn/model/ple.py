"""PLE, and CGC, which is PLE with one level (Tang et al., RecSys 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.mixture import mixtures
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.owners import SHARED, owner_names
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["PLE", "ExtractionLevel", "PLESettings"]


class ExtractionLevel(nn.Module):
    """One level of PLE (eq. 1-6): each owner's experts read the owner's own input; gates read it too.

    Task t mixes ``[own experts, shared experts]``; the shared gate mixes ALL experts of the level
    ``[task 1's, ..., task T's, shared]``. It is absent on the last level, where nothing reads its mix.
    ``shared_gate: shared``, as in published code, mixes the shared experts alone.

    Args:
        input_dim: I. hidden: widths of an expert. tasks: T. task_experts: experts of each task.
        shared_experts: shared ones. last: whether this is the last level. dropout: inside the experts.
        gate_hidden, gate_bias: of every gate. shared_gate: ``all`` or ``shared``.
    """

    def __init__(
        self,
        input_dim: int,
        hidden: Sequence[int],
        *,
        tasks: int,
        task_experts: int,
        shared_experts: int,
        last: bool,
        dropout: float,
        gate_hidden: Sequence[int] = (),
        gate_bias: bool = False,
        shared_gate: Literal["all", "shared"] = "all",
    ) -> None:
        super().__init__()
        # Group t holds the experts of task t, group T the shared ones; ``reads`` names groups.
        counts = [task_experts] * tasks + [shared_experts]
        experts = [Experts(input_dim, hidden, count=count, dropout=dropout) for count in counts]
        self.experts = nn.ModuleList(experts)
        self.reads = [[task, tasks] for task in range(tasks)]

        def new_gate(choices: int) -> SoftmaxGate:
            return SoftmaxGate(input_dim, choices, hidden=gate_hidden, bias=gate_bias)

        self.gates = nn.ModuleList(new_gate(task_experts + shared_experts) for _ in range(tasks))
        self.shared_gate: SoftmaxGate | None = None
        if not last:
            self.reads.append([*range(tasks + 1)] if shared_gate == "all" else [tasks])
            self.shared_gate = new_gate(sum(counts[group] for group in self.reads[-1]))
        self.output_dim = experts[0].output_dim

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One level.

        Args:
            inputs: (B, I) per owner, tasks in order and the shared owner last.

        Returns:
            The mixes (B, owners, H): of each task, then (but on the last level) of the shared owner; and each task's
            weights (B, own + shared experts).
        """
        # The shared gate last, in the order of ``reads`` and of the mixes.
        gates = [*self.gates] if self.shared_gate is None else [*self.gates, self.shared_gate]
        mixed, weights = mixtures([*self.experts], gates, self.reads, inputs)
        return mixed, weights[: len(self.gates)]


class PLESettings(Settings):
    """Settings of :class:`PLE`; one level is CGC."""

    levels: Annotated[Count, Field(description="extraction levels; 1 is CGC")] = 1
    shared_experts: Annotated[Count, Field(description="shared experts per level")] = 2
    task_experts: Annotated[Count, Field(description="experts of each task per level")] = 2
    expert_hidden: Annotated[Widths, Field(description="widths of each expert's layers (ReLU)")] = [128]
    gate_hidden: Annotated[Widths, Field(description="hidden widths of each gate's MLP (ReLU); [] is the paper's")] = []
    gate_bias: Annotated[bool, Field(description="whether the last map of each gate has a bias")] = False
    shared_gate: Annotated[
        Literal["all", "shared"],
        Field(description="experts of a level that the shared gate mixes: all (paper) or shared (published code)"),
    ] = "all"
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


@MODELS.register("PLE", paper="Tang et al., RecSys 2020")
class PLE(MultiTaskRecommender):
    """Shared and task-specific experts in progressive layers (one level: CGC).

    Levels of gated experts, then towers: ``logit_t = tower_t(h_t^L)``. ``gates`` are those of the last level, which
    the towers read.
    """

    settings_class: ClassVar = PLESettings

    def build(self, settings: PLESettings, schema: DataSchema) -> None:
        """The embedding, the levels and T towers."""
        owners = owner_names(schema, shared=True)
        width = self.new_input()
        self.levels = nn.ModuleList()
        for level in range(settings.levels):
            extraction = ExtractionLevel(
                width,
                settings.expert_hidden,
                tasks=schema.num_tasks,
                task_experts=settings.task_experts,
                shared_experts=settings.shared_experts,
                last=level == settings.levels - 1,
                dropout=settings.dropout,
                gate_hidden=settings.gate_hidden,
                gate_bias=settings.gate_bias,
                shared_gate=settings.shared_gate,
            )
            self.levels.append(extraction)
            width = extraction.output_dim
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)
        shared = tuple(f"{SHARED}/expert{k}" for k in range(settings.shared_experts))
        self.gate_names = {
            task: tuple(f"{task}/expert{k}" for k in range(settings.task_experts)) + shared for task in owners[:-1]
        }

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's last weights over its own and the shared experts."""
        x = self.input(features)
        # One tensor for all owners of the first level: ``mixtures`` then joins their products.
        inputs: Sequence[Tensor] = [x] * (self.schema.num_tasks + 1)
        for level in self.levels:
            # ``mixed`` (B, T + 1, H), on the last level (B, T, H).
            mixed, weights = level(inputs)
            inputs = mixed.unbind(1)
        return ModelOutput(
            logits=self.towers(mixed),
            gates=dict(zip(self.schema.task_names, weights, strict=True)),
            shared=x,
        )
