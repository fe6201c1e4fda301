"""FinalNet: layers that multiply one half of a linear map by the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Rate
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.norm import BatchNorm
from recbole_dtn.registry import INTERACTIONS

__all__ = ["FactorizedBlock", "FieldGate", "FinalNet"]

Combine = Literal["concat", "sum"]


class FieldGate(nn.Module):
    """``[e ; e * g]`` with ``g = W e + b`` over the field axis: every channel by itself.

    W (F, F) starts at zero and b (F,) at one, so that the second half is a copy of the first.
    """

    def __init__(self, num_fields: int) -> None:
        super().__init__()
        self.project = Linear(num_fields, num_fields)
        nn.init.zeros_(self.project.weight)
        nn.init.ones_(self.project.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, 2F, D)."""
        gates = self.project(embeddings.transpose(1, 2)).transpose(1, 2)
        return torch.cat([embeddings, embeddings * gates], dim=1)


class FactorizedLayer(nn.Module):
    """``dropout(activation(BN(f(W x + b))))``, f the product of two halves that ``combine`` names.

    Args:
        width_in: of x. width_out: of the output. combine: as of :class:`FinalNet`. batch_norm: whether there is BN.
        activation: after it. dropout: after that.
    """

    def __init__(
        self, width_in: int, width_out: int, *, combine: Combine, batch_norm: bool, activation: str, dropout: float
    ) -> None:
        super().__init__()
        self.concat = combine == "concat"
        self.linear = Linear(width_in, width_out if self.concat else 2 * width_out)
        after: list[nn.Module] = []
        if batch_norm:
            after.append(BatchNorm(width_out))
        if activation == "relu":
            after.append(nn.ReLU())
        if dropout > 0.0:
            after.append(Dropout(dropout))
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in) -> (B, width_out)."""
        second, first = self.linear(x).chunk(2, dim=1)
        product = first * second
        joined = torch.cat([second, product], dim=1) if self.concat else second + product
        output: Tensor = self.after(joined)
        return output


class FactorizedBlock(nn.Sequential):
    """Several :class:`FactorizedLayer`, one for each width."""

    def __init__(self, input_dim: int, widths: Sequence[int], **options: Any) -> None:
        super().__init__(*(FactorizedLayer(*pair, **options) for pair in pairwise([input_dim, *widths])))
        self.output_dim = widths[-1] if widths else input_dim


@INTERACTIONS.register("finalnet", paper="Zhu et al., SIGIR 2023")
class FinalNet(FeatureInteraction):
    """Layers whose halves multiply each other, in one block or in two, the first on gated fields.

    FINAL (Zhu et al., SIGIR 2023). A factorised layer on x, of width O'::

        [h_2 ; h_1] = W x + b                       (two halves)
        concat: z = [h_2 ; h_1 * h_2]               (W has O' rows)
        sum:    z = h_2 + h_1 * h_2                 (W has 2 O' rows)
        layer(x) = dropout(activation(BN(z)))

    Each layer doubles the highest order of the products. Block 1 reads the gated fields, block 2 the embeddings::

        g = W_g e + b_g  over the field axis, W_g (F, F), zero at first, and b_g (F,), one at first
        block 1 reads flat([e ; e * g])             (flat(e) without ``field_gate``), block 2 flat(e)
        output  = W_o [block 1 ; block 2] + b_o

    The paper takes the mean of two logits, one linear map per block: a linear map of both blocks side by side. It
    trains the two logits towards their mean too (self-distillation). That loss needs a logit in every module and the
    label, which an interaction has not, so that it is no part of this module.

    In training, BN takes the statistics of the batch, so that an output depends on the other rows; in evaluation it
    takes running ones. A training batch of one row is normalised by the running statistics
    (:class:`~recbole_dtn.layers.norm.BatchNorm`).

    Args:
        shape: sizes of the input. output_dim: O.
        blocks: 1 or 2. hidden: widths of block 1. hidden2: those of block 2; None: as block 1.
        combine: z. batch_norm: whether there is BN. activation: of every layer. dropout: of every layer.
        field_gate: whether block 1 reads gated fields.

    Raises:
        UsageError: for an odd width with ``concat``, which has two halves.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> FinalNet(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        blocks: Annotated[int, Field(ge=1, le=2, description="blocks, side by side")] = 2,
        hidden: Annotated[Sequence[Count], Field(min_length=1, description="widths of the first block's layers")] = (
            64,
            64,
            64,
        ),
        hidden2: Annotated[
            Sequence[Count] | None, Field(description="widths of the second block's layers; null: as the first block's")
        ] = None,
        combine: Annotated[
            Combine, Field(description="concat: [h2; h1*h2]; sum: h2 + h1*h2, with twice the parameters")
        ] = "concat",
        batch_norm: Annotated[bool, Field(description="batch norm in every layer")] = True,
        activation: Annotated[Literal["none", "relu"], Field(description="activation of every layer")] = "none",
        dropout: Annotated[Rate, Field(description="dropout after every layer")] = 0.0,
        field_gate: Annotated[bool, Field(description="the first block reads [e; e*g], g linear over the fields")] = (
            True
        ),
    ) -> None:
        super().__init__(shape, output_dim)
        widths = {"hidden": hidden, "hidden2": hidden if hidden2 is None else hidden2}
        if combine == "concat":
            for name in ("hidden", "hidden2")[:blocks]:
                _check_even(name, widths[name])

        def block(input_dim: int, name: str) -> FactorizedBlock:
            return FactorizedBlock(
                input_dim, widths[name], combine=combine, batch_norm=batch_norm, activation=activation, dropout=dropout
            )

        self.gate = FieldGate(shape.num_fields) if field_gate else None
        self.first = block((2 if field_gate else 1) * shape.flat_dim, "hidden")
        self.second = block(shape.flat_dim, "hidden2") if blocks == 2 else None
        self.head = Linear(self.first.output_dim + (self.second.output_dim if self.second else 0), output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        gated = embeddings if self.gate is None else self.gate(embeddings)
        mixed = self.first(gated.flatten(1))
        if self.second is not None:
            mixed = torch.cat([mixed, self.second(embeddings.flatten(1))], dim=1)
        output: Tensor = self.head(mixed)
        return output


def _check_even(name: str, widths: Sequence[int]) -> None:
    odd = [width for width in widths if width % 2]
    if odd:
        raise UsageError(
            f"finalnet: {name}: {odd[0]} is odd, and combine: concat makes every layer of two halves: choose "
            f"{odd[0] + 1}, or combine: sum"
        )
