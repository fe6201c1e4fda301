"""AITM, adaptive information transfer multi-task (Xi et al., KDD 2021)."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import NonNegative, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.chains import TaskChain
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["AITM", "AITMSettings", "InformationTransfer"]


class AITMSettings(Settings):
    """Settings of :class:`AITM`. The authors' towers are [128, 64, 32]."""

    tower_hidden: Annotated[
        Widths, Field(description="widths of each task's tower (ReLU); the last is that of what tasks transfer")
    ] = [128, 64]
    constraint_weight: Annotated[
        NonNegative, Field(description="alpha, weight of the excess of a probability over that of the task before")
    ] = 0.6


class InformationTransfer(nn.Module):
    """Attention over what the task before transfers and the task's own representation::

        p = dropout(ReLU(W_g z + b_g)),   z of the task before
        a_u = <h2(u), h3(u)> / sqrt(k),   u in {p, q}
        out = sum_u softmax(a)_u h1(u)

    with linear maps h1, h2, h3 of width k, without bias.

    Args:
        width: k, of z and q. dropout: of p.

    >>> mixed, weights = InformationTransfer(4)(torch.zeros(3, 4), torch.zeros(3, 4))
    >>> mixed.shape, weights.shape
    (torch.Size([3, 4]), torch.Size([3, 2]))
    """

    def __init__(self, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.transfer = MLP(width, [width], dropout=dropout)  # g
        self.value, self.query, self.key = (Linear(width, width, bias=False) for _ in range(3))  # h1, h2, h3
        self.scale = 1.0 / math.sqrt(width)

    def forward(self, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """(B, k) of the task before, (B, k) of the task -> (B, k), and the weights (B, 2) of p and q."""
        both = torch.stack([self.transfer(z), q], dim=1)  # (B, 2, k)
        scores = (self.query(both) * self.key(both)).sum(2) * self.scale
        weights = torch.softmax(scores, dim=1)
        return torch.einsum("bu,buk->bk", weights, self.value(both)), weights


@MODELS.register("AITM", paper="Xi et al., KDD 2021 (arXiv 2105.08489)")
class AITM(MultiTaskRecommender):
    """Each task's representation attends to what the task before it transfers; later probabilities stay below earlier.

    ``q_t = tower_t(x)``; ``z_t = q_t`` for a task without a predecessor, else
    ``z_t =`` :class:`InformationTransfer` ``(z_s, q_t)``, s the task that ``after`` names; ``logit_t = w_t z_t + b_t``.
    The auxiliary loss ``alpha sum_t mean max(p_t - p_s, 0)`` (the calibrator) is a mean over the rows of the batch, as
    the losses of the tasks are. Published code leaves it out, or adds its sum over the rows. ``gates`` are the
    attention weights ``[p, q_t]`` of each task that has a predecessor.

    Raises:
        UsageError: without a chain of tasks, for a task after several others, or for a label that is observed in other
            rows than that of the task before.
    """

    settings_class: ClassVar = AITMSettings
    width_options = ("tower_hidden",)
    task_kinds = frozenset({"binary"})
    min_tasks = 2
    needs_chain = "same_rows"

    def build(self, settings: AITMSettings, schema: DataSchema) -> None:
        """The embedding, T towers, a transfer for each task with a predecessor, and T linear heads."""
        # p_t is compared with p_s: both have to be probabilities over the same rows.
        self.chain = TaskChain.of(schema, type(self).__name__)
        inputs = self.new_input()
        # A module per task, so that balancers tell apart what is shared: only what a later task reads.
        bottoms = [MLP(inputs, settings.tower_hidden, dropout=settings.dropout) for _ in schema.tasks]
        self.bottoms = nn.ModuleList(bottoms)
        width = bottoms[0].output_dim
        self.transfers = nn.ModuleList(InformationTransfer(width, dropout=settings.dropout) for _ in self.chain.steps)
        self.towers = Towers(width, [], count=schema.num_tasks)
        names = schema.task_names
        self.gate_names = {
            names[task]: (f"{names[before]}/transferred", f"{names[task]}/own") for task, before in self.chain.steps
        }

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), the weights of each transfer (B, 2), and the excess of later probabilities."""
        x = self.input(features)  # (B, I)
        z: list[Tensor] = [bottom(x) for bottom in self.bottoms]  # q_t, (B, k) each; z_t takes its place
        gates: dict[str, Tensor] = {}
        # A predecessor comes before its successors, so that z[before] is final.
        for (task, before), transfer in zip(self.chain.steps, self.transfers, strict=True):
            z[task], gates[self.schema.task_names[task]] = transfer(z[before], z[task])
        logits = self.towers(torch.stack(z, dim=1))
        return ModelOutput(logits, gates=gates, auxiliary=self._excess(logits), shared=x)

    def _excess(self, logits: Tensor) -> dict[str, Tensor]:
        weight = self.settings.constraint_weight
        if not weight:
            return {}
        chances = torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32))).unbind(1)
        excess = [torch.relu(chances[task] - chances[before]).mean() for task, before in self.chain.steps]
        return {"chain": weight * torch.stack(excess).sum()}
