"""MaskNet: feed-forward layers whose input is multiplied by a mask made from the instance itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import WIDE, Auto
from recbole_dtn.kernels.masks import masked_projection
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["MaskBlock", "MaskNet"]

AGGREGATION = 256
"""Hidden width of a mask that is wider than :data:`~recbole_dtn.interaction.bounds.WIDE`, with ``reduction: auto``."""


class MaskBlock(nn.Module):
    """One mask block: ``ReLU(LN(W (M * x) + b))`` with ``M = W_2 ReLU(W_1 v + b_1) + b_2``.

    v is the flat embedding, never normalised, whatever x is. ``W_1`` has ``reduction`` times the width of the mask
    as its rows (the paper's ratio of aggregation to projection), at least one.

    Args:
        embedding_width: width of v. input_width: width of x and of the mask. output_width: width of the block.
        reduction: width of the mask's hidden layer over ``input_width``; ``auto``: 2, but a width of 256 beyond an
            ``input_width`` of 512. bias: whether there is a b.
        eps: of the layer norm.
    """

    def __init__(
        self,
        embedding_width: int,
        input_width: int,
        output_width: int,
        *,
        reduction: float | Auto,
        bias: bool,
        eps: float,
    ) -> None:
        super().__init__()
        if reduction == "auto":
            aggregation = AGGREGATION if input_width > WIDE else 2 * input_width
        else:
            aggregation = max(1, round(reduction * input_width))
        self.mask = nn.Sequential(Linear(embedding_width, aggregation), nn.ReLU(), Linear(aggregation, input_width))
        self.project = Linear(input_width, output_width, bias=bias)
        self.norm = nn.LayerNorm(output_width, eps=eps)

    def forward(self, embedding: Tensor, inputs: Tensor) -> Tensor:
        """Embedding (B, F*D) and inputs (B, I) -> (B, output width)."""
        projected = masked_projection(embedding, inputs, self.mask, self.project)
        # In place: layer norm keeps its input for the backward pass, not its output.
        output: Tensor = self.norm(projected).relu_()
        return output


class FieldNorm(nn.Module):
    """Layer norm of every field's embedding by itself, each field with its own gain and shift."""

    def __init__(self, num_fields: int, embedding_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(num_fields, embedding_dim))
        self.shift = nn.Parameter(torch.zeros(num_fields, embedding_dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, F, D)."""
        # Statistics per field (B, F), gain and shift (F, D); nn.LayerNorm(D) has one gain and shift for all fields.
        return functional.layer_norm(embeddings, embeddings.shape[-1:], eps=self.eps) * self.gain + self.shift


@INTERACTIONS.register("masknet", paper="Wang et al., 2021 (arXiv 2102.07619)")
class MaskNet(FeatureInteraction):
    """Masks made from the instance multiply the input of feed-forward blocks, serial or parallel.

    MaskNet (Wang et al., 2021, arXiv 2102.07619). With v = flat(embeddings) and
    x_0 = flat(LN_emb(embeddings)), LN_emb per field (x_0 = v without ``embedding_norm``), block l has parameters of
    its own::

        M_l(v)     = W_2 ReLU(W_1 v + b_1) + b_2
        block_l(x) = ReLU(LN(W (M_l(v) * x)))        (W ( . ) + b with ``projection_bias``)
        serial:    h = block_n( ... block_2(block_1(x_0)))
        parallel:  h = [block_1(x_0) ; ... ; block_n(x_0)]
        output     = W_o MLP(h) + b_o        (MLP(h) without ``final_layer``; then ReLU with ``output_activation``)

    The mask reads v, never normalised, in every block. All layer norms have the epsilon ``norm_eps``.

    Args:
        shape: sizes of the input. output_dim: O.
        structure: how the blocks are put together.
        blocks: n, at least 1. block_dim: output width of every block; or a list with one width for each block, which
            then sets their number.
        reduction: width of a mask's hidden layer = reduction x width of the mask (F*D, or block_dim for a block
            on a block), rounded. ``auto``: 2, as in the paper, up to a mask of width 512; beyond, the hidden width is
            256, as in DTN's released code (1,472 channels).
        hidden: widths of the MLP, ReLU after each; none leaves one linear map.
        embedding_norm: whether the blocks read normalised embeddings.
        output_activation: what the output passes at last; ``relu`` in DTN's released code.
        projection_bias: whether W has a bias; it has in DTN's released code. norm_eps: there 1e-12.
        final_layer: whether W_o and b_o exist; without them h or its MLP must have the width O.

    Raises:
        UsageError: for an empty list of widths, or another width than O without a final layer.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> MaskNet(shape, 6, block_dim=8)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        structure: Annotated[
            Literal["serial", "parallel"],
            Field(description="each block reads the one before, or all read the embeddings"),
        ] = "parallel",
        blocks: Annotated[int, Field(ge=1, description="mask blocks")] = 2,
        block_dim: Annotated[
            Count | Sequence[Count],
            Field(description="output width of each block; a list has one width for each, and sets their number"),
        ] = 64,
        reduction: Annotated[
            Annotated[float, Field(gt=0, allow_inf_nan=False)] | Auto,
            Field(
                description="hidden width of a mask = reduction x width of the mask; auto: 2, but a hidden width of "
                "256 for masks wider than 512"
            ),
        ] = "auto",
        hidden: Annotated[
            Sequence[Count],
            Field(description="hidden widths of the MLP after the blocks; [] leaves one linear map to the output"),
        ] = (),
        embedding_norm: Annotated[bool, Field(description="layer norm per field on the embeddings")] = True,
        output_activation: Annotated[
            Literal["none", "relu"], Field(description="activation of the output: none, or relu (released DTN code)")
        ] = "none",
        projection_bias: Annotated[
            bool, Field(description="bias in the projection of a block (released DTN code: true)")
        ] = False,
        norm_eps: Annotated[
            float, Field(gt=0, allow_inf_nan=False, description="epsilon of the layer norms (released DTN code: 1e-12)")
        ] = 1e-5,
        final_layer: Annotated[
            bool, Field(description="linear map to the output; false: the blocks or their MLP must end in module_dim")
        ] = True,
    ) -> None:
        super().__init__(shape, output_dim)
        width, serial = shape.flat_dim, structure == "serial"
        if reduction == "auto" and width > WIDE:
            self.bounded = (
                f"masknet: the hidden width of a mask is {AGGREGATION}, as the width F*D is {width:,} and above {WIDE} "
                f"(reduction: 2 makes it {2 * width:,})"
            )
        widths = _block_widths(block_dim, blocks)
        self.structure, self.output_activation = structure, output_activation
        norm = FieldNorm(shape.num_fields, shape.embedding_dim, norm_eps) if embedding_norm else nn.Identity()
        self.embedding_norm = norm
        # Serial: block l reads block l - 1. Parallel: each reads the embeddings.
        reads = [width, *widths[:-1]] if serial else [width] * len(widths)
        # Each mask has the width of what its block reads.
        self.blocks = nn.ModuleList(
            MaskBlock(width, read, own, reduction=reduction, bias=projection_bias, eps=norm_eps)
            for read, own in zip(reads, widths, strict=True)
        )
        self.mlp = MLP(widths[-1] if serial else sum(widths), hidden)
        self.head = Linear(self.mlp.output_dim, output_dim) if final_layer else _no_layer(self.mlp, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        # v of the masks; the blocks' input may be normalised, the masks' never is.
        raw = embeddings.flatten(1)
        mixed: Tensor = self.embedding_norm(embeddings).flatten(1)
        # Serial: (B, width of block l) after each block. Parallel: (B, sum of the widths).
        if self.structure == "serial":
            for block in self.blocks:
                mixed = block(raw, mixed)
        else:
            mixed = torch.cat([block(raw, mixed) for block in self.blocks], dim=1)
        output: Tensor = self.head(self.mlp(mixed))
        return torch.relu(output) if self.output_activation == "relu" else output


def _block_widths(block_dim: int | Sequence[int], blocks: int) -> list[int]:
    """Output width of every block."""
    widths = [block_dim] * blocks if isinstance(block_dim, int) else [*block_dim]
    if not widths:
        raise UsageError("interaction 'masknet': 'block_dim' is an empty list: it needs one width for each block")
    return widths


def _no_layer(mlp: MLP, output_dim: int) -> nn.Module:
    """The identity in place of the final layer, where ``mlp`` ends in the width O."""
    if mlp.output_dim != output_dim:
        raise UsageError(
            "interaction 'masknet': with 'final_layer: false' the blocks or their MLP must end in the width "
            f"output_dim (module_dim) {output_dim}, found {mlp.output_dim}: change 'block_dim' or the last "
            "width of 'hidden'"
        )
    return nn.Identity()
