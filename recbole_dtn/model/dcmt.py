"""DCMT, direct entire-space causal multi-task learning (Zhu et al., ICDE 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from recbole_dtn.config.settings import NonNegative
from recbole_dtn.data.features import Features
from recbole_dtn.layers.processes import mean_of_processes
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput
from recbole_dtn.model.conditional import ConditionalLosses, ConditionalRows, inverse_probability
from recbole_dtn.model.esmm import ESMM, ESMMSettings
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["DCMT", "DCMTOutput", "DCMTSettings"]


class DCMTSettings(ESMMSettings):
    """Settings of :class:`DCMT`."""

    constraint_weight: Annotated[
        NonNegative, Field(description="lambda_1, weight of the distance of both probabilities' sum from 1")
    ] = 1e-3
    max_weight: Annotated[float, Field(ge=1, description="w_max, largest inverse propensity of both kinds")] = 100.0
    self_normalised: Annotated[
        bool, Field(description="whether each weighted sum is divided by the sum of its weights (SNIPS)")
    ] = False


@dataclass(frozen=True)
class DCMTOutput(ModelOutput):
    """Also ``counterfactual``, (B, S): the log-odds of each step's counterfactual probability."""

    counterfactual: Tensor | None = None


@MODELS.register("DCMT", paper="Zhu et al., ICDE 2023 (arXiv 2302.06141)")
class DCMT(ESMM):
    """ESMM with a factual and a counterfactual loss of each conditional probability, and a head for either.

    With o the label of the task before (click), r <= o that of the task (purchase), p = P(o = 1 | x) without gradient,
    c the conditional probability (the prediction) and c* its counterfactual twin, a tower of its own; means are over
    all B rows::

        L    = L_click + L_f + L_cf + lambda_1 mean |1 - (c + c*)| + L_ctcvr
        L_f  = mean(o w BCE(c, r)),            w  = min(1 / p, w_max)
        L_cf = mean((1 - o) w* BCE(c*, 1 - r)),  w* = min(1 / (1 - p), w_max)

    ``self_normalised: true`` divides the two sums by ``sum o w`` and ``sum (1 - o) w*`` in place of B, as specified
    here. ``L_click`` and ``L_ctcvr`` are those of :class:`~recbole_dtn.model.esmm.ESMM`, whose products and ``factors``
    this model has; the later task's loss is all but ``L_click``. In a chain of more than two tasks every task after
    another has its own c and c*, with p the product before it. ``w`` estimates a propensity only where the earlier task
    has ``pos_weight: 1``. The later task's ``pos_weight`` multiplies BCE(c, 1), not the counterfactual errors.
    """

    settings_class: ClassVar[type[ESMMSettings]] = DCMTSettings

    def build(self, settings: DCMTSettings, schema: DataSchema) -> None:  # type: ignore[override]
        """ESMM's parts, and a counterfactual tower per step."""
        super().build(settings, schema)
        self.conditional = ConditionalLosses(self.chain, schema.tasks)
        steps = len(self.chain.steps)
        self.counterfactual = Towers(
            self.front.output_dim, settings.tower_hidden, count=steps, dropout=settings.dropout
        )

    def forward(self, features: Features) -> DCMTOutput:
        """As ESMM, and the counterfactual log-odds."""
        x = self.input(features)  # (B, I)
        logits, factors = self.products(x)
        counterfactual = self.counterfactual(x.unsqueeze(1).expand(-1, len(factors), -1))
        return DCMTOutput(logits, factors=factors, shared=x, counterfactual=counterfactual)

    def task_losses(self, features: Features, output: ModelOutput, total: Tensor | None = None) -> Tensor:
        """``L_click`` of the first task; ``L_f + L_cf + lambda_1 mean |1 - (c + c*)| + L_ctcvr`` of each later one."""
        settings: DCMTSettings = self.settings
        losses = super().task_losses(features, output, total)
        rows = self.conditional.rows(features, output, total)
        assert isinstance(output, DCMTOutput)
        assert output.counterfactual is not None
        twin = output.counterfactual.to(rows.logit.dtype)
        twin_errors = binary_cross_entropy_with_logits(twin, 1.0 - rows.label, reduction="none")
        absent = 1.0 - rows.happened
        factual = self._mean(rows, rows.happened * inverse_probability(rows.prior, settings.max_weight), rows.errors())
        counterfactual = self._mean(rows, absent * inverse_probability(-rows.prior, settings.max_weight), twin_errors)
        distance = rows.mean((1.0 - (torch.sigmoid(rows.logit) + torch.sigmoid(twin))).abs())
        return self.conditional.add(losses, factual + counterfactual + settings.constraint_weight * distance)

    def _mean(self, rows: ConditionalRows, weight: Tensor, errors: Tensor) -> Tensor:
        """Mean of ``weight * errors`` over all rows, or over the weights."""
        if not self.settings.self_normalised:
            return rows.mean(weight * errors)
        weighted = weight * rows.weight
        divisor = weighted.sum(0)
        if rows.spread:  # processes whose gradients are averaged divide by the same number
            divisor = mean_of_processes(divisor)
        return (weighted * errors).sum(0) / torch.where(divisor > 0, divisor, 1.0)
