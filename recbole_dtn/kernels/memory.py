"""MemoNet's memory, from the look-up to the first layer that reads it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.choice import are_fused, autocasting, exporting
from recbole_dtn.kernels.memory_chunks import MemoryTensors, PairCodes, Sides, recall
from recbole_dtn.kernels.products import linear

__all__ = ["Codebook", "PairCodes", "PairMemory", "Sides", "read_memory"]


class Codebook(Protocol):
    """A :class:`recbole_dtn.layers.table.RowTable` of codewords."""

    weight: Tensor
    training: bool
    sparse: bool
    l2: float
    penalty: Tensor | None

    def look_up(self, rows: Tensor, *, batch_size: int) -> Tensor:
        """Rows of any shape -> the same shape + (C,)."""


@dataclass(frozen=True)
class PairMemory:
    """What the memory is made of.

    Attributes:
        codebook: n codewords of width C. restorer: W_r, linear map m*C to D.
        mask: linear map 2D to H, ReLU, linear map H to m*C, for attentive restoring; else None.
        attention: F*D to P, for attentive shrinking; else None.
        sides: fields of the pairs. shrinks: whether the pairs of a field are summed.
    """

    codebook: Codebook
    restorer: nn.Linear
    mask: nn.Sequential | None
    attention: nn.Module | None
    sides: Sides
    shrinks: bool


def read_memory(memory: PairMemory, codes: PairCodes, embeddings: Tensor, reader: nn.Linear) -> Tensor:
    """``W [flat(e) ; flat(z)] + b``, where z restores and sums the codewords of every pair p = (i, j) of fields::

        r_p = W_r ( [c_p1 ; .. ; c_pm] * mask([e_i ; e_j]) )       (without a mask: W_r [c_p1 ; .. ; c_pm])
        z_i = sum over the pairs p of field i of a_p r_p           (without ``shrinks``: z is all r_p)
        a   = attention(flat(e))                                   (without it: ones)

    Args:
        memory: the parts. codes: codewords of every pair. embeddings: e, (B, F, D).
        reader: W and b, linear map F*D + (pairs or fields)*D to O.

    Returns:
        (B, O).
    """
    # A pass over a codebook larger than the batch's look-ups takes longer than the look-ups.
    fused = not exporting() and are_fused(memory.restorer, reader)
    if fused and codes.codes <= len(embeddings) * codes.pairs:
        return _by_chunks(memory, codes, embeddings, reader)
    sides = memory.sides
    codewords = memory.codebook.look_up(codes.indices, batch_size=embeddings.shape[0]).flatten(2)  # (B, P, m*C)
    if memory.mask is not None:
        pairs = torch.cat([embeddings[:, sides.left], embeddings[:, sides.right]], dim=2)
        codewords = codewords * memory.mask(pairs)
    flat = embeddings.flatten(1)
    restored = memory.restorer(codewords)  # (B, P, D)
    if memory.attention is not None:
        restored = restored * memory.attention(flat)[:, :, None]
    if memory.shrinks:
        restored = torch.matmul(sides.belongs, restored)  # (B, q, D)
    output: Tensor = reader(torch.cat([flat, restored.flatten(1)], dim=1))
    return output


def _by_chunks(memory: PairMemory, codes: PairCodes, embeddings: Tensor, reader: nn.Linear) -> Tensor:
    """The same without a tensor of all pairs, or of e and z side by side: W's columns are split instead."""
    flat = embeddings.flatten(1)
    attention = None if memory.attention is None else memory.attention(flat)
    to_flat, to_memory = reader.weight[:, : flat.shape[1]], reader.weight[:, flat.shape[1] :]
    output = linear(flat, to_flat, reader.bias)
    table, kind = memory.codebook, memory.codebook.weight.dtype
    tensors = MemoryTensors(
        codebook=table.weight,
        restorer=memory.restorer.weight,
        attention=None if attention is None else attention.to(kind),
        weight=None if memory.shrinks else to_memory,
    )
    if memory.mask is not None:
        inner, last = (cast(nn.Linear, memory.mask[place]).weight for place in (0, 2))
        tensors = replace(tensors, embeddings=embeddings.to(kind), inner=inner, last=last)
    penalised = table.training and table.l2 > 0.0
    # Look-ups are float32 under autocast too.
    with torch.autocast(embeddings.device.type, enabled=False) if autocasting(embeddings) else nullcontext():
        found, penalty = recall(tensors, codes, memory.sides, sparse=table.sparse, penalised=penalised)
    table.penalty = table.l2 * penalty / len(embeddings) if penalised else None
    return output + (linear(found.flatten(1), to_memory) if memory.shrinks else found)
