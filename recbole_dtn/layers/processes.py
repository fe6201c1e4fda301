"""Means over the processes of a distributed run."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_of_processes"]


def mean_of_processes(value: Tensor) -> Tensor:
    """The mean over processes of a tensor without a gradient, the same on all; ``value`` itself where there is one.

    Every process has to call it.

    >>> mean_of_processes(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value = value / torch.distributed.get_world_size()
    return value
