"""Cross-stitch networks (Misra et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Positive, Rate, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.kernels.experts import deeper_layer, first_layers
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["CrossStitch", "CrossStitchSettings", "Stitch", "StitchedTowers"]


class Stitch(nn.Module):
    """``h_t <- sum_s alpha_ts h_s``: T^2 numbers, alpha_tt = ``own`` and alpha_ts = (1 - own) / (T - 1) at first.

    Every row of alpha is a parameter of its own: behind the last stitch row t belongs to task t alone.

    Args:
        tasks: T, at least 2. own: alpha_tt at the start.

    >>> Stitch(2, own=0.75)(torch.tensor([1.0, 5.0]).view(2, 1, 1)).flatten().tolist()
    [2.0, 4.0]
    """

    def __init__(self, tasks: int, *, own: float) -> None:
        super().__init__()
        starts = torch.full((tasks, tasks), (1.0 - own) / (tasks - 1)).fill_diagonal_(own)
        self.rows = nn.ParameterList(nn.Parameter(row.clone()) for row in starts)

    @property
    def alpha(self) -> Tensor:
        """(T, T); row t weighs what task t reads."""
        return torch.stack([*self.rows])

    def forward(self, h: Tensor) -> Tensor:
        """(T, B, H) -> (T, B, H)."""
        return torch.einsum("ts,sbh->tbh", self.alpha, h)


class StitchedTowers(Experts):
    """T perceptrons over one input in lock-step, with a :class:`Stitch` after every layer and its dropout.

    Args:
        input_dim: I. hidden: width of each layer, at least one. tasks: T. own: of the stitches. dropout: of each layer.
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], *, tasks: int, own: float, dropout: float) -> None:
        super().__init__(input_dim, hidden, count=tasks, dropout=dropout)
        self.stitches = nn.ModuleList(Stitch(tasks, own=own) for _ in hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, T, H)."""
        weights, biases, stitches = [*self.weights], [*self.biases], [*self.stitches]
        # All axes (T, B, width), in memory too but for the first layer, which is one product (B, T * width).
        current: Tensor
        if self.fused:
            current = first_layers(weights[:1], biases[:1], x)[0].transpose(0, 1)
        else:
            current = torch.relu(torch.einsum("bi,tio->tbo", x, weights[0]) + biases[0])
        current = stitches[0](self.dropout(current))
        for weight, bias, stitch in zip(weights[1:], biases[1:], stitches[1:], strict=True):
            if self.fused:
                current = deeper_layer(current, weight, bias)
            else:
                current = torch.relu(torch.baddbmm(bias, current, weight))
            current = stitch(self.dropout(current))
        return current.transpose(0, 1)


class CrossStitchSettings(Settings):
    """Settings of :class:`CrossStitch`."""

    tower_hidden: Annotated[
        Widths,
        Field(description="hidden widths of each task's tower (ReLU), one or more; a stitch follows every layer"),
    ] = [128, 64]
    stitch_own: Annotated[Rate, Field(description="weight of a task's own tower in every stitch at the start")] = 0.9
    stitch_lr: Annotated[
        Positive, Field(description="learning rate of the stitches, as a multiple of optimizer.lr")
    ] = 10.0


@MODELS.register("CrossStitch", paper="Misra et al., CVPR 2016")
class CrossStitch(MultiTaskRecommender):
    """A tower per task over one input; after every layer each task reads a learned mix of all tasks' activations.

    ``a_t = ReLU(W_t^l h_t^{l-1} + b_t^l)``, ``h_t^l = sum_s alpha_ts^l a_s`` with scalars alpha, h^0 = x for all tasks;
    ``logit_t = w_t h_t^L + b_t``.

    The stitches start at .9 for the own task and .1 / (T - 1) for each other, as specified here, and learn at a
    learning rate of their own, which the paper wants much larger than that of the towers (with plain SGD; under Adam,
    whose steps do not grow with the gradient, ten times is a large factor). Published code has other models under this
    name: random alpha, alpha = 1 everywhere, or a full (T H, T H) matrix in place of T^2 scalars.
    """

    settings_class: ClassVar = CrossStitchSettings
    width_options = ("tower_hidden",)
    min_tasks: ClassVar[int] = 2

    def build(self, settings: CrossStitchSettings, schema: DataSchema) -> None:
        """The embedding, T stitched towers and T linear heads."""
        if not settings.tower_hidden:
            raise UsageError(
                "tower_hidden: expected one layer or more, such as [128, 64]: a stitch follows each; found []"
            )
        self.body = StitchedTowers(
            self.new_input(),
            settings.tower_hidden,
            tasks=schema.num_tasks,
            own=settings.stitch_own,
            dropout=settings.dropout,
        )
        self.towers = Towers(self.body.output_dim, [], count=schema.num_tasks)

    def learning_rates(self) -> Mapping[nn.Parameter, float]:
        """That of the stitches."""
        return dict.fromkeys(self.body.stitches.parameters(), self.settings.stitch_lr)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        x = self.input(features)
        return ModelOutput(self.towers(self.body(x)), shared=x)
