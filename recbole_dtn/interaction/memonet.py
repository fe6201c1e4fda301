"""MemoNet: a hashed codebook that memorises pairs of feature values."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.memory import Memory, PairCodes, Sides, recall
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.product import Linear, linear
from recbole_dtn.layers.table import RowTable
from recbole_dtn.registry import INTERACTIONS

__all__ = ["MemoNet", "PairHash", "hash_pairs"]

PairHash = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
"""``(ids (B, F), left (P,), right (P,), hashes, codes) -> (B, P, hashes)`` codewords in [0, codes)."""

CODE_STD = 0.01
"""Standard deviation of fresh codewords, as in the MemoNet authors' code."""


def _signed(value: int) -> int:
    """The 64 bits of ``value`` as torch reads them: two's complement."""
    return value - 2**64 if value >= 2**63 else value


HASHED_AT_ONCE = 2**16
"""Hash values computed together: half a MiB."""

GOLDEN = _signed(0x9E3779B97F4A7C15)
FIRST_FACTOR = _signed(0xBF58476D1CE4E5B9)
SECOND_FACTOR = _signed(0x94D049BB133111EB)


def _shift(bits: Tensor, count: int) -> Tensor:
    """Logical shift to the right (torch's ``>>`` of a negative int64 carries the sign in)."""
    return (bits >> count).bitwise_and_((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    """One step of splitmix64 (Steele et al., OOPSLA 2014) on every element; int64 products wrap around."""
    return _mix_(bits.clone())


def _mix_(bits: Tensor) -> Tensor:
    """:func:`_mix` in place."""
    bits.add_(GOLDEN)
    bits.bitwise_xor_(_shift(bits, 30)).mul_(FIRST_FACTOR)
    bits.bitwise_xor_(_shift(bits, 27)).mul_(SECOND_FACTOR)
    return bits.bitwise_xor_(_shift(bits, 31))


def hash_pairs(ids: Tensor, left: Tensor, right: Tensor, hashes: int, codes: int) -> Tensor:
    """Codewords of every pair of field values, under every hash function.

    With mix = splitmix64 and i = left[p], j = right[p]::

        h_k(i, v_i, j, v_j) = mix( mix(mix(mix(k) ^ i) ^ v_i) ^ mix(mix(j) ^ v_j) )  without its sign bit,  mod codes

    Both halves are computed once a field, not once a pair: only the last step is as large as the result.

    Args:
        ids: (B, F) int64. left, right: (P,) positions of each pair's fields.
        hashes: m, the functions are k = 0 .. m-1. codes: n.

    Returns:
        (B, P, m) int64 in [0, codes).

    >>> hash_pairs(torch.tensor([[3, 8]]), torch.tensor([0]), torch.tensor([1]), 2, 1000).shape
    torch.Size([1, 1, 2])
    """
    fields = torch.arange(ids.shape[1], device=ids.device)
    seeds = _mix(torch.arange(hashes, device=ids.device))
    first = _mix(_mix(seeds ^ fields[:, None]) ^ ids[:, :, None])  # (B, F, m)
    second = _mix(_mix(fields) ^ ids)[:, :, None]  # (B, F, 1)
    found = ids.new_empty(len(ids), len(left), hashes)
    rows = max(1, HASHED_AT_ONCE // (len(left) * hashes))
    for start in range(0, len(ids), rows):  # what a step writes is still in the cache when the next one reads it
        part = slice(start, start + rows)
        mixed = first[part].index_select(1, left).bitwise_xor_(second[part].index_select(1, right))
        torch.remainder(_mix_(mixed).bitwise_and_(2**63 - 1), codes, out=found[part])
    return found


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
        shrink: how the pairs are gathered up.
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
        self.hash_pairs: PairHash = hash_pairs
        self.paired_fields = _paired_fields(shape, top_fields)
        pairs = list(combinations(self.paired_fields, 2))
        self.register_buffer("left", torch.tensor([i for i, _ in pairs]), persistent=False)
        self.register_buffer("right", torch.tensor([j for _, j in pairs]), persistent=False)

        # 1 where the pair has the field: a product sums each field's pairs, in a fixed order.
        for name, sides, fields in (
            ("left_of", {0}, range(shape.num_fields)),
            ("right_of", {1}, range(shape.num_fields)),
            ("belongs", {0, 1}, self.paired_fields),
        ):
            ones = [[float(any(pair[side] == field for side in sides)) for pair in pairs] for field in fields]
            self.register_buffer(name, torch.tensor(ones), persistent=False)

        width = shape.embedding_dim
        restored = hashes * (width if code_dim is None else code_dim)
        self.codebook = RowTable(codes, restored // hashes, std=CODE_STD, kind="codebook")
        self.restorer = Linear(restored, width, bias=False)
        if restore == "amr":
            self.code_mask = _two_layers(2 * width, 2 * width, restored)
        if shrink == "attentive":
            self.attention = _two_layers(shape.flat_dim, attention_dim, len(pairs))
        kept = len(pairs) if shrink == "none" else len(self.paired_fields)
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
        # A codebook larger than the batch's pairs is not worth a pass over all of it.
        if self.fused and 0 < self.codes <= len(ids) * codes.pairs:
            return self._fused(embeddings, codes)
        codewords = self.codebook.look_up(codes.indices, batch_size=len(ids)).flatten(2)  # (B, P, m*C)
        if self.restore == "amr":
            pairs = torch.cat([embeddings[:, self.left], embeddings[:, self.right]], dim=2)
            codewords = codewords * self.code_mask(pairs)
        flat = embeddings.flatten(1)
        memory = self._shrink(self.restorer(codewords), flat)
        output: Tensor = self.head(self.mlp(torch.cat([flat, memory.flatten(1)], dim=1)))
        return output

    def _fused(self, embeddings: Tensor, codes: PairCodes) -> Tensor:
        """The same without a tensor of all pairs."""
        flat, width = embeddings.flatten(1), self.shape.flat_dim
        attention = self.attention(flat) if self.shrink == "attentive" else None
        # What first reads [flat(e) ; flat(z)] reads both apart: nothing is copied side by side.
        reader = cast(nn.Linear, self.mlp.layers[0] if len(self.mlp.layers) else self.head)
        to_flat, to_memory = reader.weight[:, :width], reader.weight[:, width:]
        output = linear(flat, to_flat, reader.bias)
        if self.shrink == "none":
            output = output + self._recall(embeddings, codes, None, to_memory)
        else:
            output = output + linear(self._recall(embeddings, codes, attention, None).flatten(1), to_memory)
        if len(self.mlp.layers):
            output = self.head(self.mlp.layers[1:](output))
        return output

    def _recall(self, embeddings: Tensor, codes: PairCodes, attention: Tensor | None, weight: Tensor | None) -> Tensor:
        """z (B, q, D), or its product (B, O) with ``weight`` (O, P*D); sets the codebook's penalty."""
        table, kind = self.codebook, self.codebook.weight.dtype
        attentive = self.restore == "amr"
        inner, last = (cast(nn.Linear, self.code_mask[place]).weight for place in (0, 2)) if attentive else (None, None)
        memory = Memory(
            table.weight,
            self.restorer.weight,
            embeddings.to(kind) if attentive else None,
            inner,
            last,
            None if attention is None else attention.to(kind),
            weight,
        )
        sides = Sides(self.left, self.right, self.left_of, self.right_of, self.belongs)
        penalised = self.training and table.l2 > 0.0
        # Look-ups are float32 under autocast too.
        with torch.autocast(embeddings.device.type, enabled=False):
            output, penalty = recall(memory, codes, sides, sparse=table.sparse, penalised=penalised)
        table.penalty = table.l2 * penalty / len(embeddings) if penalised else None
        return output

    def _shrink(self, restored: Tensor, flat: Tensor) -> Tensor:
        """(B, P, D) -> (B, q, D), or unchanged with ``shrink: none``."""
        if self.shrink == "none":
            return restored
        if self.shrink == "attentive":
            restored = restored * self.attention(flat)[:, :, None]
        return torch.matmul(self.belongs, restored)


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
    by_size = sorted(shape.id_fields, key=lambda position: -shape.field_sizes[position])
    return sorted(by_size[:top_fields])
