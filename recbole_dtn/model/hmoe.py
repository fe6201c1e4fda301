"""HMoE: hybrid of implicit and explicit mixture of experts (Li et al., CIKM 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.domains import DomainRows, SeenDomains
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGates
from recbole_dtn.layers.mixture import mixtures
from recbole_dtn.layers.mlp import Tower
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.domains import domain_of
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["HMoE", "HMoESettings"]


class HMoESettings(Settings):
    """Settings of :class:`HMoE`."""

    owners: Annotated[
        Literal["tasks", "pairs"],
        Field(description="who has a score: every task, or every pair of a domain and a task"),
    ] = "tasks"
    mix: Annotated[
        Literal["logits", "hidden"],
        Field(
            description="what the label-space weights mix: scores, or (published code) the towers' last hidden layer"
        ),
    ] = "logits"
    experts: Annotated[Count, Field(description="number of shared experts")] = 4
    expert_hidden: Annotated[Widths, Field(description="widths of each expert's layers (ReLU)")] = [128]
    gate_hidden: Annotated[Widths, Field(description="hidden widths of each gate over experts (ReLU)")] = []
    weight_hidden: Annotated[Widths, Field(description="hidden widths of each owner's net of label-space weights")] = []
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each owner's tower")] = [64]


@MODELS.register("HMoE", paper="Li et al., CIKM 2020 (doi 10.1145/3340531.3412713)")
class HMoE(MultiTaskRecommender):
    """MMoE whose scores are mixed once more, each owner training its own tower alone.

    For owners i (tasks, or pairs of a domain and a task) over the input x::

        z_i = sum_k softmax(V_i x)_k E_k(x)        s_i = tower_i(z_i)
        w_i = softmax(net_i(x)), a weight for each of the J owners
        f_i = w_ii s_i + sum_{j != i} w_ij sg(s_j)

    sg stops the gradient: the loss of owner i trains neither the tower of another owner nor, through it, the experts.
    ``logit_t = f_t``; with ``owners: pairs`` a row of domain d reads ``f_(d,t)``, and the weight nets of its own domain
    alone are evaluated. As specified here; the paper has domains as owners. ``mix: hidden`` is published code's, with
    h_j the last hidden layer of tower j: ``f_i = v_i (w_ii h_i + sum_{j != i} w_ij sg(h_j)) + b_i``.
    A score has its tower's bias, so that with even weights tasks start at the mean of their base rates' log-odds, and
    tasks of very different rates take some hundred steps to part; with ``mix: hidden`` each starts at its own.

    ``gates`` has each task's weights over the experts, then those over the owners' towers. With ``owners: pairs``, a
    row of a domain without training rows has the mean of the other domains' ``s_(d,t)``.
    """

    settings_class: ClassVar = HMoESettings
    width_options = ("expert_hidden", "gate_hidden", "weight_hidden", "tower_hidden")

    def build(self, settings: HMoESettings, schema: DataSchema) -> None:
        """The embedding, K experts, and for each of the J owners a gate, a tower and a net of weights."""
        self.in_pairs = settings.owners == "pairs"
        if self.in_pairs and not schema.num_domains:
            raise UsageError(
                "owners: 'pairs' needs the domain of every row; set domain_field to the column that holds it, or "
                "owners: tasks"
            )
        tasks = schema.task_names
        owners = [f"{t}@{d}" for d in range(schema.num_domains) for t in tasks] if self.in_pairs else [*tasks]
        width, count = self.new_input(), len(owners)
        self.experts = Experts(width, settings.expert_hidden, count=settings.experts, dropout=settings.dropout)
        self.gates = SoftmaxGates(width, settings.experts, count, hidden=settings.gate_hidden)
        # A softmax over one owner is 1 whatever it reads: there is no net.
        self.nets = SoftmaxGates(width, count, count if count > 1 else 0, hidden=settings.weight_hidden)
        self.towers = Towers(self.experts.output_dim, settings.tower_hidden, count=count, dropout=settings.dropout)
        self.seen = SeenDomains(schema.num_domains) if self.in_pairs else None
        names = (*(f"shared/expert{k}" for k in range(settings.experts)), *(f"{owner}/tower" for owner in owners))
        self.gate_names = dict.fromkeys(tasks, names)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and each task's weights (B, K + J)."""
        x, tasks = self.input(features), self.schema.num_tasks
        mixed, gates = mixtures([self.experts], self.gates, [[0]] * len(self.towers.towers), x)  # (B, J, H)
        own = torch.arange(tasks, device=x.device).expand(x.shape[0], -1)  # (B, T): the owner that each logit is of
        domain = domain_of(self, features) if self.in_pairs else None
        if domain is not None:
            own = own + (tasks * domain).unsqueeze(1)
        weights = self._weights(x, domain)  # (B, T, J)
        if self.settings.mix == "logits":
            scores = self.towers(mixed)  # (B, J)
            logits = _mix(weights, scores.unsqueeze(2), own).squeeze(2)
        else:
            hidden = self._hidden(mixed)  # (B, J, H)
            # Every owner's own head: v and b of the rows' owners.
            v = torch.cat([tower.logit.weight for tower in self._towers()])  # (J, H)
            b = torch.cat([tower.logit.bias for tower in self._towers()])  # (J,)
            logits = (_mix(weights, hidden, own) * v[own]).sum(2) + b[own]
            scores = (hidden * v).sum(2) + b
        if domain is not None:
            logits = self._where_seen(logits, scores, domain)
        of_task = torch.stack(gates, dim=1).gather(1, own.unsqueeze(2).expand(-1, -1, gates[0].shape[1]))  # (B, T, K)
        shown = torch.cat([of_task, weights], dim=2).unbind(1)
        return ModelOutput(logits, gates=dict(zip(self.schema.task_names, shown, strict=True)), shared=x)

    @property
    def reads_domain(self) -> bool:
        """Whether the owners are pairs."""
        return self.in_pairs

    def _towers(self) -> list[Tower]:
        return [cast(Tower, tower) for tower in self.towers.towers]

    def _hidden(self, mixed: Tensor) -> Tensor:
        """(B, J, H) -> the towers' last hidden layers (B, J, H)."""
        parts = zip(self._towers(), mixed.unbind(1), strict=True)
        return torch.stack([tower.hidden(part) for tower, part in parts], dim=1)

    def _weights(self, x: Tensor, domain: Tensor | None) -> Tensor:
        """Label-space weights (B, T, J); of pairs, each row's from the nets of its own domain."""
        if len(self.towers.towers) == 1:
            return x.new_ones(x.shape[0], 1, 1)
        if domain is None:
            weights: Tensor = self.nets(x)
            return weights
        rows, tasks, nets = DomainRows.of(domain, self.schema.num_domains), self.schema.num_tasks, list(self.nets)
        parts = [
            torch.stack([net(part) for net in nets[number * tasks : (number + 1) * tasks]], dim=1)
            for number, part in enumerate(rows.split(x))
        ]
        return rows.join(parts)

    def _where_seen(self, logits: Tensor, scores: Tensor, domain: Tensor) -> Tensor:
        """The logits, and in evaluation the mean over the other domains for a domain without training rows."""
        assert self.seen is not None
        known = self.seen(domain)
        if self.training:
            return logits
        by_domain = scores.unflatten(1, (self.schema.num_domains, self.schema.num_tasks))  # type: ignore[no-untyped-call]
        mean = torch.einsum("bdt,d->bt", by_domain, (known / known.sum().clamp_min(1.0)).to(scores.dtype))
        return torch.where(known.index_select(0, domain).unsqueeze(1) > 0, logits, mean)

    @torch.no_grad()
    def start_at_base_rates(self) -> None:
        """Every score's bias at the base rate of its task."""
        tasks = self.schema.tasks
        for number, tower in enumerate(self._towers()):
            task = tasks[number % len(tasks)]
            if task.rate is not None:
                tower.logit.bias.fill_(math.log(task.pos_weight * task.rate / (1 - task.rate)))

    def task_parameters(self) -> Sequence[Sequence[nn.Parameter]] | None:
        """Found by a probe, but for pairs: a domain without a row in the probe's batch would be missed."""
        if not self.in_pairs:
            return None
        tasks = self.schema.num_tasks
        # No nets where there is one owner.
        parts = zip_longest(self.gates, self.nets, self._towers())
        owned = [[p for part in own if part is not None for p in part.parameters()] for own in parts]
        held = {id(parameter) for own in owned for parameter in own}
        shared = [parameter for parameter in self.parameters() if id(parameter) not in held]
        return [[*shared, *(p for own in owned[task::tasks] for p in own)] for task in range(tasks)]


def _mix(weights: Tensor, values: Tensor, own: Tensor) -> Tensor:
    """``w_ii v_i + sum_{j != i} w_ij sg(v_j)``.

    Args:
        weights: (B, T, J). values: (B, J, H). own: (B, T), the owner i of each of the T mixtures.

    Returns:
        (B, T, H).
    """
    is_own = torch.arange(values.shape[1], device=own.device) == own.unsqueeze(2)  # (B, T, J)
    each = torch.where(is_own.unsqueeze(3), values.unsqueeze(1), values.detach().unsqueeze(1))
    return (weights.unsqueeze(3) * each).sum(2)
