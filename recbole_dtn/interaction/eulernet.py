"""EulerNet: products of fields with learned exponents, in the complex plane."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Positive, Rate
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.precision import full_precision, without_autocast
from recbole_dtn.registry import INTERACTIONS

__all__ = ["EulerLayer", "EulerNet"]

EPSILON = 1e-8
"""Added to r^2 + p^2 before the logarithm. In float16 it would be 0, one reason why the layers compute in float32."""


class EulerLayer(nn.Module):
    """One Euler interaction layer: (r, p) of N_in complex vectors -> (r', p') of N_out.

    Args:
        count_in: N_in. count_out: N_out. width: D.
        layer_norm: whether r' and p' pass a layer norm over D each. limit: of the exponent; None for none.
        dropout_explicit: of lambda and theta. dropout_implicit: of r and p before the linear map.
    """

    def __init__(
        self,
        count_in: int,
        count_out: int,
        width: int,
        *,
        layer_norm: bool,
        limit: float | None,
        dropout_explicit: float,
        dropout_implicit: float,
    ) -> None:
        super().__init__()
        self.limit = limit
        # Column k holds the exponents of output k. Of several inputs the softmax of so wide a draw picks about one.
        square = count_in == count_out
        orders = torch.eye(count_in) if square else (torch.randn(count_in, count_out) / 0.01).softmax(0)
        self.orders = nn.Parameter(orders)
        self.log_shift = nn.Parameter(0.01 * torch.randn(width, count_out))
        self.phase_shift = nn.Parameter(0.01 * torch.randn(width, count_out))
        self.linear = Linear(count_in * width, count_out * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2)) if layer_norm else None
        self.drop_explicit = Dropout(dropout_explicit)
        self.drop_implicit = Dropout(dropout_implicit)

    def forward(self, parts: Tensor) -> Tensor:
        """r and p as (B, 2, N_in, D) -> (B, 2, N_out, D)."""
        real, imaginary = parts.unbind(1)
        square = real.square() + imaginary.square() + EPSILON
        log_modulus = self.drop_explicit(0.5 * square.log())
        phase = self.drop_explicit(_phase(real, imaginary, square))
        # (B, D, N_in) x (N_in, N_out): the exponents act on the axis of the vectors, every channel by itself.
        exponent = log_modulus.transpose(1, 2) @ self.orders
        if self.limit is not None:
            exponent = exponent.clamp(-self.limit, self.limit)
        modulus = (exponent + self.log_shift).exp()
        angle = phase.transpose(1, 2) @ self.orders + self.phase_shift
        explicit = torch.stack([modulus * angle.cos(), modulus * angle.sin()], dim=1).transpose(2, 3)
        # One linear map for both parts.
        implicit = torch.relu(self.linear(self.drop_implicit(parts).flatten(2))).view_as(explicit)
        mixed = explicit + implicit
        if self.norms is None:
            return mixed
        return torch.stack([norm(part) for norm, part in zip(self.norms, mixed.unbind(1), strict=True)], dim=1)


def _phase(real: Tensor, imaginary: Tensor, square: Tensor) -> Tensor:
    """``atan2(p, r)``, without a gradient where r^2 + p^2 < EPSILON: there it grows without bound, to NaN at 0."""
    tiny = square < 2 * EPSILON
    return torch.atan2(
        torch.where(tiny, imaginary.detach(), imaginary),
        torch.where(tiny, real.detach(), real),
    )


@INTERACTIONS.register("eulernet", paper="Tian et al., SIGIR 2023")
class EulerNet(FeatureInteraction):
    """Fields as complex numbers: a weighted sum of their logarithms is a product with learned exponents.

    EulerNet (Tian et al., SIGIR 2023, arXiv 2304.10711). A field becomes the complex vector
    ``mu_f e^{i e_f}``, with real and imaginary parts r and p::

        r = mu_f cos(e_f),   p = mu_f sin(e_f)
        lambda  = 1/2 log(r^2 + p^2 + 1e-8),   theta = atan2(p, r)
        lambda' = exp(lambda A + b_lambda),    theta' = theta A + b_theta
        r' = ReLU(W r + c) + lambda' cos(theta'),   p' = ReLU(W p + c) + lambda' sin(theta')

    A (N_in, N_out) acts on the axis of the fields, b_lambda and b_theta are (D, N_out); W and c, on the flat r and p,
    are the same for both. A layer's r' and p' are the next layer's r and p, after a layer norm over D each with
    ``layer_norm``. The first layer has N_in = F. Then::

        concat: output = W_o [r_L ; p_L] + b_o
        sum:    output = W_o (r_L + p_L) + b_o      (one map for both parts, as in the released code)

    mu starts at 1. A starts as the identity where it is square, else as softmax over the fields of N(0, 1) / .01,
    nearly one field for each output; b_lambda and b_theta start as N(0, .01^2).

    lambda A is limited to plus and minus ``limit`` before the exponential, which overflows on many or wide fields
    otherwise. theta has no gradient where r^2 + p^2 < 1e-8: at r = p = 0 it would be NaN. The module computes
    in float32 in mixed precision.

    Args:
        shape: sizes of the input. output_dim: O.
        vectors: N_out of each layer. layer_norm: whether r' and p' are normalised. limit: of lambda A; None for none.
        read_out: how the output reads r_L and p_L.
        dropout_explicit: of lambda and theta. dropout_implicit: of r and p before W.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> EulerNet(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        vectors: Annotated[
            Sequence[Count], Field(min_length=1, description="complex vectors (order vectors) of each layer")
        ] = (3,),
        layer_norm: Annotated[bool, Field(description="layer norm of each layer's real and imaginary parts")] = False,
        limit: Annotated[
            Positive | None, Field(description="largest magnitude of the exponent; null: no limit")
        ] = 20.0,
        read_out: Annotated[
            Literal["concat", "sum"],
            Field(description="output map of both parts side by side, or of their sum (released code)"),
        ] = "concat",
        dropout_explicit: Annotated[Rate, Field(description="dropout of the logarithms and phases")] = 0.0,
        dropout_implicit: Annotated[Rate, Field(description="dropout in front of the linear map")] = 0.0,
    ) -> None:
        super().__init__(shape, output_dim)
        self.read_out = read_out
        self.scale = nn.Parameter(torch.ones(shape.num_fields, 1))  # mu
        self.layers = nn.Sequential(
            *(
                EulerLayer(
                    *counts,
                    shape.embedding_dim,
                    layer_norm=layer_norm,
                    limit=limit,
                    dropout_explicit=dropout_explicit,
                    dropout_implicit=dropout_implicit,
                )
                for counts in pairwise([shape.num_fields, *vectors])
            )
        )
        width = vectors[-1] * shape.embedding_dim
        self.head = Linear(2 * width if read_out == "concat" else width, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        with without_autocast(embeddings):
            angle = full_precision(embeddings)
            parts: Tensor = self.layers(torch.stack([self.scale * angle.cos(), self.scale * angle.sin()], dim=1))
            read = parts if self.read_out == "concat" else parts.sum(1)
            output: Tensor = self.head(read.flatten(1))
        return output
