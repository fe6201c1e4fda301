"""Each task's gradient of the same parameters, rows of tables kept sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_dtn.balancer.processes import gather_rows, mean_over_processes
from recbole_dtn.layers.rows import touched_rows

__all__ = ["TaskGradients", "stack_gradients"]


@dataclass(frozen=True)
class TaskGradients:
    """The gradients of T losses over the same parameters.

    Attributes:
        count: T.
        parameters: P of them.
        rows: per parameter, the rows (n,) of a table that ``values`` holds, those that any task reaches; None where it
            holds the whole parameter.
        values: per parameter, (T, \\*shape), or (T, n, D) for the rows of a table.
    """

    count: int
    parameters: tuple[nn.Parameter, ...]
    rows: tuple[Tensor | None, ...]
    values: tuple[Tensor, ...]

    def gram(self) -> Tensor:
        """``M = G G^T``, (T, T) in float64 on the CPU: the inner products of the tasks' whole gradients."""
        if not self.values:
            return torch.zeros(self.count, self.count, dtype=torch.float64)
        # (T, n) (n, T) per parameter; in float64, as a difference of two such products decides signs and weights.
        products = [flat @ flat.t() for flat in (values.flatten(1).double() for values in self.values)]
        return torch.stack(products).sum(0).cpu()

    def combine(self, weights: Tensor) -> list[Tensor]:
        """``sum_t weights_t g_t`` per parameter, sparse and coalesced for the rows of a table.

        Args:
            weights: (T,).
        """
        combined = []
        for parameter, rows, values in zip(self.parameters, self.rows, self.values, strict=True):
            wide = values.float() if values.dtype is torch.bfloat16 else values
            total = (weights.to(wide) @ wide.flatten(1)).view(values.shape[1:]).to(values.dtype)
            if rows is not None:
                total = torch.sparse_coo_tensor(
                    rows.unsqueeze(0), total, parameter.shape, is_coalesced=True, check_invariants=False
                )
            combined.append(total)
        return combined


def stack_gradients(parameters: Sequence[nn.Parameter], each: Sequence[Sequence[Tensor | None]]) -> TaskGradients:
    """Per task the gradient of each parameter (None: zeros) as one :class:`TaskGradients`, means over the processes."""
    rows: list[Tensor | None] = []
    values: list[Tensor] = []
    for parameter, parts in zip(parameters, zip(*each, strict=True), strict=True):
        found = [part for part in parts if part is not None]
        # Kept sparse only if each task that reaches the parameter gives a sparse gradient.
        if found and all(part.is_sparse for part in found):
            reached, stacked = _stack_rows(parameter, parts)
        else:
            whole = [torch.zeros_like(parameter) if part is None else part.to_dense() for part in parts]
            reached, stacked = None, torch.stack(whole)
        rows.append(reached)
        values.append(stacked)
    # Rows of tables were averaged in _stack_rows; all dense gradients travel together here.
    dense = [place for place, reached in enumerate(rows) if reached is None]
    for place, mean in zip(dense, mean_over_processes([values[place] for place in dense]), strict=True):
        values[place] = mean
    return TaskGradients(len(each), tuple(parameters), tuple(rows), tuple(values))


def _stack_rows(parameter: nn.Parameter, parts: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Sparse gradients of one table (R, D), by T tasks -> rows (n,) that any of them reaches, and values (T, n, D)."""
    tasks, (size, dim) = len(parts), parameter.shape
    found = [part for part in parts if part is not None]
    looked_up = found[0]._indices()
    if len(found) == tasks and all(torch.equal(part._indices(), looked_up) for part in found[1:]):
        # One look-up for all tasks, as a shared table has it: their values are contiguous and are summed in one pass.
        wide = torch.cat([part._values() for part in found], dim=1)
    else:
        # Each task's values in columns of its own, zeros in the others'.
        looked_up = torch.cat([part._indices() for part in found], dim=1)
        wide = found[0]._values().new_zeros(looked_up.shape[1], tasks * dim)
        start = 0
        for task, part in enumerate(parts):
            if part is not None:
                end = start + part._nnz()
                wide[start:end, task * dim : (task + 1) * dim] = part._values()
                start = end
    # One sum per row for all T tasks; touched_rows wants a matrix, so tasks lie side by side in T * D columns.
    joined = torch.sparse_coo_tensor(looked_up, wide, (size, tasks * dim), check_invariants=False)
    rows, sums = gather_rows(*touched_rows(joined), size)
    return rows, sums.to(parameter.dtype).view(len(rows), tasks, dim).transpose(0, 1)
