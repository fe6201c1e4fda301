"""ESCM2, entire space counterfactual multi-task modelling (Wang et al., SIGIR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from recbole_dtn.config.settings import NonNegative
from recbole_dtn.data.features import Features
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput
from recbole_dtn.model.conditional import ConditionalLosses, inverse_probability
from recbole_dtn.model.esmm import ESMM, ESMMSettings
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["ESCM2", "ESCM2Output", "ESCM2Settings"]


class ESCM2Settings(ESMMSettings):
    """Settings of :class:`ESCM2`."""

    form: Annotated[
        Literal["ips", "dr"],
        Field(description="loss of the conditional probability: inverse propensity (ips) or doubly robust (dr)"),
    ] = "dr"
    cvr_weight: Annotated[NonNegative, Field(description="lambda_c, weight of the conditional probability's loss")] = (
        0.1
    )
    ctcvr_weight: Annotated[NonNegative, Field(description="lambda_g, weight of the joint probability's loss")] = 1.0
    max_weight: Annotated[float, Field(ge=1, description="w_max, largest inverse propensity")] = 15.0
    detach_error: Annotated[
        bool, Field(description="dr: whether the squared error e^2 trains the imputation tower alone")
    ] = False


@dataclass(frozen=True)
class ESCM2Output(ModelOutput):
    """Also ``imputed``, (B, S): what the softplus of the imputation towers reads; None with ``form: ips``."""

    imputed: Tensor | None = None


@MODELS.register("ESCM2", paper="Wang et al., SIGIR 2022 (arXiv 2204.05125)")
class ESCM2(ESMM):
    """ESMM with a counterfactual loss of each conditional probability: inverse propensity or doubly robust.

    With o the label of the task before (click), r <= o that of the task (purchase), p = P(o = 1 | x) without gradient,
    c the conditional probability, ``delta = BCE(c, r)``, ``w = min(1 / p, w_max)``, and means over all B rows::

        L = L_click + lambda_c L_cvr + lambda_g L_ctcvr
        ips:  L_cvr = mean(o w delta)
        dr:   L_cvr = mean(i + o w e) + mean(o w e^2),   e = delta - i,   i = softplus(imputation tower(x))

    ``L_click`` and ``L_ctcvr`` are those of :class:`~recbole_dtn.model.esmm.ESMM`, whose products and ``factors`` this
    model has. The loss of the later task is ``lambda_c L_cvr + lambda_g L_ctcvr``. In a chain of more than two tasks
    every task after another has its own c, w and i, with p the product before it. Published code weights by
    ``min(1 / (p n), 15) B``, n the number of clicks in the batch, which divides the term by the batch's click rate;
    here it is the weight above. ``w`` estimates a propensity only where the earlier task has ``pos_weight: 1``.
    """

    settings_class: ClassVar[type[ESMMSettings]] = ESCM2Settings

    def build(self, settings: ESCM2Settings, schema: DataSchema) -> None:  # type: ignore[override]
        """ESMM's parts and, for ``dr``, an imputation tower per step."""
        super().build(settings, schema)
        self.conditional = ConditionalLosses(self.chain, schema.tasks)
        self.imputation: Towers | None = None
        if settings.form == "dr":
            steps = len(self.chain.steps)
            width = self.front.output_dim
            self.imputation = Towers(width, settings.tower_hidden, count=steps, dropout=settings.dropout)

    def forward(self, features: Features) -> ESCM2Output:
        """As ESMM, and the imputed errors."""
        x = self.input(features)  # (B, I)
        logits, factors = self.products(x)
        imputed: Tensor | None = None
        if self.imputation is not None:
            imputed = self.imputation(x.unsqueeze(1).expand(-1, len(factors), -1))
        return ESCM2Output(logits, factors=factors, shared=x, imputed=imputed)

    def task_losses(self, features: Features, output: ModelOutput, total: Tensor | None = None) -> Tensor:
        """``L_click`` of the first task; ``lambda_c L_cvr + lambda_g L_ctcvr`` of each later one."""
        settings: ESCM2Settings = self.settings
        losses = super().task_losses(features, output, total)
        rows = self.conditional.rows(features, output, total)
        error = rows.errors()
        weight = rows.happened * inverse_probability(rows.prior, settings.max_weight)  # o w
        imputed = output.imputed if isinstance(output, ESCM2Output) else None
        if imputed is None:
            risk = rows.mean(weight * error)
        else:
            guess = softplus(imputed.to(error.dtype))
            square = (error.detach() if settings.detach_error else error) - guess
            risk = rows.mean(guess + weight * (error - guess) + weight * square.square())
        return self.conditional.add(losses, settings.cvr_weight * risk, scale=settings.ctcvr_weight)
