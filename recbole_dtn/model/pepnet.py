"""PEPNet: parameter and embedding personalised network (Chang et al., KDD 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.domains import DomainEmbedding
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.domains import domain_of
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["GateNU", "GatedTower", "PEPNet", "PEPNetSettings", "PPNet", "PPNetSettings"]


class PPNetSettings(Settings):
    """Settings of :class:`PPNet`."""

    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [128, 64]
    gate_fields: Annotated[
        list[str] | None,
        Field(description="fields that the gates read, such as user_id, item_id; null: the two with the most tokens"),
    ] = None
    gate_embedding_size: Annotated[
        Count | None, Field(description="width of the gates' own embeddings; null: embedding_size")
    ] = None


class PEPNetSettings(PPNetSettings):
    """Settings of :class:`PEPNet`."""

    domain_embedding_size: Annotated[
        Count | None, Field(description="width of the embedding of a domain; null: embedding_size")
    ] = None


class GateNU(nn.Module):
    """``2 sigmoid(W_2 ReLU(W_1 z + b_1) + b_2)``: factors around 1, one for each number of what it scales.

    Args:
        input_dim: width of z. output_dim: width of the hidden layer and of the output.

    >>> GateNU(3, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.hidden = MLP(input_dim, [output_dim])
        self.output = Linear(output_dim, output_dim)

    def forward(self, z: Tensor) -> Tensor:
        """(B, input_dim) -> (B, output_dim), between 0 and 2."""
        # 1 where the logits are 0, so that a fresh gate changes little.
        return 2.0 * torch.sigmoid(self.output(self.hidden(z)))


class GatedTower(nn.Module):
    """A task's tower with a :class:`GateNU` in front of every layer: ``h_{l+1} = ReLU(W_l (h_l * g_l(z)) + b_l)``.

    The last layer is one linear unit without activation.

    Args:
        input_dim: width of h_0. hidden: hidden widths. gate_dim: width of z. dropout: after each hidden layer.
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], *, gate_dim: int, dropout: float) -> None:
        super().__init__()
        widths = [input_dim, *hidden]
        self.gates = nn.ModuleList(GateNU(gate_dim, width) for width in widths)
        self.layers = nn.ModuleList(MLP(low, [high], dropout=dropout) for low, high in pairwise(widths))
        self.logit = Linear(widths[-1], 1)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """(B, input_dim), (B, gate_dim) -> (B,)."""
        for layer, gate in zip([*self.layers, self.logit], self.gates, strict=True):
            h = layer(h * gate(z))
        return h.squeeze(1)


@MODELS.register("PPNet", paper="Chang et al., KDD 2023")
class PPNet(MultiTaskRecommender):
    """Every layer of every tower scaled by a gate that reads user and item: PEPNet without domains.

    ``z = [ids, sg(x)]``, sg a stopped gradient and ids the embeddings of ``gate_fields`` in a table of their own;
    ``h_0 = x``, ``h_{l+1} = ReLU(W_tl (h_l * GateNU_tl(z)) + b_tl)`` and a linear unit at the end, for task t and layer
    l.
    """

    settings_class: ClassVar = PPNetSettings
    width_options = ("tower_hidden",)

    def build(self, settings: PPNetSettings, schema: DataSchema) -> None:
        """The embedding, the gates' embedding and T gated towers."""
        width = self.new_input()
        self.gate_embedding = ids = self.new_embedding(dim=settings.gate_embedding_size, fields=self._gate_fields())
        self.towers = nn.ModuleList(
            GatedTower(width, settings.tower_hidden, gate_dim=ids.output_dim + width, dropout=settings.dropout)
            for _ in schema.tasks
        )

    def _gate_fields(self) -> tuple[int, ...]:
        """Positions of the fields that the gates read."""
        chosen: list[str] | None = self.settings.gate_fields
        if chosen is not None:
            if not chosen:
                raise UsageError("gate_fields: expected one field or more, such as [user_id, item_id]; found none")
            return self.field_positions(chosen, setting="gate_fields")
        # User and item, in most data sets. sorted is stable: of equal sizes the earlier field.
        by_size = sorted(self.schema.id_fields, key=lambda position: -self.schema.fields[position].size)
        if not by_size:
            raise UsageError("gate_fields: no field has exactly one id per row; name the fields that the gates read")
        return tuple(sorted(by_size[:2]))

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        x = self.input(features)  # (B, I)
        # sg(x): the gates learn through their own table, and do not move what x comes from.
        z = torch.cat([self.gate_embedding(features).flatten(1), x.detach()], dim=1)
        return ModelOutput(torch.stack([tower(x, z) for tower in self.towers], dim=1), shared=x)


@MODELS.register("PEPNet", paper="Chang et al., KDD 2023")
class PEPNet(PPNet):
    """PPNet over embeddings that a gate scales by domain.

    ``x = e * GateNU([domain, sg(e)])`` (EPNet), e the flat embeddings and domain a learned vector per domain;
    then as :class:`PPNet`, which is the model for data without a domain field. In evaluation a domain without training
    rows has the mean of the others' vectors.
    """

    settings_class: ClassVar = PEPNetSettings
    needs_domain = True

    def build(self, settings: PEPNetSettings, schema: DataSchema) -> None:  # type: ignore[override]
        """PPNet's parts, the domains' embedding and EPNet's gate."""
        super().build(settings, schema)
        width = settings.domain_embedding_size or settings.embedding_size
        self.domains = DomainEmbedding(schema.num_domains, width, std=settings.embedding_std)
        self.domain_gate = GateNU(width + self.flat_dim, self.flat_dim)

    def input(self, features: Features) -> Tensor:
        """What the towers read, (B, I): the embeddings, scaled by EPNet."""
        domain = domain_of(self, features)
        embeddings = self.embedding(features)
        flat = embeddings.flatten(1)
        # e is scaled with its gradient; what the gate reads of it is stopped (EPNet).
        scaled = flat * self.domain_gate(torch.cat([self.domains(domain), flat.detach()], dim=1))
        x: Tensor = self.front(scaled.view_as(embeddings), features.ids)
        return x
