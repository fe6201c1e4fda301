"""A table of rows that a batch looks up: the joint embedding table, and a codebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recbole_dtn.kernels.first_order import first_order
from recbole_dtn.kernels.pages import huge_pages

__all__ = ["LookUp", "RowTable"]


class RowTable(nn.Embedding):
    """``rows`` vectors of width ``dim``, initialised N(0, std), kept in ``dtype`` and looked up in float32.

    A subclass of ``nn.Embedding``, since DDP expects sparse gradients of that class alone.

    Attributes:
        sparse: whether gradients are sparse (for lazy and row-wise optimisers); set by ``TrainingModule`` and
            ``build_optimizer``.
        l2: coefficient of the penalty on the rows a batch looks up; set by ``MultiTaskRecommender``.
        penalty: ``l2 / 2 * sum over look-ups of |row|^2 / B`` of the last training forward, else None.
    """

    def __init__(
        self,
        rows: int,
        dim: int,
        *,
        std: float,
        kind: Literal["embedding", "codebook"] = "embedding",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # huge_pages comes before normal_, as it is for memory that has not been written. A given ``_weight`` also keeps
        # nn.Embedding from drawing N(0, 1) first.
        super().__init__(rows, dim, _weight=huge_pages(torch.empty(rows, dim, dtype=dtype)).normal_(0.0, std))
        self.kind = kind
        self.l2 = 0.0
        self.penalty: Tensor | None = None

    def look_up(self, rows: Tensor, *, batch_size: int) -> Tensor:
        """Rows (any shape of int64) -> the same shape + (dim,). ``batch_size`` is B of the penalty."""
        # Else a forward in evaluation would leave the penalty of an earlier batch.
        self.penalty = None
        if not (self.training and self.l2 > 0.0):
            return _widened(functional.embedding(rows, self.weight, sparse=self.sparse))
        found: Tensor
        scale = self.l2 / batch_size
        found, self.penalty = LookUp.apply(self.weight, rows, self.sparse, scale, self.gather)  # type: ignore[no-untyped-call]
        return found

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (any shape of int64) -> the same shape + (dim,), float32; what another backend replaces."""
        return _widened(functional.embedding(rows, self.weight))


def _widened(found: Tensor) -> Tensor:
    return found.float() if found.dtype is torch.bfloat16 else found


class LookUp(torch.autograd.Function):
    """The rows looked up, and ``scale / 2`` times the sum of their squares; one pass computes both gradients.

    ``gather`` takes rows of the table; the second output is None where ``scale`` is 0.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, rows: Tensor, sparse: bool, scale: float, gather: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        found = gather(rows)
        flat = found.flatten()
        ctx.save_for_backward(rows, found if scale > 0.0 else None)
        ctx.size, ctx.dtype, ctx.sparse, ctx.scale = weight.shape, weight.dtype, sparse, scale
        # Both gradients may be None: no zeros (n, D) are made for an output that the loss does not read.
        ctx.set_materialize_grads(False)
        return found, torch.dot(flat, flat) * (scale / 2) if scale > 0.0 else None

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor | None, to_penalty: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, found = ctx.saved_tensors
        if to_penalty is not None:
            # d(scale / 2 * |x|^2) = scale * x, added to the gradient of the look-ups before rows are summed.
            factor = to_penalty * ctx.scale
            gradient = found * factor if gradient is None else torch.addcmul(gradient, found, factor)
        if gradient is None:
            return None, None, None, None, None
        values, looked_up = gradient.reshape(-1, ctx.size[1]).to(ctx.dtype), rows.flatten()
        if ctx.sparse:
            # Not coalesced: the optimiser sums the look-ups of a row (touched_rows), once for all losses.
            sums = torch.sparse_coo_tensor(looked_up.unsqueeze(0), values, ctx.size, check_invariants=False)
        else:
            # -1: no padding row; False: not scaled by the frequency of a row.
            sums = torch.ops.aten.embedding_dense_backward(values, looked_up, ctx.size[0], -1, False)
        return sums, None, None, None, None
