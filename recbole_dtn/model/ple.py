"""PLE, and CGC, which is PLE with one level (Tang et al., RecSys 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Interaction, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.kernels.mixtures import mix
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.mixture import mixtures
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.interaction_sets import InteractionSets, interaction_experts
from recbole_dtn.model.owners import owner_names
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["CGC", "PLE", "CGCSettings", "ExtractionLevel", "PLESettings"]


class ExtractionLevel(nn.Module):
    """One level of PLE (eq. 1-6): each owner's experts read the owner's own input; gates read it too.

    Task t mixes ``[own experts, shared experts]``; the shared gate mixes ALL experts of the level
    ``[task 1's, ..., task T's, shared]``. It is absent on the last level, where nothing reads its mix.
    ``shared_gate: shared``, as in published code, mixes the shared experts alone.

    Args:
        input_dim: I. experts: a group per owner, tasks in order and the shared owner last. last: whether this is the
            last level.
        gate_hidden, gate_bias: of every gate. shared_gate: ``all`` or ``shared``.
    """

    def __init__(
        self,
        input_dim: int,
        experts: Sequence[Experts] | InteractionSets,
        *,
        last: bool,
        gate_hidden: Sequence[int] = (),
        gate_bias: bool = False,
        shared_gate: Literal["all", "shared"] = "all",
    ) -> None:
        super().__init__()
        # Group t holds the experts of task t, group T the shared ones; ``reads`` names groups.
        tasks = len(experts) - 1
        if isinstance(experts, InteractionSets):
            counts, self.output_dim = [len(experts.names)] * len(experts), experts.output_dim
        else:
            counts, self.output_dim = [group.count for group in experts], experts[0].output_dim
        self.experts = experts if isinstance(experts, InteractionSets) else nn.ModuleList(experts)
        self.reads = [[task, tasks] for task in range(tasks)]

        def new_gate(read: Sequence[int]) -> SoftmaxGate:
            return SoftmaxGate(input_dim, sum(counts[group] for group in read), hidden=gate_hidden, bias=gate_bias)

        self.gates = nn.ModuleList(new_gate(read) for read in self.reads)
        self.shared_gate: SoftmaxGate | None = None
        if not last:
            self.reads.append([*range(tasks + 1)] if shared_gate == "all" else [tasks])
            self.shared_gate = new_gate(self.reads[-1])

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """A level of MLP experts.

        Args:
            inputs: (B, I) per owner, tasks in order and the shared owner last.

        Returns:
            The mixes (B, owners, H): of each task, then (but on the last level) of the shared owner; and each task's
            weights (B, own + shared experts).
        """
        mixed, weights = mixtures([*self.experts], self._all_gates(), self.reads, inputs)
        return mixed, weights[: len(self.gates)]

    def interact(self, embeddings: Tensor, ids: Tensor) -> tuple[Tensor, list[Tensor], Mapping[str, Tensor]]:
        """A first level whose experts are interaction modules; its gates read the flat embeddings.

        Args:
            embeddings: (B, F, D). ids: (B, F).

        Returns:
            As :meth:`forward`, and the modules' own losses.
        """
        outputs, losses = self.experts([embeddings] * len(self.experts), ids)
        flat = embeddings.flatten(1)
        weights = [gate(flat) for gate in self._all_gates()]
        return mix(weights, outputs, self.reads), weights[: len(self.gates)], losses

    def _all_gates(self) -> list[SoftmaxGate]:
        # The shared gate last, in the order of ``reads`` and of the mixes.
        return [*self.gates] if self.shared_gate is None else [*self.gates, self.shared_gate]


class PLESettings(Settings):
    """Settings of :class:`PLE`; one level is CGC."""

    levels: Annotated[Count, Field(description="extraction levels; 1 is CGC")] = 1
    shared_experts: Annotated[Count, Field(description="shared experts per level")] = 2
    task_experts: Annotated[Count, Field(description="experts of each task per level")] = 2
    expert_hidden: Annotated[Widths, Field(description="widths of each MLP expert's layers (ReLU)")] = [128]
    experts: Annotated[
        Annotated[list[Interaction], Field(min_length=1)] | None,
        Field(
            description="interaction modules of every task and of the shared owner, on the first level in place of its "
            "MLPs; null: MLPs"
        ),
    ] = None
    module_dim: Annotated[Count, Field(description="output width of interaction modules")] = 64
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

    Levels of gated experts (:class:`ExtractionLevel`), then towers: ``logit_t = tower_t(h_t^L)``. ``gates`` are those
    of the last level, which the towers read.

    With ``experts: [gdcn, masknet, memonet]`` every task, and the shared owner, has these interaction modules as its
    experts of the first level, as in :class:`~recbole_dtn.model.dtn.DTN`; gates read the flat embeddings. The levels
    above it have MLP experts: an interaction reads the embeddings of fields, and these levels read mixes.
    """

    settings_class: ClassVar[type[PLESettings]] = PLESettings
    width_options = ("expert_hidden", "module_dim", "gate_hidden", "tower_hidden")

    def build(self, settings: PLESettings, schema: DataSchema) -> None:
        """The embedding, the levels and T towers."""
        owners = owner_names(schema, shared=True)
        if settings.experts is None:
            width = self.new_input()
        else:
            self.embedding = self.new_embedding()
            width = self.flat_dim
        counts = [settings.task_experts] * schema.num_tasks + [settings.shared_experts]
        self.levels = nn.ModuleList()
        for level in range(settings.levels):
            experts: Sequence[Experts] | InteractionSets
            if level == 0 and settings.experts is not None:
                experts = interaction_experts(self, settings.experts, owners=len(owners))
                names = [experts.names] * len(owners)
            else:
                experts = [
                    Experts(width, settings.expert_hidden, count=count, dropout=settings.dropout) for count in counts
                ]
                names = [tuple(f"expert{k}" for k in range(count)) for count in counts]
            extraction = ExtractionLevel(
                width,
                experts,
                last=level == settings.levels - 1,
                gate_hidden=settings.gate_hidden,
                gate_bias=settings.gate_bias,
                shared_gate=settings.shared_gate,
            )
            self.levels.append(extraction)
            width = extraction.output_dim
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)
        *own, shared = [tuple(f"{owner}/{name}" for name in of) for owner, of in zip(owners, names, strict=True)]
        self.gate_names = {task: first + shared for task, first in zip(owners, own, strict=False)}

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's last weights over its own and the shared experts."""
        first, *rest = self.levels
        auxiliary: Mapping[str, Tensor] = {}
        if self.settings.experts is None:
            x = self.input(features)
            # One tensor for all owners of the first level: ``mixtures`` then joins their products.
            mixed, weights = first([x] * (self.schema.num_tasks + 1))
        else:
            embeddings = self.embedding(features)
            x = embeddings.flatten(1)
            # The modules read x too, so that its gradient is complete.
            mixed, weights, auxiliary = cast(ExtractionLevel, first).interact(x.view_as(embeddings), features.ids)
        for level in rest:
            # ``mixed`` (B, T + 1, H), after the last level (B, T, H).
            mixed, weights = level(mixed.unbind(1))
        return ModelOutput(
            logits=self.towers(mixed),
            gates=dict(zip(self.schema.task_names, weights, strict=True)),
            auxiliary=auxiliary,
            shared=x,
        )


class CGCSettings(PLESettings):
    """Settings of :class:`CGC`: those of PLE, with one level."""

    levels: Annotated[Literal[1], Field(description="extraction levels: CGC has one")] = 1


@MODELS.register("CGC", paper="Tang et al., RecSys 2020")
class CGC(PLE):
    """Customized gate control: shared and task-specific experts in one layer (PLE with one level).

    ``h_t = sum_k softmax(W_t x)_k E_k(x)`` over task t's own and the shared experts; ``logit_t = tower_t(h_t)``.
    """

    settings_class: ClassVar = CGCSettings
