"""MemoNet's memory in one autograd Function, a chunk of rows at a time.

The plain formula keeps several vectors for every pair of a batch: its codewords (B, P, m*C), their gradient, the
restored vectors (B, P, D), and so on. Here a chunk of rows is looked up, restored and shrunk while it is in the cache.
The backward pass computes the chunk's restored vectors again. No tensor of size B*P*D is kept. Besides:

* Linear restoring is applied to the codebook first, ``r = sum_k W_r^(k) c_k``. That takes n products instead of B*P;
  a pair is then the sum of m rows.
* The gradient of the codebook adds up the look-ups of each codeword in sorted order. The order is found once a batch
  and shared by all owners.
* Summing the pairs of each field is one product with a 0/1 matrix.

Layouts: shrinking reads a chunk as (P, rows, D), so that this product runs over the leading axis without a copy.
Without shrinking the head reads a chunk as (rows, P*D), so the pairs come second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.kernels.first_order import first_order
from recbole_dtn.kernels.products import outer, product

__all__ = ["MemoryTensors", "PairCodes", "Sides", "recall"]

CHUNK = 2**20
"""Numbers (rows x P x D) in a chunk: 4 MiB. Half and twice as many take the same time on a core with 1 MiB of L2."""


def _counted(values: Tensor, size: int) -> Tensor:
    """How often each of 0 .. size - 1 is among ``values``."""
    # torch has no rule for the shape on the meta device, where memory is estimated: a result depends on the values.
    return values.new_empty(size) if values.is_meta else torch.bincount(values, minlength=size)


def _places(counts: Tensor) -> Tensor:
    """Where ``counts`` are not 0; on the meta device, all places."""
    return torch.arange(len(counts), device="meta") if counts.is_meta else counts.nonzero().squeeze(1)


class PairCodes:
    """The codewords of a batch, shared by all owners.

    Args:
        indices: (B, P, m) codewords, each in [0, codes). codes: n. width: D, for the size of a chunk.
    """

    def __init__(self, indices: Tensor, *, codes: int, width: int) -> None:
        self.indices, self.codes, self.width = indices, codes, width
        self._chunked: dict[bool, ChunkedCodes] = {}
        self._counts: Tensor | None = None

    @property
    def pairs(self) -> int:
        """P."""
        return self.indices.shape[1]

    def counts(self) -> Tensor:
        """(n,) look-ups of every codeword in the batch."""
        if self._counts is None:
            self._counts = _counted(self.indices.flatten(), self.codes)
        return self._counts

    def chunked(self, pairs_first: bool) -> ChunkedCodes:
        """The codewords in chunks of layout (P, rows), or (rows, P)."""
        if pairs_first not in self._chunked:
            self._chunked[pairs_first] = ChunkedCodes(self, pairs_first)
        return self._chunked[pairs_first]


class ChunkedCodes:
    """The codewords of a batch in chunks of rows, and for the backward pass in sorted order.

    Attributes:
        chunks: slices of the batch's rows. pairs: P. hashes: m. codes: n.
    """

    def __init__(self, given: PairCodes, pairs_first: bool) -> None:
        self.indices, self.codes, self.pairs_first = given.indices, given.codes, pairs_first
        batch, self.pairs, self.hashes = given.indices.shape
        self.counts = given.counts
        # At least one row, however many pairs it has.
        rows = max(1, CHUNK // (self.pairs * given.width))
        self.chunks = [slice(start, min(start + rows, batch)) for start in range(0, batch, rows)]
        # Both are filled in the forward and the backward pass of the first owner, and read by the others.
        self._keys: dict[int, Tensor] = {}
        self._orders: dict[tuple[int, bool], tuple[Tensor, Tensor, Tensor | None]] = {}

    def keys(self, chunk: int) -> Tensor:
        """(pairs and rows of the chunk, m) int32: codeword plus n times the number of the hash."""
        if chunk not in self._keys:
            # int32 halves what the look-ups read. The keys of hash k are k*n to (k+1)*n - 1: its rows of the table.
            apart = self.indices[self.chunks[chunk]] + self.codes * torch.arange(
                self.hashes, device=self.indices.device
            )
            if self.pairs_first:
                apart = apart.transpose(0, 1)
            self._keys[chunk] = apart.to(torch.int32, memory_format=torch.contiguous_format).view(-1, self.hashes)
        return self._keys[chunk]

    def add(self, chunk: int, values: Tensor, total: Tensor) -> None:
        """Add ``values`` to the rows of ``total`` that the chunk looked up.

        Args:
            values: (pairs and rows, width), the same for all hashes, with ``total`` (m * n, width); or one each,
                (pairs and rows * m, width), with ``total`` (n, width).
        """
        # One value serves all m hashes of a pair (linear restoring), or each hash has its own (attentive).
        each = len(total) == self.codes and self.hashes > 1
        source, starts, rows = self._order(chunk, each, len(total))
        summed = functional.embedding_bag(source, values, starts, mode="sum")
        if rows is None:
            total += summed
        else:  # the rows are distinct, so adding by a copy is safe
            total.index_copy_(0, rows, total.index_select(0, rows).add_(summed))

    def _order(self, chunk: int, each: bool, size: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The look-ups of a chunk sorted by codeword.

        Returns:
            For each look-up in that order the row of ``values`` that it adds; where the look-ups of each codeword
            begin; and which codewords they are, or None for all of them.
        """
        if (chunk, each) not in self._orders:
            keys = self.keys(chunk).flatten()
            keys = keys % self.codes if each else keys
            # Stable: equal codewords keep the order of the rows, so that a sum has the same rounding every time.
            ordered, order = torch.sort(keys, stable=True)
            source = (order if each else order.div_(self.hashes, rounding_mode="floor")).to(torch.int32)
            count = _counted(ordered, size)
            rows = None
            # A chunk with fewer look-ups than the table has rows cannot touch them all: list those that it does.
            if size > len(keys):
                rows = _places(count)
                count = count[rows]
            starts = (count.cumsum(0) - count).to(torch.int32)
            self._orders[chunk, each] = source, starts, rows
        return self._orders[chunk, each]


