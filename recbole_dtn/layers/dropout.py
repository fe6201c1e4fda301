"""Dropout, with its random numbers drawn four at a time on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

__all__ = ["Dropout", "dropout"]

LEVELS = 1 << 16


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """``x * m / (1 - p)``, m 0 with probability p and else 1, drawn for each value; x itself outside of training.

    torch draws each m on a CPU from 64 random bits, one by one, unless the processor is Intel's. Here 64 bits give
    four, so that p is rounded to a multiple of 2^-16 (in the scale too: the mean is exact). A batch in another layout
    gets the same m at the same place in memory. Other devices and types, and a p that would be rounded to 0 or 1, use
    ``torch.nn.functional.dropout``.

    >>> _ = torch.manual_seed(0)
    >>> found = dropout(torch.ones(1000), 0.25)
    >>> sorted({round(value, 4) for value in found.tolist()}), 200 < int((found == 0).sum()) < 300
    ([0.0, 1.3333], True)
    """
    dropped = round(p * LEVELS)
    drawn_here = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and 0 < dropped < LEVELS
    if not (training and drawn_here):
        return functional.dropout(x, p, training)
    count = x.numel()
    words = torch.randint(-(1 << 63), (1 << 63) - 1, ((count + 3) // 4,), device=x.device)
    kept = torch.empty_like(x)
    levels = kept.as_strided((count,), (1,)).copy_(words.view(torch.int16)[:count])
    levels.ge_(dropped - LEVELS // 2).mul_(LEVELS / (LEVELS - dropped))
    return x * kept


class Dropout(nn.Dropout):
    """``nn.Dropout`` by :func:`dropout`. Args: p: share of values set to zero.

    >>> Dropout(0.5).eval()(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """(...) -> the same shape."""
        return dropout(input, self.p, self.training)
