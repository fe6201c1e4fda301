"""Parts that are computed in float32 whatever the precision of the rest."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from recbole_dtn.kernels.choice import autocasting

__all__ = ["full_precision", "without_autocast"]


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32, or in its own type where that is wider.

    >>> full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype, full_precision(torch.zeros(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of ``x``: products inside it have the type of their operands."""
    return torch.autocast(x.device.type, enabled=False) if autocasting(x) else nullcontext()
