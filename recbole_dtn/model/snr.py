"""SNR, sub-network routing (Ma et al., AAAI 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, cast

import torch
import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, NonNegative, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.kernels.products import linear
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.hard_concrete import HardConcrete
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["SNR", "Routing", "SNRSettings"]

Form = Literal["trans", "aver"]


class Routing(Fusible):
    """What I readers get of J sub-networks: ``v_i = sum_j z_ij W_ij u_j`` (trans) or ``v_i = sum_j z_ij u_j`` (aver).

    Every connection has a random gate z_ij (:class:`~recbole_dtn.layers.hard_concrete.HardConcrete`), and a reader's
    gates and matrices are parameters of its own. The J matrices of a reader start as one ``nn.Linear(J * H, H)``.

    Args:
        sources: J. readers: I. width: H, of every u_j and v_i. form: ``trans`` or ``aver``.
    """

    def __init__(self, sources: int, readers: int, width: int, *, form: Form) -> None:
        super().__init__()
        self.gates = nn.ModuleList(HardConcrete((sources,)) for _ in range(readers))
        bound = 1.0 / math.sqrt(sources * width)
        matrices = readers if form == "trans" else 0
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(sources, width, width).uniform_(-bound, bound)) for _ in range(matrices)
        )

    def forward(self, u: Tensor) -> Tensor:
        """(B, J, H) -> (B, I, H)."""
        z = torch.stack([gate() for gate in self.gates])  # (I, J)
        if not self.weights:
            return torch.einsum("ij,bjh->bih", z, u)
        # The gated matrices of all readers side by side, so that they are one product (B, J * H) x (J * H, I * H).
        gated = z[:, :, None, None] * torch.stack([*self.weights])  # (I, J, out, in)
        readers, sources, width, _ = gated.shape
        weight = gated.transpose(1, 2).reshape(readers * width, sources * width)
        flat = u.flatten(1)
        routed = linear(flat, weight) if self.fused else functional.linear(flat, weight)
        return routed.unflatten(1, (readers, width))  # type: ignore[no-untyped-call, no-any-return]

    def penalty(self) -> Tensor:
        """Expected number of open connections, a scalar."""
        return torch.stack([cast(HardConcrete, gate).penalty() for gate in self.gates]).sum()

    def kept(self) -> Tensor:
        """Which connections are used in evaluation, (I, J) bool."""
        return torch.stack([cast(HardConcrete, gate).kept() for gate in self.gates])


class SNRSettings(Settings):
    """Settings of :class:`SNR`."""

    form: Annotated[
        Form, Field(description="what a connection does to its sub-network's output: a matrix, or nothing")
    ] = "trans"
    levels: Annotated[Count, Field(description="levels of sub-networks")] = 1
    subnetworks: Annotated[Count, Field(description="sub-networks of each level")] = 4
    expert_hidden: Annotated[Widths, Field(description="widths of each sub-network's layers (ReLU)")] = [128]
    gate_penalty: Annotated[
        NonNegative, Field(description="penalty per connection that is expected to be open (lambda)")
    ] = 1e-4
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]


@MODELS.register("SNR", paper="Ma et al., AAAI 2019")
class SNR(MultiTaskRecommender):
    """Levels of sub-networks whose connections are switched by learned random gates.

    ``u_j`` are the outputs of a level's J sub-networks; reader i is a sub-network of the next level, or task i's tower
    after the last. It reads ``v_i = sum_j z_ij W_ij u_j`` (``form: trans``) or ``v_i = sum_j z_ij u_j`` (``aver``). The
    sub-networks of the first level read x.

    In training every gate is drawn anew at each step, ``z_ij = clip(s (zeta - gamma) + gamma, 0, 1)`` with
    ``s = sigmoid((log u - log(1 - u) + log alpha_ij) / beta)`` and u ~ U(0, 1); in evaluation
    ``s = sigmoid(log alpha_ij)``. The loss has ``lambda sum_ij sigmoid(log alpha_ij - beta log(-gamma / zeta))`` in
    addition, lambda times the expected number of open connections. beta is .9, gamma -.1, zeta 1.1; log alpha, which is
    the parameter, starts at U(0, 1), as specified here.

    Published code trains u as a parameter, divides log alpha alone by beta, has one alpha for all connections and no
    penalty, and leaves W out of the optimiser. :meth:`kept_connections` tells which connections evaluation uses.
    """

    settings_class: ClassVar = SNRSettings
    width_options = ("expert_hidden", "tower_hidden")

    def build(self, settings: SNRSettings, schema: DataSchema) -> None:
        """The embedding, the levels, their connections and T towers."""
        width = self.new_input()
        self.levels, self.routes = nn.ModuleList(), nn.ModuleList()
        for level in range(1, settings.levels + 1):
            networks = Experts(width, settings.expert_hidden, count=settings.subnetworks, dropout=settings.dropout)
            width = networks.output_dim
            readers = settings.subnetworks if level < settings.levels else schema.num_tasks
            self.levels.append(networks)
            self.routes.append(Routing(settings.subnetworks, readers, width, form=settings.form))
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and the penalty of the gates."""
        x = self.input(features)
        outputs = self.levels[0](x)  # (B, J, H): all of them read x
        read = self.routes[0](outputs)
        for networks, route in zip(self.levels[1:], self.routes[1:], strict=True):
            read = route(cast(Experts, networks).each(read))
        return ModelOutput(self.towers(read), auxiliary=self._penalty(), shared=x)

    def _penalty(self) -> dict[str, Tensor]:
        if self.settings.gate_penalty == 0.0:
            return {}
        expected = torch.stack([cast(Routing, route).penalty() for route in self.routes]).sum()
        return {"gates": self.settings.gate_penalty * expected}

    def kept_connections(self) -> list[Tensor]:
        """Per level, which connections are used in evaluation: (readers, sub-networks) bool."""
        return [cast(Routing, route).kept() for route in self.routes]

    def findings(self) -> Sequence[str]:
        """The connections that are kept, by level and by reader."""
        found = []
        for level, kept in enumerate(self.kept_connections(), 1):
            last = level == len(self.routes)
            readers = self.schema.task_names if last else [f"sub-network {i}" for i in range(len(kept))]
            counts = ", ".join(f"{name} {row.sum().item()}" for name, row in zip(readers, kept, strict=True))
            found.append(f"level {level}: {kept.sum().item()} of {kept.numel()} connections kept ({counts})")
        return found
