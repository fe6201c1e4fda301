"""DTN, the deep multiple task-specific feature interactions network (arXiv 2408.11611)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Interaction, NonNegative, Positive, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import Tower
from recbole_dtn.layers.processes import mean_of_processes
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.interaction_sets import InteractionSets
from recbole_dtn.model.owners import owner_names
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema, topological_order

__all__ = ["DTN", "DTNSettings", "DTNVariant", "GatedGroup", "InputAffine", "PredictionScale", "TaskSelector"]

Fusion = Literal["concat", "sum"]
GateInput = Literal["embedding", "module"]
GateActivation = Literal["none", "relu"]


class DTNSettings(Settings):
    """Settings of :class:`DTN`. Those that all models have were chosen on validation (docs/defaults.md)."""

    shared_defaults: ClassVar = {"optimizer": {"lr": 0.002}}

    # Values of the options that are null, by ``variant``; Settings.effective fills them in.
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "variant": {
            "paper": {"fusion": "concat", "gate_input": "embedding", "gate_activation": "none", "tsn_detach": False},
            "released": {"fusion": "sum", "gate_input": "module", "gate_activation": "relu", "tsn_detach": True},
        }
    }

    variant: Annotated[
        Literal["paper", "released"],
        Field(
            description="the paper, or the authors' released code; sets fusion, gate_input, gate_activation and "
            "tsn_detach where they are null"
        ),
    ] = "paper"
    interactions: Annotated[
        list[Interaction],
        Field(
            min_length=1,
            validate_default=True,
            description="modules of each task and of the shared set; options as {name: masknet, blocks: 3}; repeats "
            "allowed",
        ),
    ] = ["gdcn", "masknet", "memonet"]  # type: ignore[list-item]
    module_dim: Annotated[Count, Field(description="common output width O of the modules")] = 64
    use_shared: Annotated[bool, Field(description="whether there is a shared set of modules too")] = True
    use_tsn: Annotated[bool, Field(description="whether a predecessor's prediction scales its modules (TSN)")] = True
    fusion: Annotated[Fusion | None, Field(description="concat (paper) or sum (released) of the two gated groups")] = (
        None
    )
    gate_input: Annotated[GateInput | None, Field(description="embedding (paper) or module (released)")] = None
    gate_activation: Annotated[
        GateActivation | None, Field(description="none (paper) or relu (released), before the softmax")
    ] = None
    tsn_detach: Annotated[
        bool | None,
        Field(description="stop the gradient through the predecessor's prediction: false (paper), true (released)"),
    ] = None
    tsn_scale: Annotated[
        Literal["raw", "normalised"], Field(description="raw, or normalised (prediction / its running mean)")
    ] = "raw"
    task_chain: Annotated[
        Literal["dataset"] | dict[str, list[str]],
        Field(description="dataset: the tasks' `after`; or a map {purchase: [click]}"),
    ] = "dataset"
    input_affine: Annotated[
        bool,
        Field(description="learned scale and shift per channel of what the interactions read, all but MemoNet"),
    ] = False
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]
    embedding_std: Annotated[
        Positive,
        Field(description="of the initial embeddings; smaller than for other models, as the modules multiply them"),
    ] = 0.01
    embedding_l2: Annotated[
        NonNegative,
        Field(
            description="L2 of the rows that a batch looks up; larger than for other models, since DTN overfits small "
            "data sooner"
        ),
    ] = 0.01


@dataclass(frozen=True)
class DTNVariant:
    """The four choices in which the authors' code differs from the paper (docs/dtn.md)."""

    fusion: Fusion
    gate_input: GateInput
    gate_activation: GateActivation
    tsn_detach: bool


