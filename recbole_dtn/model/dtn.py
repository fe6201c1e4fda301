"""DTN: task-specific feature interactions, gated in two groups, scaled along the chain of tasks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from recbole_dtn.config.models import DTNSettings, DTNVariant, resolve_chain, resolve_variant
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, WithAuxiliary
from recbole_dtn.interaction.build import build_interactions
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import Tower
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.owners import owner_names
from recbole_dtn.schema import DataSchema, topological_order

__all__ = ["DTN", "GatedGroup", "InputAffine", "PredictionScale", "TaskSelector"]


class InputAffine(nn.Module):
    """``gamma * x + beta`` per channel of the flat embeddings, starting as the identity."""

    def __init__(self, flat_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(flat_dim))
        self.beta = nn.Parameter(torch.zeros(flat_dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, F, D)."""
        return torch.addcmul(self.beta, embeddings.flatten(1), self.gamma).view_as(embeddings)


class PredictionScale(nn.Module):
    """What a task's modules are multiplied by when a later task reads them: its probability p, or p / mean(p).

    The mean is a running one (``mean <- .99 mean + .01 batch mean``, starting at the first batch's), changed in
    training only and without gradient; before any training it is 1.

    Args:
        normalised: whether to divide by the running mean. detach: whether to stop the gradient through p.
    """

    momentum = 0.01

    def __init__(self, *, normalised: bool, detach: bool) -> None:
        super().__init__()
        self.normalised = normalised
        self.detach = detach
        self.mean: Tensor
        self.started: Tensor
        if normalised:
            self.register_buffer("mean", torch.ones(()))
            self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, logit: Tensor) -> Tensor:
        """Logits (B,) -> factors (B,)."""
        probability = torch.sigmoid(logit.to(torch.promote_types(logit.dtype, torch.float32)))
        if self.detach:
            probability = probability.detach()
        if not self.normalised:
            return probability
        if self.training:
            batch = probability.detach().mean().to(self.mean.dtype)
            moved = torch.lerp(self.mean, batch, self.momentum)
            self.mean.copy_(torch.where(self.started, moved, batch))
            self.started.fill_(True)
        return probability / self.mean.clone()


