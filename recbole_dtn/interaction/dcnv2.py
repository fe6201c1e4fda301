"""DCNv2: crosses of the input with itself, by a full matrix or by a mixture of low-rank experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import Auto, auto_rank
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.registry import INTERACTIONS

__all__ = ["DCNv2"]


@INTERACTIONS.register("dcnv2", paper="Wang et al., WWW 2021 (arXiv 2008.13535)")
class DCNv2(FeatureInteraction):
    """Improved deep and cross network: every cross layer has a full matrix, or a mixture of low-rank experts.

    DCNv2 (Wang et al., WWW 2021). With x_0 = flat(embeddings), width F*D, and L cross layers::

        full:       x_{l+1} = x_0 * (W_l x_l + b_l) + x_l
        low_rank:   x_{l+1} = x_l + sum_k g_k x_0 * (U_k tanh(C_k tanh(V_k x_l)) + b_l),   g = softmax(G_l x_l)
        cross:      output  = W x_L + b_o
        stacked:    output  = W MLP(x_L) + b_o
        parallel:   output  = W [x_L ; MLP(x_0)] + b_o

    V_k is (r, F*D), C_k (r, r), U_k (F*D, r), for each of K experts and each layer; G_l is (K, F*D), without a bias.
    With one expert there is no gate. The MLP has ReLU after every layer.

    The gates sum to 1, so the mixture is computed as one product with all experts side by side,
    ``x_0 * ([U_1 .. U_K] [g_1 h_1 ; .. ; g_K h_K] + b_l)``. As specified here every layer has gates of its own. FuxiCTR
    and RecBole use one set of gates for all layers: ``shared_gates``.

    Args:
        shape: sizes of the input. output_dim: O.
        layers: L, at least 1.
        structure: ``cross`` without an MLP, or the MLP after the cross layers or parallel to them.
        hidden: widths of the MLP; ``cross`` has none.
        low_rank: rank r of the experts; None: full matrices; ``auto``: full up to F*D = 512, 64 beyond.
        experts: K. shared_gates: one G for all layers. Both are of the mixture only.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> DCNv2(shape, 6, low_rank=2)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        layers: Annotated[Count, Field(description="cross layers")] = 2,
        structure: Annotated[
            Literal["cross", "stacked", "parallel"],
            Field(description="cross layers only, or with an MLP after them (stacked) or beside them (parallel)"),
        ] = "parallel",
        hidden: Annotated[
            Sequence[Count], Field(description="hidden widths of the MLP; not used by structure cross")
        ] = (256,),
        low_rank: Annotated[
            Count | Auto | None,
            Field(
                description="rank of each expert's matrices; null: no experts, one full matrix a layer; auto: 64 where "
                "F*D is above 512"
            ),
        ] = "auto",
        experts: Annotated[Count, Field(description="low-rank experts of each layer")] = 4,
        shared_gates: Annotated[
            bool, Field(description="one set of gates for all layers (FuxiCTR, RecBole); false: one per layer")
        ] = False,
    ) -> None:
        super().__init__(shape, output_dim)
        width = shape.flat_dim
        rank, bounded = auto_rank(low_rank, width)
        self.bounded = bounded and f"dcnv2: {bounded}"
        self.structure = structure
        if rank is None:
            self.crosses = nn.ModuleList(Linear(width, width) for _ in range(layers))
            self.gates = nn.ModuleList()
        else:
            self.crosses = nn.ModuleList(LowRankExperts(width, rank, experts) for _ in range(layers))
            # A softmax over one expert is 1 whatever the gate's weights are.
            sets = 0 if experts == 1 else 1 if shared_gates else layers
            self.gates = nn.ModuleList(SoftmaxGate(width, experts) for _ in range(sets))
        self.mlp = MLP(width, [] if structure == "cross" else hidden)
        # Parallel: [x_L ; MLP(x_0)], F*D more columns.
        self.head = Linear(self.mlp.output_dim + (width if structure == "parallel" else 0), output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D) -> (B, O); ``ids`` and ``shared`` are not read."""
        first = current = embeddings.flatten(1)
        for layer, cross in enumerate(self.crosses):
            if len(self.gates):
                crossed = cross(current, self.gates[layer % len(self.gates)](current))
            else:
                crossed = cross(current)
            current = first * crossed + current
        # Without widths (cross) the MLP is the identity.
        read = torch.cat([current, self.mlp(first)], dim=1) if self.structure == "parallel" else self.mlp(current)
        output: Tensor = self.head(read)
        return output


class LowRankExperts(nn.Module):
    """``sum_k g_k U_k tanh(C_k tanh(V_k x)) + b`` over K experts of rank r.

    Args:
        width: of the input and the output. rank: r. experts: K.

    Attributes:
        down: all V_k, one below the other, (K r, width). core: all C_k, (K, r, r). up: all U_k side by side, (width,
            K r), and b.
    """

    def __init__(self, width: int, rank: int, experts: int) -> None:
        super().__init__()
        self.down = Linear(width, experts * rank, bias=False)
        self.core = nn.Parameter(torch.empty(experts, rank, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.up = Linear(experts * rank, width)

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """(B, width) and gates (B, K), None for ones -> (B, width)."""
        experts, rank, _ = self.core.shape
        inner = torch.tanh(self.down(x)).view(-1, experts, rank)
        inner = torch.tanh(torch.einsum("bkr,ksr->bks", inner, self.core))
        if gates is not None:
            inner = inner * gates.unsqueeze(2)
        output: Tensor = self.up(inner.flatten(1))
        return output
