"""Means over the processes of a run, of gradients that autograd's hooks did not reduce."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_dtn.layers.rows import touched_rows

__all__ = ["count_processes", "gather_rows", "mean_over_processes"]


def count_processes() -> int:
    """Processes that train together; 1 without ``torch.distributed``."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def mean_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over the processes, on all of them; the tensors themselves where there is one.

    Dense tensors of one type are reduced in one buffer. Sparse tensors (R, D) may have different rows on each process;
    their mean is coalesced.
    """
    processes = count_processes()
    if processes == 1:
        return list(tensors)
    # torch.distributed reduces sums on every backend, means on NCCL alone: the division comes after.
    means = list(tensors)
    # A set has no fixed order, and processes that reduce in different orders hang.
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors if not tensor.is_sparse):
        places = [i for i, tensor in enumerate(tensors) if not tensor.is_sparse and tensor.dtype == dtype]
        buffer = torch.cat([tensors[i].flatten() for i in places])
        torch.distributed.all_reduce(buffer)
        parts = (buffer / processes).split([tensors[i].numel() for i in places])  # type: ignore[no-untyped-call]
        for i, part in zip(places, parts, strict=True):
            means[i] = part.view(tensors[i].shape)
    for i, tensor in enumerate(tensors):
        if tensor.is_sparse:
            rows, values = gather_rows(*touched_rows(tensor), len(tensor))
            means[i] = torch.sparse_coo_tensor(
                rows.unsqueeze(0), values.to(tensor.dtype), tensor.shape, is_coalesced=True, check_invariants=False
            )
    return means


def gather_rows(rows: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Rows of a table that any process has, and the means of their values; a process without a row counts as zeros.

    Args:
        rows: (n,) int64, distinct. values: (n, D). size: rows R of the table.
    """
    processes = count_processes()
    if processes == 1:
        return rows, values
    counts = [rows.new_zeros(1) for _ in range(processes)]
    torch.distributed.all_gather(counts, rows.new_tensor([len(rows)]))
    most = int(torch.cat(counts).max())
    # Gathered tensors have one size: each is padded to the longest and cut afterwards.
    padded, width = most - len(rows), values.shape[1]
    all_rows = [rows.new_empty(most) for _ in counts]
    all_values = [values.new_empty(most, width) for _ in counts]
    torch.distributed.all_gather(all_rows, torch.cat([rows, rows.new_zeros(padded)]))
    torch.distributed.all_gather(all_values, torch.cat([values, values.new_zeros(padded, width)]))
    lengths = [int(count) for count in counts]
    # A row that several processes have comes several times; touched_rows sums it.
    joined = torch.sparse_coo_tensor(
        torch.cat([part[:length] for part, length in zip(all_rows, lengths, strict=True)]).unsqueeze(0),
        torch.cat([part[:length] for part, length in zip(all_values, lengths, strict=True)]),
        (size, width),
        check_invariants=False,
    )
    found, sums = touched_rows(joined)
    return found, sums / processes
