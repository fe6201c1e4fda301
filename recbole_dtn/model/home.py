"""HoME, a hierarchy of experts with feature gates and self gates (Wang et al., KDD 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.kernels.products import linear
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.owners import SHARED, owner_names
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["FeatureGates", "HoME", "HoMESettings", "NormedExperts", "SelfGate"]

ALL = "all_tasks"
"""Name of the group where no groups are given."""
GatedBy = Literal["expert", "owner", "none"]


class FeatureGates(Fusible):
    """``v * 2 sigmoid(v B_k A_k)`` for K gates, each of a rank r: B_k is (I, r), A_k is (r, I).

    Args:
        input_dim: I. count: K. rank: r.
    """

    def __init__(self, input_dim: int, *, count: int, rank: int) -> None:
        super().__init__()
        self.count = count
        self.down = Linear(input_dim, count * rank, bias=False)  # B of all gates side by side
        bound = rank**-0.5
        self.up = nn.Parameter(torch.empty(count, rank, input_dim).uniform_(-bound, bound))

    def forward(self, v: Tensor) -> list[Tensor]:
        """(B, I) -> K times (B, I)."""
        inner, twice = self.down(v).chunk(self.count, dim=1), 2.0 * v
        pairs = zip(inner, self.up, strict=True)
        if self.fused:
            return [twice * linear(part, weight.t(), None, "sigmoid") for part, weight in pairs]
        return [twice * torch.sigmoid(part @ weight) for part, weight in pairs]


class NormedExperts(Fusible):
    """K experts of one owner: ``E_k(v) = Swish(BN(MLP_k(Fea_k(v))))``, the MLP without an activation at its end.

    The last map of an MLP has no bias: the normalisation would take it away again, and has a shift of its own.

    Args:
        input_dim: I. hidden: widths of the MLP, at least one. count: K. feature_gate: ``expert``, a gate for each
            expert; ``owner``, one for all of them; ``none``. rank: of the feature gates. dropout: after every layer.
    """

    def __init__(
        self, input_dim: int, hidden: Sequence[int], *, count: int, feature_gate: GatedBy, rank: int, dropout: float
    ) -> None:
        super().__init__()
        self.count = count
        self.output_dim = hidden[-1]
        self.feature_gates: FeatureGates | None = None
        if feature_gate != "none":
            self.feature_gates = FeatureGates(input_dim, count=count if feature_gate == "expert" else 1, rank=rank)
        self.hidden = Experts(input_dim, hidden[:-1], count=count, dropout=dropout)
        width = self.hidden.output_dim
        bound = width**-0.5  # as nn.Linear's
        self.last = nn.Parameter(torch.empty(count, width, self.output_dim).uniform_(-bound, bound))
        # A mean and a variance for every output of every expert.
        self.norm = nn.BatchNorm1d(count * self.output_dim)
        self.dropout = Dropout(dropout)

    def forward(self, v: Tensor) -> Tensor:
        """(B, I) -> (B, K, H)."""
        gated = [v] if self.feature_gates is None else self.feature_gates(v)  # one input for all, or K of them
        if self.hidden.weights:
            h = self.hidden(gated[0]) if len(gated) == 1 else self.hidden.each(torch.stack(gated, dim=1))
            gated = [*h.unbind(1)]
        normed = self.norm(self._last_maps(gated))
        output: Tensor = self.dropout(functional.silu(normed).view(v.shape[0], self.count, -1))
        return output

    def _last_maps(self, inputs: Sequence[Tensor]) -> Tensor:
        """``h_k W_k`` of every expert, (B, K * H); from one input for all experts, or one for each."""
        weights = self.last.transpose(1, 2)  # (K, H, in)
        each = linear if self.fused else functional.linear
        if len(inputs) == 1:
            return each(inputs[0], weights.flatten(0, 1))
        # One product per map, which a CPU computes faster than a batched one.
        return torch.cat([each(h, weight) for h, weight in zip(inputs, weights, strict=True)], dim=1)


class SelfGate(nn.Module):
    """Weights of an owner's own experts, ``softmax(v B A)`` of a small rank; ``sigmoid(v B A)`` where there is one.

    Args:
        input_dim: I. choices: K. rank: of B A.
    """

    def __init__(self, input_dim: int, choices: int, *, rank: int) -> None:
        super().__init__()
        self.down = Linear(input_dim, rank, bias=False)
        self.up = Linear(rank, choices, bias=False)

    def forward(self, v: Tensor) -> Tensor:
        """(B, I) -> (B, K)."""
        logits: Tensor = self.up(self.down(v))
        return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


class HoMESettings(Settings):
    """Settings of :class:`HoME`."""

    task_groups: Annotated[
        dict[str, list[str]] | None,
        Field(description="tasks of each group, such as {watch: [long_view], act: [like, follow]}; null: one group"),
    ] = None
    meta_experts: Annotated[Count, Field(description="first level: experts of each group, and shared ones")] = 2
    task_experts: Annotated[Count, Field(description="second level: experts of each task")] = 2
    group_experts: Annotated[Count, Field(description="second level: experts of each group")] = 2
    shared_experts: Annotated[Count, Field(description="second level: shared experts")] = 2
    meta_hidden: Annotated[Widths, Field(description="first level: widths of each expert's layers")] = [128]
    expert_hidden: Annotated[Widths, Field(description="second level: widths of each expert's layers")] = [64]
    feature_gate: Annotated[
        GatedBy, Field(description="who has a feature gate of its own: every expert, every owner of experts, or none")
    ] = "expert"
    feature_rank: Annotated[Count, Field(description="rank of each feature gate")] = 16
    self_rank: Annotated[Count, Field(description="rank of each self gate")] = 16
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = []


@MODELS.register("HoME", paper="Wang et al., KDD 2025 (arXiv 2408.05430)")
class HoME(MultiTaskRecommender):
    """Two levels of normalised experts: of groups of tasks, then of tasks; gates read their own part of the hierarchy.

    An expert is ``E(v) = Swish(BN(MLP(Fea(v))))`` with a feature gate ``Fea(v) = v * 2 sigmoid(v B A)`` of a small
    rank, and BN a batch normalisation.

    First level, x the input, g a group, s the owner that all share::

        z_g = sum_k softmax(W_g x)_k E_k(x) + sum_k softmax(x B_g A_g)_k E_k(x)     over the experts of g, s + of g
        z_s = sum_k softmax(W_s x)_k E_k(x) + sum_k softmax(x B_s A_s)_k E_k(x)     over all experts + those of s

    Second level, for task t of group g, ``v = [z_g, z_s]``::

        h_t = sum_k softmax(W_t v)_k E_k(v) + sum_k softmax(v B_t A_t)_k E_k(v)     over the experts of t, g, s + of t

    and ``logit_t = tower_t(h_t)``. The second sums are the self gates, added without a weight (a sigmoid in place of
    the softmax where an owner has one expert). The second level's shared experts compute once for every group, from
    that group's v. ``gates`` are the softmax over the experts of t, g and s.

    Where re-implementations differ: ``feature_gate: owner`` has one feature gate for the experts of an owner. Depth is
    that of the other models by default, 128 and 64 in all, without hidden layers in the towers.

    The normalisation reads the whole batch in training, which needs 2 rows or more; in evaluation it has running means.
    """

    settings_class: ClassVar = HoMESettings
    width_options = ("meta_hidden", "expert_hidden", "tower_hidden")
    min_batch_rows: ClassVar[int] = 2

    def build(self, settings: HoMESettings, schema: DataSchema) -> None:
        """The embedding, two levels of experts and gates, and T towers."""
        self.groups = group_tasks(settings.task_groups, owner_names(schema, shared=False))
        for key in ("meta_hidden", "expert_hidden"):
            if not getattr(settings, key):
                raise UsageError(f"{key}: expected one layer or more, such as [64], in front of the normalisation")
        width = self._build_meta(settings, self.new_input())
        self._build_tasks(settings, 2 * width)
        self.towers = Towers(
            settings.expert_hidden[-1], settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout
        )

    def _experts(self, width: int, hidden: Sequence[int], count: int) -> NormedExperts:
        return NormedExperts(
            width,
            hidden,
            count=count,
            feature_gate=self.settings.feature_gate,
            rank=self.settings.feature_rank,
            dropout=self.settings.dropout,
        )

    def _build_meta(self, settings: HoMESettings, width: int) -> int:
        """The first level; groups in order and the shared owner last, everywhere."""
        owners, each = len(self.groups) + 1, settings.meta_experts
        self.meta_experts = nn.ModuleList(self._experts(width, settings.meta_hidden, each) for _ in range(owners))
        read = [2 * each] * (owners - 1) + [owners * each]
        self.meta_gates = nn.ModuleList(SoftmaxGate(width, count) for count in read)
        self.meta_self = nn.ModuleList(SelfGate(width, each, rank=settings.self_rank) for _ in range(owners))
        return settings.meta_hidden[-1]

    def _build_tasks(self, settings: HoMESettings, width: int) -> None:
        """The second level."""
        counts = {"task": settings.task_experts, "group": settings.group_experts, "shared": settings.shared_experts}
        hidden, tasks = settings.expert_hidden, self.schema.task_names
        self.task_experts = nn.ModuleList(self._experts(width, hidden, counts["task"]) for _ in tasks)
        self.group_experts = nn.ModuleList(self._experts(width, hidden, counts["group"]) for _ in self.groups)
        self.shared_experts = self._experts(width, hidden, counts["shared"])
        self.task_gates = nn.ModuleList(SoftmaxGate(width, sum(counts.values())) for _ in tasks)
        self.task_self = nn.ModuleList(SelfGate(width, counts["task"], rank=settings.self_rank) for _ in tasks)
        self.gate_names = {
            task: tuple(
                f"{owner}/expert{k}"
                for owner, count in zip((task, group, SHARED), counts.values(), strict=True)
                for k in range(count)
            )
            for group, members in self.groups.items()
            for task in members
        }

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's weights over its own, its group's and the shared experts."""
        x = self.input(features)
        if self.training and len(x) < self.min_batch_rows:
            raise UsageError(
                "train_batch_size: HoME normalises over the batch, and expected 2 rows or more of a training batch; "
                f"found {len(x)}"
            )
        *of_groups, of_shared = self._meta(x)
        mixed: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for number, members in enumerate(self.groups.values()):
            v = torch.cat([of_groups[number], of_shared], dim=1)  # (B, 2 H)
            common = [self.group_experts[number](v), self.shared_experts(v)]
            for name in members:
                task = self.schema.task_names.index(name)
                own = self.task_experts[task](v)
                weights[name] = self.task_gates[task](v)
                mixed[name] = _mix(weights[name], self.task_self[task](v), own, common)
        # In the order of the schema, which groups need not keep.
        read = torch.stack([mixed[name] for name in self.schema.task_names], dim=1)
        return ModelOutput(self.towers(read), gates=weights, shared=x)

    def _meta(self, x: Tensor) -> list[Tensor]:
        """z of every group, then the shared one, (B, H) each."""
        *of_groups, shared = [experts(x) for experts in self.meta_experts]
        # A group reads its own experts and the shared ones; the shared owner reads its own and those of all groups.
        reads = [*((own, [shared]) for own in of_groups), (shared, of_groups)]
        owners = zip(reads, self.meta_gates, self.meta_self, strict=True)
        return [_mix(gate(x), self_gate(x), own, others) for (own, others), gate, self_gate in owners]


