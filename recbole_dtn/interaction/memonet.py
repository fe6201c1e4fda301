"""MemoNet: a hashed codebook that memorises pairs of feature values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.kernels.hashes import PairHash, hash_pairs
from recbole_dtn.kernels.memory import PairCodes, PairMemory, Sides, read_memory
from recbole_dtn.layers.linear import Linear
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.table import RowTable
from recbole_dtn.registry import INTERACTIONS

__all__ = ["MemoNet", "PairHash", "hash_pairs"]

CODE_STD = 0.01
"""Standard deviation of fresh codewords, as in the MemoNet authors' code."""


@INTERACTIONS.register("memonet", paper="Zhang et al., 2022 (arXiv 2211.01334)")
class MemoNet(FeatureInteraction):
    """Memorises pairs of field values in a hashed codebook (HCNet).

    MemoNet (Zhang et al., 2022, arXiv 2211.01334). For every pair p = (i, j), i < j, of fields with one id per
    row, v_i the id of field i, and a codebook of n codewords of width C that all hash functions read::

        address:   c_k = codebook[ h_k(i, v_i, j, v_j) ],  k = 1..m
        restore:   lmr   r_ij = W_r [c_1 ; .. ; c_m]
                   amr   r_ij = W_r ( [c_1 ; .. ; c_m] * W_2 ReLU(W_1 [e_i ; e_j]) )
        shrink:    attentive   z_i = sum_j a_ij r_ij,   a = W_b ReLU(W_a flat(e))
                   sum         z_i = sum_j r_ij
                   none        z   = all r_ij
        output  =  W MLP([flat(e) ; flat(z)]) + b

    W_r, W_1 and W_2 are without bias and shared by all pairs; r_ij has the width D. W_1 has 2D rows (the authors'
    reduction ratio 1). In the shrinking, a has one number per pair (not per pair and field), a_ij = a_ji, so that a
    pair enters the sums of both its fields with the same weight, as in the authors' code.
    W_a reads all F embeddings and W_b has one row per pair; both without bias. The sums run over the fields that
    take part in pairs.

    Args:
        shape: sizes of the input. output_dim: O.
        codes: n. code_dim: C; None: D. hashes: m.
        restore: linear (LMR) or attentive (AMR) memory restoring.
        shrink: how the pairs of a field are summed; ``none`` keeps all pairs.
        attention_dim: rows of W_a.
        hidden: widths of the MLP, ReLU after each; none leaves one linear map.
        top_fields: q, only pairs among the q id fields of the largest size (ties: the earlier field); None: all.

    Attributes:
        hash_pairs: the hash functions, replaceable (see :data:`PairHash`).

    Raises:
        UsageError: when fewer than two fields can be paired.
    """

    reads_ids = True

    left: Tensor
    right: Tensor
    left_of: Tensor
    right_of: Tensor
    belongs: Tensor

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        codes: Annotated[int, Field(ge=1, description="codewords in the codebook")] = 10_000,
        code_dim: Annotated[Count | None, Field(description="width of a codeword; null: the embedding size")] = None,
        hashes: Annotated[int, Field(ge=1, description="hash functions m")] = 2,
        restore: Annotated[
            Literal["lmr", "amr"], Field(description="memory restoring: linear (lmr) or with attentive masks (amr)")
        ] = "lmr",
        shrink: Annotated[
            Literal["attentive", "sum", "none"],
            Field(description="how the pairs of a field are summed; none keeps all pairs"),
        ] = "attentive",
        attention_dim: Annotated[int, Field(ge=1, description="hidden width of the attentive shrinking")] = 64,
        hidden: Annotated[
            Sequence[Count], Field(description="hidden widths of the MLP; [] leaves one linear map to the output")
        ] = (),
        top_fields: Annotated[
            Count | None, Field(description="only pairs among the q fields with most ids; null: all pairs")
        ] = 8,
    ) -> None:
        super().__init__(shape, output_dim)
        self.codes, self.hashes, self.top_fields = codes, hashes, top_fields
        self.restore, self.shrink = restore, shrink
        # An attribute, so that tests and plug-ins can put another function here; share_key has it too.
        self.hash_pairs: PairHash = hash_pairs
        self.paired_fields = _paired_fields(shape, top_fields)
        count = len(self.paired_fields)
        pairs = torch.tensor(self.paired_fields)[torch.triu_indices(count, count, offset=1)]  # (2, P), in order
        for name, values in _pair_sides(pairs[0], pairs[1], shape.num_fields, self.paired_fields).items():
            self.register_buffer(name, values, persistent=False)
        width = shape.embedding_dim
        # m * C, the width of [c_1 ; .. ; c_m].
        restored = hashes * (width if code_dim is None else code_dim)
        # ``kind`` gives it the penalty codebook_l2 and counts it apart from embeddings.
        self.codebook = RowTable(codes, restored // hashes, std=CODE_STD, kind="codebook")
        self.restorer = Linear(restored, width, bias=False)
        if restore == "amr":
            self.code_mask = _two_layers(2 * width, 2 * width, restored)
        if shrink == "attentive":
            self.attention = _two_layers(shape.flat_dim, attention_dim, pairs.shape[1])
        # Vectors of width D that the memory adds to the F embeddings: all pairs, or one sum per paired field.
        kept = pairs.shape[1] if shrink == "none" else len(self.paired_fields)
        self.mlp = MLP(shape.flat_dim + kept * width, hidden)
        self.head = Linear(self.mlp.output_dim, output_dim)

    def share_key(self) -> Hashable:
        """All owners with the same hash functions over the same pairs read the same codeword indices."""
        return type(self), self.codes, self.hashes, self.top_fields, self.hash_pairs

    def prepare(self, ids: Tensor) -> PairCodes:
        """Ids (B, F) -> codeword indices (B, P, m)."""
        indices = self.hash_pairs(ids, self.left, self.right, self.hashes, self.codes)
        return PairCodes(indices, codes=self.codes, width=self.shape.embedding_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor:
        """Embeddings (B, F, D), ids (B, F), what :meth:`prepare` returned or None -> (B, O)."""
        codes: PairCodes = self.prepare(ids) if shared is None else shared
        # The first linear map after the memory, so that read_memory can apply its columns chunk by chunk.
        reader = cast(nn.Linear, self.mlp.layers[0] if len(self.mlp.layers) else self.head)
        output = read_memory(self._memory(), codes, embeddings, reader)  # W [flat(e) ; flat(z)] + b
        if len(self.mlp.layers):
            output = self.head(self.mlp.layers[1:](output))
        return output

    def _memory(self) -> PairMemory:
        return PairMemory(
            self.codebook,
            self.restorer,
            self.code_mask if self.restore == "amr" else None,
            self.attention if self.shrink == "attentive" else None,
            Sides(self.left, self.right, self.left_of, self.right_of, self.belongs),
            shrinks=self.shrink != "none",
        )


def _pair_sides(left: Tensor, right: Tensor, num_fields: int, paired_fields: Sequence[int]) -> dict[str, Tensor]:
    """The tensors of :class:`Sides` by name; ``left`` and ``right`` are the fields (P,) of each pair."""
    fields, paired = torch.arange(num_fields), torch.tensor(paired_fields)
    # 1 where the pair has the field: one product sums the pairs of each field, in a fixed order.
    left_of, right_of = (fields[:, None] == sides for sides in (left, right))
    belongs = (left_of | right_of)[paired]
    ones = {"left_of": left_of, "right_of": right_of, "belongs": belongs}
    return {"left": left, "right": right, **{name: found.float() for name, found in ones.items()}}


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Linear(inputs, hidden, bias=False), nn.ReLU(), Linear(hidden, outputs, bias=False))


def _paired_fields(shape: FieldShape, top_fields: int | None) -> list[int]:
    """Positions, in order, of the fields whose pairs are memorised."""
    if len(shape.id_fields) < 2:
        raise UsageError(
            "interaction 'memonet': it memorises pairs of fields with one id per row (token fields and binned floats) "
            f"and needs at least 2, but the data has {len(shape.id_fields)} among {shape.num_fields} fields: leave "
            "'memonet' out of 'interactions', or give a float field 'encoding: bins'"
        )
    if top_fields is None:
        return list(shape.id_fields)
    if top_fields < 2:
        raise UsageError(
            f"interaction 'memonet': 'top_fields' is {top_fields}; it must be at least 2, since it counts the fields "
            "that are paired with each other, or null for all"
        )
    # sorted is stable: of equal sizes the earlier field.
    by_size = sorted(shape.id_fields, key=lambda position: -shape.field_sizes[position])
    return sorted(by_size[:top_fields])
