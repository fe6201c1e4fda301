"""APG: adaptive parameter generation network (Yan et al., NeurIPS 2022)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.domains import DomainEmbedding
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.domains import domain_of
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["APG", "APGSettings", "GeneratedLinear"]


class APGSettings(Settings):
    """Settings of :class:`APG`."""

    generated_hidden: Annotated[
        Widths, Field(description="widths of the generated layers (ReLU), which tasks share")
    ] = [128]
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]
    condition: Annotated[
        Literal["group", "self", "mix"] | None,
        Field(
            description="what weights are generated from: group, self (each layer's own input) or mix (both); null: "
            "group where rows have a domain or condition_fields are named, else self"
        ),
    ] = None
    condition_fields: Annotated[
        list[str] | None,
        Field(description="fields whose embeddings are the group, such as [user_age]; null: the domain of the row"),
    ] = None
    detach_condition: Annotated[
        bool,
        Field(description="no gradient from the generators to what they read, as in published code; not with domains"),
    ] = False
    domain_embedding_size: Annotated[
        Count | None, Field(description="width of the embedding of a domain; null: embedding_size")
    ] = None
    core: Annotated[
        Count | None, Field(description="k, rows and columns of the generated core; null: a quarter of min(n, m)")
    ] = None
    over_parameterised: Annotated[
        Count | None, Field(description="p of U = U_1 U_2 (n, p)(p, k), and of V likewise; null: U and V in one")
    ] = None


class GeneratedLinear(nn.Module):
    """``((x U) S(z) + s(z)) V + c``: a linear map of low rank, whose core depends on the row.

    ``[S(z), s(z)] = W z + w`` with S (k, k) and s (k,); U (n, k) and V (k, m) are the same for all rows. W starts small
    and w at S = 1 (identity) and s = 0, so that all rows start with ``x U V``.

    Args:
        input_dim: n. output_dim: m. condition_dim: width of z. core: k; None: a quarter of min(n, m), rounded up.
        over_parameterised: p of ``U = U_1 U_2`` and ``V = V_1 V_2``, multiplied out in every forward; None: U and V.

    >>> GeneratedLinear(6, 8, 3)(torch.zeros(5, 6), torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        condition_dim: int,
        *,
        core: int | None = None,
        over_parameterised: int | None = None,
    ) -> None:
        super().__init__()
        self.core = k = core or math.ceil(min(input_dim, output_dim) / 4)
        between = [] if over_parameterised is None else [over_parameterised]
        self.down = nn.ParameterList(_xavier(*pair) for pair in pairwise([input_dim, *between, k]))
        self.up = nn.ParameterList(_xavier(*pair) for pair in pairwise([k, *between, output_dim]))
        self.bias = nn.Parameter(torch.zeros(output_dim))
        self.generator = Linear(condition_dim, k * k + k)
        nn.init.normal_(self.generator.weight, std=0.01)
        with torch.no_grad():
            self.generator.bias.copy_(torch.cat([torch.eye(k).flatten(), torch.zeros(k)]))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, n), (B, width of z) -> (B, m)."""
        # (n, p)(p, k): one product over the batch, with a weight that is multiplied out before.
        down, up = (torch.linalg.multi_dot([*w]) if len(w) > 1 else w[0] for w in (self.down, self.up))
        generated = self.generator(z)
        square = self.core**2
        matrix = generated[:, :square].unflatten(1, (self.core, self.core))
        inner = torch.bmm((x @ down).unsqueeze(1), matrix).squeeze(1) + generated[:, square:]
        output: Tensor = inner @ up + self.bias
        return output


def _xavier(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, columns)))


@MODELS.register("APG", paper="Yan et al., NeurIPS 2022 (arXiv 2203.16218)")
class APG(MultiTaskRecommender):
    """Layers whose weights are generated for each row from a condition: its domain, given fields, or its own input.

    ``h_0 = x``; ``h_{l+1} = ReLU(((h_l U_l) S_l(z) + s_l(z)) V_l + c_l)``; ``logit_t = tower_t(h_L)``.

    S_l(z) (k, k) and s_l(z) (k,) are linear in the condition z (:class:`GeneratedLinear`): ``group``, the embeddings of
    ``condition_fields`` or of the row's domain; ``self``, ``z = h_l``; ``mix``, the two concatenated. The conditions
    are as specified here. In published code z is detached (``detach_condition``). In evaluation a domain without
    training rows has the mean of the other domains' embeddings.
    """

    settings_class: ClassVar = APGSettings
    width_options = ("generated_hidden", "tower_hidden")

    def build(self, settings: APGSettings, schema: DataSchema) -> None:
        """The embedding, the group's condition, generated layers and T towers."""
        has_group = bool(schema.num_domains) or settings.condition_fields is not None
        self.condition = settings.condition or ("group" if has_group else "self")
        width = self.new_input()
        group = self._build_group(settings, schema) if self.condition != "self" else 0
        self.layers = nn.ModuleList(
            GeneratedLinear(
                low,
                high,
                group + (low if self.condition != "group" else 0),
                core=settings.core,
                over_parameterised=settings.over_parameterised,
            )
            for low, high in pairwise([width, *settings.generated_hidden])
        )
        if not self.layers:
            raise UsageError("generated_hidden: expected one width or more, such as [128]; found none")
        self.dropout = Dropout(settings.dropout)
        last = settings.generated_hidden[-1]
        self.towers = Towers(last, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)

    def _build_group(self, settings: APGSettings, schema: DataSchema) -> int:
        """What the group's condition is made of; returns its width."""
        self.group_fields: tuple[int, ...] = ()
        if settings.condition_fields is not None:
            if not settings.condition_fields:
                raise UsageError("condition_fields: expected one field or more, such as [user_age]; found none")
            self.group_fields = self.field_positions(settings.condition_fields, setting="condition_fields")
            return len(self.group_fields) * int(settings.embedding_size)
        if not schema.num_domains:
            raise UsageError(
                f"condition: {self.condition!r} needs a group: set domain_field to the column of domains, or "
                "condition_fields to the fields of the group; or condition: self"
            )
        if settings.detach_condition:
            raise UsageError(
                "detach_condition: the embeddings of domains serve the condition alone and would never be trained; "
                "name input fields in condition_fields, or leave detach_condition out"
            )
        size = settings.domain_embedding_size or settings.embedding_size
        self.domains = DomainEmbedding(schema.num_domains, size, std=settings.embedding_std)
        return size

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        embeddings = self.embedding(features)  # (B, F, D)
        h: Tensor = self.front(embeddings, features.ids)  # (B, I)
        group = self._group(embeddings, features) if self.condition != "self" else None
        for layer in self.layers:
            z = h if group is None else torch.cat([group, h], dim=1) if self.condition == "mix" else group
            h = self.dropout(torch.relu(layer(h, z.detach() if self.settings.detach_condition else z)))
        each = h.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)  # (B, T, H)
        return ModelOutput(self.towers(each), shared=h)

    def _group(self, embeddings: Tensor, features: Features) -> Tensor:
        """The embeddings of the group, (B, width)."""
        if self.group_fields:
            return torch.cat([embeddings[:, position] for position in self.group_fields], dim=1)
        group: Tensor = self.domains(domain_of(self, features))
        return group
