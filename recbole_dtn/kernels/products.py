"""Matrix products with their bias and activation, by the faster float32 routine of the processor.

torch multiplies float32 on a CPU by MKL, whose widest code runs on Intel's processors alone. oneDNN, which comes with
torch too, chooses by the instructions that the processor has: on an AMD Zen 5 it multiplies (4096, 368) x (368, 736) at
250 GFLOP/s a core against MKL's 112, and it applies a ReLU, a sigmoid or a product as it writes the result. Elsewhere
(GPUs, other types, Intel, AVX2 alone, builds without oneDNN) the same functions are torch's own operations.

The functions named ``product`` and :func:`outer` have no gradient: they are for use inside an autograd Function.
:func:`linear` has one.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.kernels.choice import autocasting
from recbole_dtn.kernels.first_order import first_order

__all__ = ["linear", "outer", "prefers_onednn", "product", "product_plus", "product_times"]

Activation = Literal["none", "relu", "sigmoid"]

LEAST_WORK, LEAST_COLUMNS = 1_000_000, 8
"""Fewest multiplications and outputs for oneDNN. Below, a call takes longer than it saves: 10 us, and the weights are
laid out anew."""


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster here: an x86 processor with AVX-512 that is not Intel's.

    With AVX2 alone MKL is faster: on an AMD Zen 3 by 1.05 to 1.15 for products of width 368, and by 2 for the
    gradients of weights of width 64.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    described = Path("/proc/cpuinfo")
    return described.exists() and "GenuineIntel" not in described.read_text(encoding="utf-8", errors="replace")


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # the compiler's generated code calls oneDNN itself
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and x.device.type == "cpu"
        and weight.shape[0] >= LEAST_COLUMNS
        and x.shape[0] * weight.numel() >= LEAST_WORK
        and prefers_onednn()
    )


def _dense(weight: Tensor) -> Tensor:
    """``weight``, copied where neither rows nor columns are contiguous: oneDNN has only a slow path for that."""
    return weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()


def _in_rows(x: Tensor) -> Tensor:
    """``x`` with contiguous rows, as oneDNN needs its left factor.

    torch transposes a whole matrix with one thread, but two halves of it with all threads: (4096, 368) takes .65 ms on
    two threads instead of .98.
    """
    # A transposed view has contiguous columns; anything else takes the general copy.
    if x.is_contiguous() or not x.t().is_contiguous():
        return x.contiguous()
    return torch.cat(x.tensor_split(2, dim=1), dim=1)


def _finite(values: Tensor | None) -> bool:
    """Whether all values are finite, by their sum: one read, 1 to 2 % of the time of a product. (If a sum of finite
    values overflows, the slower path is used; its result is the same.)"""
    return values is None or math.isfinite(values.detach().sum().item())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """``activation(x W^T + b)``: (B, I), (O, I), (O,) -> (B, O).

    >>> product(torch.ones(1, 2), torch.tensor([[1.0, 2.0], [-3.0, 0.0]]), None, "relu").tolist()
    [[3.0, 0.0]]
    """
    if _by_onednn(x, weight):
        x = _in_rows(x)
        # oneDNN's ReLU turns NaN into 0, which would hide non-finite weights. The ReLU is therefore a separate
        # operation if an operand is not finite, or if the output is so small that checking the weights would take
        # longer.
        small = 2 * len(x) <= weight.shape[1]
        apart = activation == "relu" and (small or not all(map(_finite, (x, weight, bias))))
        written = "none" if apart else activation
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, _dense(weight), bias, written, [], "")
        return found.relu_() if apart else found
    found = functional.linear(x, weight, bias)
    if activation == "none":
        return found
    return found.relu_() if activation == "relu" else found.sigmoid_()


def product_times(x: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor) -> Tensor:
    """``(x W^T + b) * factor``, factor (B, O)."""
    if _by_onednn(x, weight):
        found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, factor, _dense(weight), bias, "mul")
        return found
    return functional.linear(x, weight, bias).mul_(factor)


def product_plus(x: Tensor, weight: Tensor, summand: Tensor) -> Tensor:
    """``x W^T + summand``, summand (B, O)."""
    if _by_onednn(x, weight):
        found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, summand, _dense(weight), None, "add")
        return found
    return torch.addmm(summand, x, weight.t())


def outer(gradient: Tensor, x: Tensor) -> Tensor:
    """``gradient^T x``: (B, O), (B, I) -> (O, I), the gradient of a weight."""
    # product(a, w) is a w^T: with a = gradient^T and w = x^T it is gradient^T x, and its transpose the other way round.
    if gradient.shape[1] < x.shape[1]:  # the left factor is made contiguous: take the narrower one
        return product(gradient.t(), x.t())
    return product(x.t(), gradient.t()).t()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """``activation(x W^T + b)`` with gradients: (..., I) -> (..., O).

    >>> x = torch.ones(2, 3, requires_grad=True)
    >>> linear(x, torch.eye(3), None, "relu").sum().backward()
    >>> x.grad.tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    if x.dim() != 2:
        return linear(x.reshape(-1, x.shape[-1]), weight, bias, activation).view(*x.shape[:-1], weight.shape[0])
    if autocasting(x) or not _by_onednn(x, weight):
        found = functional.linear(x, weight, bias)
        if activation == "none":
            return found
        return torch.relu(found) if activation == "relu" else torch.sigmoid(found)
    output: Tensor = _Linear.apply(x, weight, bias, activation)  # type: ignore[no-untyped-call]
    return output


class _Linear(torch.autograd.Function):
    """:func:`linear` by :func:`product`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        x = _in_rows(x)  # once, for this product and for outer in backward
        output = product(x, weight, bias, activation)
        ctx.activation = activation
        ctx.save_for_backward(x, weight, None if activation == "none" else output)
        return output

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, output = ctx.saved_tensors
        if ctx.activation == "relu":
            # The output tells what the input was: positive where the ReLU passed, s (1 - s) for a sigmoid.
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        elif ctx.activation == "sigmoid":
            gradient = torch.ops.aten.sigmoid_backward(gradient, output)
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if needs_x else None,
            outer(gradient, x) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
            None,
        )
