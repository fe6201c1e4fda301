"""Arithmetic of probabilities on their log-odds."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["logit_of_product"]


def logit_of_product(first: Tensor, second: Tensor) -> Tensor:
    """Log-odds of ``sigmoid(a) * sigmoid(c)``.

    With p the product, ``1 / p = (1 + exp(-a)) (1 + exp(-c))``, so that::

        log p - log(1 - p) = -log(exp(-a) + exp(-c) + exp(-a - c))

    which neither overflows nor loses a small p or a small 1 - p. Under autocast it is computed in float32.

    Args:
        first: a. second: c, of the same shape.

    >>> logit_of_product(torch.zeros(1), torch.zeros(1)).sigmoid()
    tensor([0.2500])
    >>> logit_of_product(torch.tensor([500.0, -500.0]), torch.tensor([500.0, -500.0])).tolist()
    [499.3068542480469, -1000.0]
    """
    kind = torch.promote_types(first.dtype, torch.float32)
    a, c = first.to(kind), second.to(kind)
    return -torch.logsumexp(torch.stack([-a, -c, -a - c]), dim=0)
