"""Hand-written backward passes, which cannot be differentiated again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from recbole_dtn.errors import UsageError

__all__ = ["first_order"]


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward pass of an autograd Function that can be differentiated once.

    torch's ``once_differentiable`` raises only where the incoming gradient requires a gradient itself. In every other
    case the part of a second-order gradient that runs through this operation would be missing silently.

    Raises:
        UsageError: in a backward pass with ``create_graph=True``.

    >>> from recbole_dtn.layers.table import LookUp
    >>> table = torch.ones(2, 1, requires_grad=True)
    >>> found, _ = LookUp.apply(table, torch.tensor([1]), False, 0.0, lambda rows: table[rows])
    >>> torch.autograd.grad(found.sum(), table, create_graph=True)
    Traceback (most recent call last):
    recbole_dtn.errors.UsageError: LookUp: create_graph=True asks for a second-order gradient, ...
    """
    once = once_differentiable(backward)

    @wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:
        # Autograd runs a backward pass with gradients enabled only under ``create_graph=True``.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            name = type(ctx).__name__.removesuffix("Backward")
            raise UsageError(
                f"{name}: create_graph=True asks for a second-order gradient, and this operation has none: "
                "set fused: false (and embedding_l2: 0), or take the gradient without create_graph"
            )
        return once(ctx, *gradients)

    return checked
