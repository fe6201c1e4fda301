"""STAR: star topology adaptive recommender (Sheng et al., CIKM 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, NonNegative, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.domains import DomainEmbedding, DomainRows, PartitionedNorm, SeenDomains, StarLinear
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.domains import domain_of
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["STAR", "STARSettings", "StarMLP", "StarTower"]


class STARSettings(Settings):
    """Settings of :class:`STAR`."""

    star_hidden: Annotated[Widths, Field(description="widths of the star layers that all tasks share (ReLU)")] = [128]
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower of star layers")] = [64]
    aux_hidden: Annotated[
        Widths | None,
        Field(description="hidden widths of the auxiliary network; null: none, as in some published code"),
    ] = [64]
    domain_embedding_size: Annotated[
        Count | None,
        Field(description="width of the domain's embedding in the auxiliary network; null: embedding_size"),
    ] = None
    low_rank: Annotated[
        Count | None, Field(description="rank r of W_d = 1 + A_d B_d; null: W_d in full, as in the paper")
    ] = None
    norm: Annotated[
        Literal["partitioned", "none"], Field(description="normalisation of the input by the moments of its domain")
    ] = "partitioned"
    norm_momentum: Annotated[
        float, Field(gt=0, le=1, description="weight of a batch in the moving moments at an even share of rows")
    ] = 0.1
    norm_min_rows: Annotated[
        int, Field(ge=2, description="fewest rows of a domain in a batch for moments of its own; else the moving ones")
    ] = 2
    norm_shrinkage: Annotated[
        NonNegative,
        Field(description="rows of the whole batch's moments that count beside a domain's own; 0: the paper's"),
    ] = 64.0


class StarMLP(nn.Module):
    """``dropout(ReLU(x (W * W_d) + b + b_d))`` for every width, domain by domain; no width at all is the identity.

    Args:
        input_dim: width of x. hidden: width of each layer. domains: N_d. low_rank: of W_d. dropout: after each layer.
    """

    def __init__(
        self, input_dim: int, hidden: Sequence[int], *, domains: int, low_rank: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.output_dim = hidden[-1] if hidden else input_dim
        self.layers = nn.ModuleList(
            StarLinear(low, high, domains, low_rank=low_rank) for low, high in pairwise([input_dim, *hidden])
        )
        self.dropout = Dropout(dropout)

    def forward(self, parts: list[Tensor], known: Tensor) -> list[Tensor]:
        """(B_d, input_dim) of each domain -> (B_d, output_dim)."""
        for layer in self.layers:
            assert isinstance(layer, StarLinear)
            parts = [self.dropout(part) for part in layer.of_parts(parts, known, activate=True)]
        return parts


class StarTower(nn.Module):
    """One task's head: a :class:`StarMLP`, then one star unit without activation. Arguments as there."""

    def __init__(
        self, input_dim: int, hidden: Sequence[int], *, domains: int, low_rank: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.hidden = StarMLP(input_dim, hidden, domains=domains, low_rank=low_rank, dropout=dropout)
        self.logit = StarLinear(self.hidden.output_dim, 1, domains, low_rank=low_rank)

    def forward(self, parts: list[Tensor], known: Tensor) -> Tensor:
        """(B_d, input_dim) of each domain -> (B, 1), the domains one after another."""
        return torch.cat(self.logit.of_parts(self.hidden(parts, known), known, activate=False))


@MODELS.register("STAR", paper="Sheng et al., CIKM 2021 (arXiv 2101.11427)")
class STAR(MultiTaskRecommender):
    """Layers whose weights are shared ones times those of the row's domain, and a normalisation for each domain.

    For a row x of domain d::

        z       = gamma gamma_d (x - mu_d) / sqrt(var_d + eps) + beta + beta_d       (partitioned normalisation)
        h       = ReLU(z (W * W_d) + b + b_d), for every width                       (star layers; * elementwise)
        s_t     = a tower of star layers for task t, the last without activation
        logit_t = s_t + a_t,   a = MLP([e_d, x])                                     (auxiliary network)

    mu_d and var_d are the moments of the domain's rows in the batch, and moving averages in evaluation
    (:class:`~recbole_dtn.layers.domains.PartitionedNorm`; ``norm_shrinkage: 0`` for the paper's). The paper has one
    task; here tasks share the star layers of ``star_hidden``, and with ``tower_hidden: []`` have one star unit each.
    All domains start equal: W is Xavier's, W_d = gamma_d = 1, b_d = beta_d = 0. A row goes through the parts of its own
    domain alone. A domain without training rows has W_d = gamma_d = 1, b_d = beta_d = 0, the moments of all rows, and
    the mean of the other domains' e_d.

    Published code differs: a ReLU on s, which can then only raise the logit; an auxiliary network that does not read
    the domain, or none (``aux_hidden: null``); moments of the rows of all domains, also in evaluation.
    """

    settings_class: ClassVar = STARSettings
    width_options = ("star_hidden", "tower_hidden", "aux_hidden")
    needs_domain = True

    def build(self, settings: STARSettings, schema: DataSchema) -> None:
        """The embedding, the normalisation, star layers, T towers and the auxiliary network."""
        width, domains = self.new_input(), schema.num_domains
        self.seen = SeenDomains(domains)
        self.norm = None
        if settings.norm == "partitioned":
            self.norm = PartitionedNorm(
                width,
                domains,
                momentum=settings.norm_momentum,
                min_rows=settings.norm_min_rows,
                shrinkage=settings.norm_shrinkage,
            )
        star: dict[str, Any] = {"domains": domains, "low_rank": settings.low_rank, "dropout": settings.dropout}
        self.body = StarMLP(width, settings.star_hidden, **star)
        self.towers = nn.ModuleList(
            StarTower(self.body.output_dim, settings.tower_hidden, **star) for _ in schema.tasks
        )
        self.auxiliary = None
        if settings.aux_hidden is not None:
            size = settings.domain_embedding_size or settings.embedding_size
            self.domains = DomainEmbedding(domains, size, std=settings.embedding_std)
            self.auxiliary = MLP(size + width, settings.aux_hidden, dropout=settings.dropout)
            # Without a bias: b and b_d of the towers' last units are added to the same sum.
            self.auxiliary_units = nn.ModuleList(Linear(self.auxiliary.output_dim, 1, bias=False) for _ in schema.tasks)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        x, domain = self.input(features), domain_of(self, features)  # (B, I), (B,)
        known = self.seen(domain)
        z = x if self.norm is None else self.norm(x, domain, known)
        logits = self._scores(z, domain, known)
        if self.auxiliary is not None:
            a = self.auxiliary(torch.cat([self.domains(domain), x], dim=1))
            logits = logits + torch.cat([unit(a) for unit in self.auxiliary_units], dim=1)
        return ModelOutput(logits, shared=x)

    # The number of rows of each domain is another in every batch: traced, each would need a graph of its own.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _scores(self, z: Tensor, domain: Tensor, known: Tensor) -> Tensor:
        """``s`` (B, T) of the star layers and towers, from z (B, I)."""
        rows = DomainRows.of(domain, self.schema.num_domains)
        parts = self.body(rows.split(z), known)
        return rows.join([torch.cat([tower(parts, known) for tower in self.towers], dim=1)])