@dataclass(frozen=True)
class Sides:
    """The two fields of each pair, and 0/1 matrices whose product with the pairs sums those of each field.

    Attributes:
        left, right: (P,) positions of the pair's fields. left_of, right_of: (F, P), 1 where the field is that one.
        belongs: (q, P), 1 where the pair contains the field.
    """

    left: Tensor
    right: Tensor
    left_of: Tensor
    right_of: Tensor
    belongs: Tensor


@dataclass(frozen=True)
class MemoryTensors:
    """What the memory is made of.

    Attributes:
        codebook: (n, C). restorer: (D, m*C), W_r.
        embeddings: (B, F, D), inner: W_1 (H, 2D) and last: W_2 (m*C, H), for attentive restoring; else None.
        attention: (B, P) for attentive shrinking, else None.
        weight: (O, P*D) where pairs are not shrunk but multiplied at once, else None.
    """

    codebook: Tensor
    restorer: Tensor
    embeddings: Tensor | None = None
    inner: Tensor | None = None
    last: Tensor | None = None
    attention: Tensor | None = None
    weight: Tensor | None = None


def recall(
    memory: MemoryTensors, codes: PairCodes, sides: Sides, *, sparse: bool, penalised: bool
) -> tuple[Tensor, Tensor]:
    """Look up, restore and shrink.

    Args:
        memory: tensors. codes: codewords. sides: fields of the pairs.
        sparse: whether the codebook's gradient is sparse. penalised: whether to compute the second result.

    Returns:
        z (B, q, D), or with ``weight`` the product (B, O); and ``1/2 * sum |codeword|^2`` over the look-ups (0 unless
        ``penalised``).
    """
    found: tuple[Tensor, Tensor] = _Recall.apply(  # type: ignore[no-untyped-call]
        codes.chunked(memory.weight is None), sides, sparse, penalised,
        memory.codebook, memory.restorer, memory.embeddings, memory.inner, memory.last, memory.attention, memory.weight,
    )  # fmt: skip
    return found


class _LinearRestoring:
    """Linear restoring: the codebook times the part of W_r of each hash, then sums of m rows."""

    def __init__(self, codes: ChunkedCodes, codebook: Tensor, restorer: Tensor) -> None:
        self.codes, self.codebook = codes, codebook
        self.parts = restorer.chunk(codes.hashes, dim=1)
        # Row k * n + c is W_r^(k) times codeword c, which is what ``keys`` numbers.
        self.table = torch.cat([product(codebook, part) for part in self.parts])  # (m*n, D)
        self.total: Tensor | None = None

    def restore(self, chunk: int) -> Tensor:
        """(pairs and rows, D)."""
        return functional.embedding_bag(self.codes.keys(chunk), self.table, mode="sum")

    def backward(self, chunk: int, gradient: Tensor) -> None:
        if self.total is None:
            self.total = torch.zeros_like(self.table)
        self.codes.add(chunk, gradient, self.total)

    def gradients(self) -> tuple[Tensor, Tensor, None, None, None]:
        """Of the codebook and of W_r."""
        assert self.total is not None
        # (n, D) per hash: the summed gradients of that hash's rows of ``table``.
        by_hash = self.total.chunk(self.codes.hashes)
        codebook = torch.zeros_like(self.codebook)
        for gradient, part in zip(by_hash, self.parts, strict=True):
            codebook.addmm_(gradient, part)
        return codebook, torch.cat([outer(gradient, self.codebook) for gradient in by_hash], 1), None, None, None