class GatedGroup(nn.Module):
    """``sum_k g_k s_k F_k`` with ``g = softmax(activation(logits))`` over the M modules of a group.

    ``gate_input: embedding``: logits ``W x + b``. ``gate_input: module``: ``logit_k = w_k . (s_k F_k) + b_k``, one
    vector per module of the group, which reads the module's output after the scaling.

    Args:
        modules: M. flat_dim: width of x. module_dim: O. variant: gate input and activation.
    """

    def __init__(self, modules: int, flat_dim: int, module_dim: int, variant: DTNVariant) -> None:
        super().__init__()
        self.reads_modules = variant.gate_input == "module"
        self.relu = variant.gate_activation == "relu"
        self.gate = Linear(module_dim if self.reads_modules else flat_dim, modules)

    def forward(self, x: Tensor, outputs: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix a group.

        Args:
            x: (B, F*D). outputs: (B, M, O). scale: (B, M), or None for ones.

        Returns:
            The mix (B, O), and the weights g (B, M) before the scaling.
        """
        scaled = outputs if scale is None else outputs * scale.unsqueeze(2)
        if self.reads_modules:
            logits = torch.einsum("bko,ko->bk", scaled, self.gate.weight) + self.gate.bias
        else:
            logits = self.gate(x)
        weights = torch.softmax(torch.relu(logits) if self.relu else logits, dim=1)
        return torch.einsum("bk,bko->bo", weights, scaled), weights


class TaskSelector(nn.Module):
    """One task's choice among the modules of all owners: two gated groups {own} and {others + shared}, fused.

    Args:
        position: the task's place among the owners. owners: their number W. modules: m of each owner.
        flat_dim: width of x. module_dim: O. variant: gates and fusion.
    """

    def __init__(
        self, position: int, *, owners: int, modules: int, flat_dim: int, module_dim: int, variant: DTNVariant
    ) -> None:
        super().__init__()
        self.others = [owner for owner in range(owners) if owner != position]
        self.own = GatedGroup(modules, flat_dim, module_dim, variant)
        # A lone task without the shared owner has no second group.
        rest = modules * len(self.others)
        self.rest = GatedGroup(rest, flat_dim, module_dim, variant) if rest else None
        self.concat = variant.fusion == "concat"
        self.position = position
        self.output_dim = module_dim * (2 if self.concat and rest else 1)

    def forward(self, x: Tensor, outputs: list[Tensor], scales: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Select.

        Args:
            x: (B, F*D). outputs: (B, m, O) per owner. scales: (B,) per owner that is a direct predecessor.

        Returns:
            (B, O) or (B, 2*O) for the tower, and the weights (B, W*m): own modules first, then the other owners'.
        """
        own, own_weights = self.own(x, outputs[self.position], None)
        if self.rest is None:
            return own, own_weights
        modules = torch.cat([outputs[owner] for owner in self.others], dim=1)
        rest, rest_weights = self.rest(x, modules, self._scale(outputs, scales))
        fused = torch.cat([own, rest], dim=1) if self.concat else own + rest
        return fused, torch.cat([own_weights, rest_weights], dim=1)

    def _scale(self, outputs: list[Tensor], scales: Mapping[int, Tensor]) -> Tensor | None:
        if not scales:
            return None
        one = next(iter(scales.values())).new_ones(())
        columns = [scales.get(owner, one) for owner in self.others]
        batch, count, _ = outputs[self.position].shape
        return torch.stack([column.expand(batch) for column in columns], 1).repeat_interleave(count, dim=1)


class DTN(MultiTaskRecommender):
    """Deep multiple task-specific feature interactions network (arXiv 2408.11611).

    Every owner o (a task, or S that is shared) has its own modules ``F_{o,j}(x)``, read by all tasks. Task t, in the
    order of the chain, fuses ``GN(own)`` with ``TSN(others + shared)`` and ends in its tower; ``GN`` is a
    softmax-gated sum, and TSN scales the modules of each direct predecessor by that predecessor's prediction.
    ``variant: released`` is the authors' code (METHODS §1.2).
    """

    def build(self, settings: DTNSettings, schema: DataSchema) -> None:
        """The embedding, each owner's modules, and each task's selector, scale and tower."""
        variant = resolve_variant(settings)
        chain = resolve_chain(settings, schema)
        tasks = schema.task_names
        self.owners = owner_names(schema, shared=settings.use_shared)
        self.order = [tasks.index(name) for name in topological_order(chain)]
        self.predecessors = [
            [tasks.index(before) for before in chain[name]] if settings.use_tsn else [] for name in tasks
        ]
        self.aux_weight = settings.aux_weight

        self.embedding = self.new_embedding()
        self.affine = InputAffine(self.flat_dim) if settings.input_affine else None
        built = [
            build_interactions(settings.interactions, self.field_shape(), settings.module_dim) for _ in self.owners
        ]
        if not settings.interactions:
            raise UsageError("interactions: DTN needs at least one interaction module, such as [gdcn]")
        self.interactions = nn.ModuleList(built)
        selectors = [
            TaskSelector(
                position,
                owners=len(self.owners),
                modules=len(built[0]),
                flat_dim=self.flat_dim,
                module_dim=settings.module_dim,
                variant=variant,
            )
            for position in range(len(tasks))
        ]
        self.selectors = nn.ModuleList(selectors)
        self.scales = nn.ModuleList(
            PredictionScale(normalised=settings.tsn_scale == "normalised", detach=variant.tsn_detach) for _ in tasks
        )
        self.towers = nn.ModuleList(
            Tower(selector.output_dim, settings.tower_hidden, dropout=settings.dropout) for selector in selectors
        )
        for task in tasks:
            read = (task, *(owner for owner in self.owners if owner != task))
            self.gate_names[task] = tuple(f"{owner}/{name}" for owner in read for name in built[0])
        if not settings.fused:
            set_fused(self, False)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's weights over all modules (two groups, each summing to 1)."""
        embeddings = self.embedding(features)
        x = embeddings.flatten(1)
        outputs, auxiliary = self._interact(embeddings, features.ids)
        logits: dict[int, Tensor] = {}
        factors: dict[int, Tensor] = {}
        gates: dict[str, Tensor] = {}
        needed = {before for many in self.predecessors for before in many}
        for task in self.order:
            scales = {before: factors[before] for before in self.predecessors[task]}
            fused, gates[self.owners[task]] = self.selectors[task](x, outputs, scales)
            logits[task] = self.towers[task](fused)
            if task in needed:
                factors[task] = self.scales[task](logits[task])
        return ModelOutput(
            logits=torch.stack([logits[task] for task in sorted(logits)], dim=1),
            gates={name: gates[name] for name in self.schema.task_names},
            auxiliary=auxiliary,
        )

    def _interact(self, embeddings: Tensor, ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Outputs (B, m, O) per owner, and the modules' own losses; what modules share is prepared once."""
        shared: dict[Hashable, Any] = {}
        losses: list[Tensor] = []
        affine = embeddings if self.affine is None else self.affine(embeddings)

        def run(module: FeatureInteraction) -> Tensor:
            key = module.share_key()
            if key not in shared:
                shared[key] = module.prepare(ids)
            found: Tensor | WithAuxiliary = module(embeddings if module.reads_ids else affine, ids, shared[key])
            if isinstance(found, WithAuxiliary):
                losses.append(found.loss)
                found = found.output
            if found.shape != (len(ids), module.output_dim):
                raise UsageError(
                    f"interaction {type(module).__name__}: expected an output of shape ({len(ids)}, "
                    f"{module.output_dim}), rows x module_dim; found {tuple(found.shape)}: its last layer must have "
                    "output_dim columns (recbole_dtn.testing.check_interaction shows the rest)"
                )
            return found

        outputs = [
            torch.stack([run(cast(FeatureInteraction, module)) for module in owned.children()], dim=1)
            for owned in self.interactions
        ]
        if not losses or not self.aux_weight:
            return outputs, {}
        return outputs, {"interactions": self.aux_weight * torch.stack(losses).sum()}
