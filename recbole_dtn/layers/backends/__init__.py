"""Another library that looks the embedding table up: FBGEMM. The default, torch, does not need it."""

from __future__ import annotations

import torch

from recbole_dtn.layers.backends.fbgemm import FbgemmTable
from recbole_dtn.layers.backends.packages import require
from recbole_dtn.layers.table import RowTable

__all__ = ["FbgemmTable", "new_table", "require"]

TABLES: dict[str, type[RowTable]] = {"torch": RowTable, "fbgemm": FbgemmTable}


def new_table(backend: str, rows: int, dim: int, *, std: float, dtype: torch.dtype = torch.float32) -> RowTable:
    """The embedding table of a backend: ``torch`` or ``fbgemm``.

    The weights are the same numbers under the same name whatever the backend, so that a checkpoint of one loads into
    another.

    Raises:
        UsageError: when the backend's package is missing, or cannot keep such a table.

    >>> table = new_table("torch", 5, 4, std=0.1)
    >>> table.look_up(torch.tensor([[0, 4]]), batch_size=1).shape
    torch.Size([1, 2, 4])
    """
    require(backend)
    return TABLES[backend](rows, dim, std=std, dtype=dtype)