def _mix(gate: Tensor, own_gate: Tensor, own: Tensor, others: Sequence[Tensor]) -> Tensor:
    """``sum_k g_k E_k`` over an owner's own experts and others, in this order, + ``sum_k s_k E_k`` over its own.

    Args:
        gate: g, (B, own + others). own_gate: s, (B, own). own, others: experts' outputs, (B, K, H).

    Returns:
        (B, H).
    """
    # Both sums are one, with weights g + s.
    weights = gate + functional.pad(own_gate, (0, gate.shape[1] - own_gate.shape[1]))
    return torch.bmm(weights.unsqueeze(1), torch.cat([own, *others], dim=1)).squeeze(1)


def group_tasks(groups: Mapping[str, Sequence[str]] | None, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The setting ``task_groups``, checked: every task is in one group.

    Args:
        groups: tasks by name of the group; None for one group of all. tasks: the names of the tasks.

    Raises:
        UsageError: for what is wrong.

    >>> group_tasks({"watch": ["long"], "act": ["like", "share"]}, ["like", "long", "share"])
    {'watch': ('long',), 'act': ('like', 'share')}
    """
    if groups is None:
        return {ALL: tuple(tasks)}
    found: dict[str, str] = {}
    for group, members in groups.items():
        if group in (SHARED, *tasks) or "/" in group or not group:
            taken = "the name of a task" if group in tasks else f"taken: {SHARED!r}, '' and names with / are no groups"
            raise UsageError(f"task_groups: {group!r} is {taken}; give the group another name")
        if not members:
            raise UsageError(f"task_groups: {group!r} has no task; leave the group out, or name its tasks")
        for task in members:
            if task not in tasks:
                raise UsageError(f"task_groups: {task!r} in {group!r} is not a task; {nearest(task, tasks)}")
            if task in found:
                raise UsageError(f"task_groups: {task!r} is in {found[task]!r} and {group!r}; expected one group")
            found[task] = group
    missing = [task for task in tasks if task not in found]
    if missing:
        raise UsageError(f"task_groups: expected every task in a group; missing: {', '.join(missing)}")
    return {group: tuple(members) for group, members in groups.items()}