def task_chain(settings: DTNSettings, schema: DataSchema) -> dict[str, tuple[str, ...]]:
    """Direct predecessors of every task: the tasks' ``after``, or the map ``task_chain`` in its place.

    Raises:
        UsageError: for a name that is not a task, a cycle, or (with TSN) a predecessor without a probability.
    """
    if settings.task_chain == "dataset":
        chain = {task.name: task.after for task in schema.tasks}
    else:
        for name in (*settings.task_chain, *(each for many in settings.task_chain.values() for each in many)):
            if name not in schema.task_names:
                raise UsageError(f"task_chain: {name!r} is not a task: {nearest(name, schema.task_names)}")
        chain = {name: tuple(settings.task_chain.get(name, ())) for name in schema.task_names}
    # Raises for a cycle; the order itself is found again in ``build``.
    topological_order(chain)
    if settings.use_tsn:
        scaling = {predecessor for many in chain.values() for predecessor in many}
        for task in schema.tasks:
            if task.name in scaling and task.kind != "binary":
                raise UsageError(
                    f"task_chain: {task.name!r} comes before another task, but is a {task.kind} task: TSN scales by a "
                    "probability. Leave it out of the chain by task_chain, or set use_tsn: false"
                )
    return chain


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
    """The factor of a task's modules where a later task reads them: the task's probability p, or p / mean(p).

    mean(p) is a running mean: ``mean <- .99 mean + .01 batch mean``. It starts at the mean of the first batch, changes
    in training only, and has no gradient. It is 1 before any training.

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
        # At least float32: under autocast a small probability would lose its digits.
        probability = torch.sigmoid(logit.to(torch.promote_types(logit.dtype, torch.float32)))
        if self.detach:
            probability = probability.detach()
        if not self.normalised:
            return probability
        if self.training:
            batch = mean_of_processes(probability.detach().mean().to(self.mean.dtype))
            moved = torch.lerp(self.mean, batch, self.momentum)
            # Chosen by a tensor, not by ``if``: a GPU is not waited for, and a compiler sees one graph.
            self.mean.copy_(torch.where(self.started, moved, batch))
            self.started.fill_(True)
        # A copy, as autograd keeps the divisor, and the next forward changes the buffer in place.
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
        # Scaled first: with ``gate_input: module`` the gate reads the scaled outputs.
        scaled = outputs if scale is None else outputs * scale.unsqueeze(2)
        if self.reads_modules:
            # Row k of the gate's weight (M, O) is the vector w_k of module k.
            logits = torch.einsum("bko,ko->bk", scaled, self.gate.weight) + self.gate.bias
        else:
            logits = self.gate(x)
        weights = torch.softmax(torch.relu(logits) if self.relu else logits, dim=1)
        return torch.einsum("bk,bko->bo", weights, scaled), weights


class TaskSelector(nn.Module):
    """One task's choice among the modules of all owners: two gated groups {own} and {others + shared}.

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
        mixed = torch.cat([own, rest], dim=1) if self.concat else own + rest
        return mixed, torch.cat([own_weights, rest_weights], dim=1)

    def _scale(self, outputs: list[Tensor], scales: Mapping[int, Tensor]) -> Tensor | None:
        if not scales:
            return None
        one = next(iter(scales.values())).new_ones(())
        # (B, W - 1), 1 for an owner that is not a direct predecessor; then one column per module of each owner.
        columns = [scales.get(owner, one) for owner in self.others]
        batch, count, _ = outputs[self.position].shape
        return torch.stack([column.expand(batch) for column in columns], 1).repeat_interleave(count, dim=1)


@MODELS.register("DTN", paper="Deep Multiple Task-specific Feature Interactions Network, arXiv 2408.11611")
class DTN(MultiTaskRecommender):
    """Task-specific interaction modules, selected by gates and a task-sensitive network.

    Every owner o (a task, or the shared owner S) has its own modules ``F_{o,j}(x)``, which all tasks read. The tasks
    are computed in the order of the chain. Task t combines ``GN(own)`` and ``TSN(others + shared)`` (setting
    ``fusion``: concatenation or sum); the result is the input of its tower. ``GN`` is a softmax-gated sum. TSN scales
    the modules of each direct predecessor by that predecessor's prediction. ``variant: released`` is the authors' code
    (docs/dtn.md).
    """

    settings_class: ClassVar = DTNSettings
    width_options = ("module_dim", "tower_hidden")

    def build(self, settings: DTNSettings, schema: DataSchema) -> None:
        """The embedding, each owner's modules, and each task's selector, scale and tower."""
        values = settings.effective()
        variant = DTNVariant(**{field.name: values[field.name] for field in fields(DTNVariant)})
        chain = task_chain(settings, schema)
        tasks = schema.task_names
        if settings.shared_interaction is not None:
            raise UsageError(
                "shared_interaction: DTN has modules of its own for every task and a shared one: set interactions and "
                "use_shared, or choose another model"
            )
        self.owners = owner_names(schema, shared=settings.use_shared)
        # The order in which ``forward`` computes the tasks; columns of the logits stay in the schema's.
        self.order = [tasks.index(name) for name in topological_order(chain)]
        self.predecessors = [
            [tasks.index(before) for before in chain[name]] if settings.use_tsn else [] for name in tasks
        ]

        # Parts are created in the order embedding, affine, modules, selectors, scales, towers: a seed's weights depend
        # on it.
        self.embedding = self.new_embedding()
        self.affine = InputAffine(self.flat_dim) if settings.input_affine else None
        sets = InteractionSets(
            settings.interactions,
            self.field_shape(),
            settings.module_dim,
            owners=len(self.owners),
            aux_weight=settings.aux_weight,
        )
        self.interactions = sets
        selectors = [
            TaskSelector(
                position,
                owners=len(self.owners),
                modules=len(sets.names),
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
            self.gate_names[task] = tuple(f"{owner}/{name}" for owner in read for name in sets.names)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's weights over all modules (two groups, each summing to 1)."""
        embeddings = self.embedding(features)
        x = embeddings.flatten(1)
        embeddings = x.view_as(embeddings)  # the modules read x too, so that its gradient is complete
        owners = len(self.owners)
        scaled = embeddings if self.affine is None else self.affine(embeddings)
        outputs, auxiliary = self.interactions([scaled] * owners, features.ids, raw=[embeddings] * owners)
        logits: dict[int, Tensor] = {}
        factors: dict[int, Tensor] = {}
        gates: dict[str, Tensor] = {}
        # Only these tasks' probabilities are read by a later task.
        needed = {before for many in self.predecessors for before in many}
        for task in self.order:
            scales = {before: factors[before] for before in self.predecessors[task]}
            mixed, gates[self.owners[task]] = self.selectors[task](x, outputs, scales)
            logits[task] = self.towers[task](mixed)
            if task in needed:
                factors[task] = self.scales[task](logits[task])
        return ModelOutput(
            logits=torch.stack([logits[task] for task in sorted(logits)], dim=1),
            gates={name: gates[name] for name in self.schema.task_names},
            auxiliary=auxiliary,
            shared=x,
        )
