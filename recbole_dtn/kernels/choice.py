"""Where a computation is chosen: written by hand (fused), or torch's own operations one by one (plain)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Fusible", "are_fused", "autocasting", "by_hand", "exporting", "few_rows", "set_fused"]

M = TypeVar("M", bound=nn.Module)

FEW_ROWS = 32
"""Most rows of :func:`few_rows`. With so few, concatenating the weights of several layers takes longer than the
products."""


class Fusible(nn.Module):
    """A module with two implementations.

    Fused (hand-written kernels) is the default; plain (torch operations) is the reference in tests.
    """

    # Of the class: an instance has the attribute only after set_fused, and a state_dict never.
    fused = True


def set_fused(module: M, fused: bool) -> M:
    """Make every :class:`Fusible` part of ``module`` compute fused or plain; the parameters are the same."""
    for part in module.modules():
        if isinstance(part, Fusible):
            part.fused = fused
    return module


def by_hand(x: Tensor, *parts: nn.Module) -> bool:
    """Whether ``parts`` use their hand-written kernels on ``x``.

    That is so where every part is fused, unless autocast is on (the hand-written code has no rule for mixed types) or
    a compiler is tracing (it generates code of its own).
    """
    if torch.compiler.is_compiling() or autocasting(x):
        return False
    return are_fused(*parts)


def are_fused(*parts: nn.Module) -> bool:
    """Whether every part has two ways to compute, and is set to the fused one."""
    return all(isinstance(part, Fusible) and part.fused for part in parts)


def autocasting(x: Tensor) -> bool:
    """Whether autocast is on for the device of ``x``."""
    kind = x.device.type
    # torch raises for a device without autocast, such as "meta".
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def exporting() -> bool:
    """Whether ``torch.export`` is tracing: a choice by the number of rows would make a constant of it."""
    asked = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
    return bool(asked()) if asked is not None else torch.compiler.is_compiling()


def few_rows(x: Tensor) -> bool:
    """Whether ``x`` has at most ``FEW_ROWS`` rows and no gradient is computed."""
    # The rows are asked for last: in a model that is exported they would become a constant.
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling()) and len(x) <= FEW_ROWS