class _AttentiveRestoring:
    """Attentive restoring: ``W_r (c * W_2 ReLU(W_1 [e_i ; e_j]))``.

    ``W_1 [e_i ; e_j]`` is the sum of a half of W_1 applied to e_i and the other applied to e_j. Each half is applied
    to every field once: F times instead of P.
    """

    def __init__(
        self, codes: ChunkedCodes, sides: Sides, codebook: Tensor, restorer: Tensor,
        embeddings: Tensor, inner: Tensor, last: Tensor,
    ) -> None:  # fmt: skip
        self.codes, self.sides, self.codebook, self.restorer = codes, sides, codebook, restorer
        self.embeddings, self.inner, self.last = embeddings, inner, last
        self.axis = 0 if codes.pairs_first else 1  # of the pairs, and of the fields of ``given``
        self.given = embeddings.transpose(0, 1) if codes.pairs_first else embeddings
        # W_1 = [for e_i ; for e_j], (H, D) each.
        self.halves = inner.chunk(2, dim=1)
        self.totals: list[Tensor] | None = None

    def restore(self, chunk: int) -> Tensor:
        """(pairs and rows, D)."""
        return product(self._parts(chunk)[3], self.restorer)

    def _fields(self, chunk: int) -> Tensor:
        return self.given.narrow(1 - self.axis, self.codes.chunks[chunk].start, self._rows(chunk))

    def _rows(self, chunk: int) -> int:
        return self.codes.chunks[chunk].stop - self.codes.chunks[chunk].start

    def _parts(self, chunk: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of every pair: hidden layer, mask, codewords, masked codewords."""
        fields = self._fields(chunk)
        left, right = (functional.linear(fields, half) for half in self.halves)
        hidden = left.index_select(self.axis, self.sides.left).add_(right.index_select(self.axis, self.sides.right))
        hidden = hidden.relu_().flatten(0, 1)
        mask = product(hidden, self.last)
        # Attentive restoring reads the codebook itself (n, C), so the number of the hash is taken off the keys.
        rows = self.codes.keys(chunk) % self.codes.codes
        codewords = functional.embedding(rows, self.codebook).flatten(1)
        return hidden, mask, codewords, codewords * mask

    def backward(self, chunk: int, gradient: Tensor) -> None:
        if self.totals is None:
            self.totals = [
                torch.zeros_like(each)
                for each in (self.codebook, self.restorer, self.embeddings, *self.halves, self.last)
            ]
        codebook, restorer, embeddings, first, second, last = self.totals
        # Computed again: tensors of all pairs of the batch are not kept.
        hidden, mask, codewords, masked = self._parts(chunk)
        restorer += outer(gradient, masked)
        to_masked = product(gradient, self.restorer.t())
        self.codes.add(chunk, (to_masked * mask).view(-1, codebook.shape[1]), codebook)
        to_mask = to_masked.mul_(codewords)  # in place: its last reader was the line above
        last += outer(to_mask, hidden)
        to_hidden = torch.ops.aten.threshold_backward(product(to_mask, self.last.t()), hidden, 0)
        rows = self._rows(chunk)
        shape = (self.codes.pairs, rows) if self.axis == 0 else (rows, self.codes.pairs)
        to_pairs = to_hidden.view(*shape, -1)
        fields, reached = self._fields(chunk), embeddings[self.codes.chunks[chunk]]
        sides = zip((self.sides.left_of, self.sides.right_of), self.halves, (first, second), strict=True)
        for matrix, half, total in sides:
            summed = _over_pairs(matrix, to_pairs, self.axis)  # (F, rows, H) or (rows, F, H)
            total += summed.flatten(0, 1).t() @ fields.flatten(0, 1)
            back = torch.matmul(summed, half)
            # A field is on the left of some pairs and on the right of others: both halves add to e.
            reached += back.transpose(0, 1) if self.axis == 0 else back

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of the codebook, W_r, the embeddings, W_1 and W_2."""
        assert self.totals is not None
        codebook, restorer, embeddings, first, second, last = self.totals
        return codebook, restorer, embeddings, torch.cat([first, second], dim=1), last


def _over_pairs(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """(q, P) times the pairs' axis of (P, rows, D) or (rows, P, D)."""
    if axis == 1:
        return torch.matmul(matrix, values)
    return product(matrix, values.flatten(1).t()).view(len(matrix), *values.shape[1:])


class _Recall(torch.autograd.Function):
    """:func:`recall`."""

    @staticmethod
    def forward(
        ctx: Any, codes: ChunkedCodes, sides: Sides, sparse: bool, penalised: bool,
        codebook: Tensor, restorer: Tensor, embeddings: Tensor | None, inner: Tensor | None, last: Tensor | None,
        attention: Tensor | None, weight: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.set_materialize_grads(False)  # the penalty's gradient is None where it is not part of the loss
        ctx.codes, ctx.sides, ctx.sparse = codes, sides, sparse
        ctx.save_for_backward(codebook, restorer, embeddings, inner, last, attention, weight)
        restoring = _restoring(codes, sides, codebook, restorer, embeddings, inner, last)
        batch, width = codes.chunks[-1].stop, restorer.shape[0]
        shape = (batch, len(sides.belongs), width) if weight is None else (batch, weight.shape[0])
        output = codebook.new_empty(shape)
        for chunk, rows in enumerate(codes.chunks):
            pairs = restoring.restore(chunk)
            if weight is not None:  # no shrinking: (rows, P*D) times the head's columns of the memory
                output[rows] = product(pairs.view(-1, codes.pairs * width), weight)
                continue
            pairs = pairs.view(codes.pairs, -1, width)
            if attention is not None:
                pairs = pairs.mul_(attention[rows].t().unsqueeze(2))
            output[rows] = _over_pairs(sides.belongs, pairs, 0).transpose(0, 1)
        penalty = torch.zeros((), device=codebook.device)
        if penalised:
            penalty = (codebook.float().square().sum(1) * codes.counts()).sum() / 2
        return output, penalty

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor | None, to_penalty: Tensor | None) -> tuple[Any, ...]:
        codes: ChunkedCodes = ctx.codes
        sides: Sides = ctx.sides
        codebook, restorer, embeddings, inner, last, attention, weight = ctx.saved_tensors
        restoring = _restoring(codes, sides, codebook, restorer, embeddings, inner, last)
        to_attention = None if attention is None else torch.empty_like(attention)
        to_weight = None if weight is None else torch.zeros_like(weight)
        # Only the penalty is part of the loss.
        if gradient is None:
            gradient = codebook.new_zeros(codes.chunks[-1].stop, *_tail(sides, restorer, weight))
        for chunk, rows in enumerate(codes.chunks):
            given = gradient[rows]
            if to_weight is not None:
                pairs = restoring.restore(chunk).view(-1, codes.pairs * restorer.shape[0])
                to_weight += outer(given, pairs)
                to_pairs = product(given, weight.t())
            else:
                # The transposed sum: a pair receives the gradients of both its fields.
                to_pairs = _over_pairs(sides.belongs.t(), given.transpose(0, 1), 0)  # (P, rows, D)
                if to_attention is not None:
                    pairs = restoring.restore(chunk).view_as(to_pairs).mul_(to_pairs)
                    to_attention[rows] = pairs.sum(2).t()
                    to_pairs = to_pairs.mul_(attention[rows].t().unsqueeze(2))
            restoring.backward(chunk, to_pairs.reshape(-1, restorer.shape[0]))
        to_codebook, to_restorer, to_embeddings, to_inner, to_last = restoring.gradients()
        if to_penalty is not None:
            # A codeword counts once per look-up, as in a penalty on rows looked up.
            to_codebook += codebook * (codes.counts() * to_penalty).to(codebook.dtype).unsqueeze(1)
        if ctx.sparse:
            # Every codeword that was looked up, in order, also with a gradient of 0: lazy optimisers count it.
            touched = _places(codes.counts())
            to_codebook = torch.sparse_coo_tensor(
                touched.unsqueeze(0), to_codebook[touched], codebook.shape, is_coalesced=True, check_invariants=False
            )
        return (
            None, None, None, None,
            to_codebook, to_restorer, to_embeddings, to_inner, to_last, to_attention, to_weight,
        )  # fmt: skip


def _tail(sides: Sides, restorer: Tensor, weight: Tensor | None) -> tuple[int, ...]:
    return (len(sides.belongs), restorer.shape[0]) if weight is None else (weight.shape[0],)


def _restoring(
    codes: ChunkedCodes, sides: Sides, codebook: Tensor, restorer: Tensor,
    embeddings: Tensor | None, inner: Tensor | None, last: Tensor | None,
) -> _LinearRestoring | _AttentiveRestoring:  # fmt: skip
    if embeddings is None or inner is None or last is None:
        return _LinearRestoring(codes, codebook, restorer)
    return _AttentiveRestoring(codes, sides, codebook, restorer, embeddings, inner, last)
