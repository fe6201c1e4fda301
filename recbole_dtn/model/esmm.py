"""ESMM, the entire space multi-task model (Ma et al., SIGIR 2018)."""

from __future__ import annotations

from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.layers.mlp import Tower
from recbole_dtn.layers.probability import logit_of_product
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import Factor, ModelOutput, MultiTaskRecommender
from recbole_dtn.model.chains import TaskChain
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["ESMM", "ESMMSettings"]


class ESMMSettings(Settings):
    """Settings of :class:`ESMM`."""

    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [128, 64]


@MODELS.register("ESMM", paper="Ma et al., SIGIR 2018")
class ESMM(MultiTaskRecommender):
    """Shared embeddings; multiplies each task's conditional probability by its predecessor's probability.

    ``p_t = p_s * sigmoid(tower_t(x))``, s the task that ``after`` names; ``p_t = sigmoid(tower_t(x))`` without one.
    For click and purchase: ``pCTCVR = pCTR * pCVR`` (eq. 1). Both losses run over the entire space, so the label of a
    later task must be the joint one (purchase = click and purchase). The product is taken on log-odds
    (:func:`logit_of_product`). ``factors`` has each conditional probability, such as pCVR, as ``purchase|click``.

    Raises:
        UsageError: without a chain of tasks, for a task after several others, or for a label that is observed in
            fewer rows than that of the task before.
    """

    settings_class: ClassVar[type[ESMMSettings]] = ESMMSettings
    width_options = ("tower_hidden",)
    task_kinds = frozenset({"binary"})
    min_tasks = 2
    needs_chain = "same_rows"

    def build(self, settings: ESMMSettings, schema: DataSchema) -> None:
        """The embedding and T towers."""
        # The product is a joint probability over the rows of the first task: all losses have to see the same rows.
        self.chain = TaskChain.of(schema, type(self).__name__)
        width = self.new_input()
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)

    def heads(self) -> list[nn.Linear]:
        """Those of the T towers; a model derived from this one may have other towers beside them."""
        return [cast(Tower, tower).logit for tower in self.towers.towers]

    def head_rates(self) -> list[float | None]:
        """Each task's rate given the task before it."""
        rates = [task.rate for task in self.schema.tasks]
        return [
            rate if before is None or rate is None or (given := rates[before]) is None else min(rate / given, 1 - 1e-6)
            for rate, before in zip(rates, self.chain.before, strict=True)
        ]

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and the conditional probability of every task that has a predecessor."""
        x = self.input(features)  # (B, I)
        logits, factors = self.products(x)
        return ModelOutput(logits, factors=factors, shared=x)

    def products(self, x: Tensor) -> tuple[Tensor, dict[str, Factor]]:
        """(B, I) -> log-odds (B, T) of the products, and the conditional probabilities in the order of the chain."""
        own = self.towers(x.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)).unbind(1)
        names = self.schema.task_names
        logits: dict[int, Tensor] = {}
        factors: dict[str, Factor] = {}
        # A predecessor's logit is there before it is read; columns go back into the schema's order below.
        for task in self.chain.order:
            before = self.chain.before[task]
            if before is None:
                logits[task] = own[task]
                continue
            logits[task] = logit_of_product(logits[before], own[task])
            factors[f"{names[task]}|{names[before]}"] = Factor(own[task], label=names[task], observed_by=names[before])
        return torch.stack([logits[t] for t in sorted(logits)], dim=1), factors
