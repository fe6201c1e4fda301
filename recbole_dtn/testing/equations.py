"""An interaction against its equation, written again in numpy: outputs, and gradients by central differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.interaction.base import FeatureInteraction, WithAuxiliary

__all__ = ["check_equation", "split_output"]

Equation = Callable[[Mapping[str, NDArray[Any]], NDArray[Any], NDArray[Any]], NDArray[Any]]


def check_equation(module: FeatureInteraction, equation: Equation, embeddings: Tensor, ids: Tensor) -> None:
    """Check an interaction against its equation, written again in numpy.

    On a copy with weights drawn large enough that every term matters: outputs agree to 1e-10 in float64 and 1e-5 in
    float32; gradients of the embeddings and of every parameter agree with central differences of ``equation`` to
    1e-6 (relative above 1), at the entries of the largest gradients and at random ones.

    Args:
        module: the interaction.
        equation: ``(weights by their state_dict names, embeddings (B, F, D), ids (B, F)) -> (B, O)``, all in numpy.
        embeddings: (B, F, D). ids: (B, F).

    Raises:
        AssertionError: with what differs, where, and by how much.

    >>> from recbole_dtn.interaction.base import FieldShape
    >>> from recbole_dtn.interaction.gdcn import GDCN
    >>> shape = FieldShape(2, 3, (0, 1), (4, 4))
    >>> def equation(w, e, ids):
    ...     c0 = e.reshape(len(e), -1)
    ...     gate = 1 / (1 + np.exp(-c0 @ w["gates.0.weight"].T))
    ...     c1 = c0 * (c0 @ w["crosses.0.weight"].T + w["crosses.0.bias"]) * gate + c0
    ...     return c1 @ w["head.weight"].T + w["head.bias"]
    >>> check_equation(GDCN(shape, 5, layers=1), equation, torch.rand(4, 2, 3), torch.zeros(4, 2, dtype=torch.long))
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2020)
        # The probe (B, O) makes a scalar of the output, whose gradient is compared.
        module = _strengthened(module)
        probe = torch.randn(len(ids), module.output_dim, dtype=torch.float64)
    inputs = embeddings.double().detach().requires_grad_()
    output, _ = split_output(module(inputs, ids))
    (output * probe).sum().backward()  # type: ignore[no-untyped-call]
    # The embeddings are one more leaf of the comparison.
    leaves = {**dict(module.named_parameters()), "(the embeddings)": inputs}
    # Copies: _slope moves one entry at a time, which must not reach the module.
    values = {name: leaf.detach().numpy().copy() for name, leaf in leaves.items()}

    def expected() -> NDArray[Any]:
        return equation(values, values["(the embeddings)"], ids.numpy())

    _agree("the output in float64", output.detach(), expected(), 1e-10)
    with torch.no_grad():
        # float32 by the same weights, rounded.
        single, _ = split_output(copy.deepcopy(module).float()(inputs.detach().float(), ids))
    _agree("the output in float32", single, expected(), 1e-5)
    for name, leaf in leaves.items():
        # A leaf that nothing reads has the gradient 0, and the equation has to agree.
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        gradient = (gradient.to_dense() if gradient.is_sparse else gradient).flatten()
        for entry in _entries(gradient):
            slope = _slope(lambda: float((expected() * probe.numpy()).sum()), values[name].reshape(-1), entry)
            tolerance = 1e-6 * max(1.0, abs(slope))
            _agree(f"the gradient of {name}, entry {entry},", gradient[entry], np.asarray(slope), tolerance)


def _strengthened(module: FeatureInteraction) -> FeatureInteraction:
    """A copy in float64: matrices N(0, 1.5 / sqrt(width)), vectors moved by N(0, .5)."""
    module = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn_like(parameter)
            if parameter.dim() > 1:
                # The initial weights of a codebook or a gate are so small that a wrong term would pass unseen.
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.5 * noise)
    return module


def _entries(gradient: Tensor, count: int = 4) -> list[int]:
    """Positions of the largest gradients and, evenly spread, of others."""
    if not len(gradient):
        return []
    largest = gradient.abs().topk(min(count, len(gradient))).indices.tolist()
    return sorted({*largest, *np.linspace(0, len(gradient) - 1, count, dtype=int).tolist()})


def _slope(function: Callable[[], float], values: NDArray[Any], entry: int, step: float = 1e-6) -> float:
    """Central difference of ``function``, which reads ``values``, in one of them."""
    middle = values[entry]
    values[entry] = middle + step
    above = function()
    values[entry] = middle - step
    below = function()
    values[entry] = middle
    return (above - below) / (2 * step)


def _agree(what: str, found: Tensor, expected: NDArray[Any], tolerance: float) -> None:
    if tuple(found.shape) != expected.shape:
        raise AssertionError(f"{what} has shape {tuple(found.shape)}; the equation gives {expected.shape}")
    error = float(np.abs(found.double().numpy() - expected).max())
    if not error <= tolerance:
        raise AssertionError(f"{what} is off by {error:.3g} from the equation, more than {tolerance:.0e}")


def split_output(returned: Any) -> tuple[Tensor, Tensor | None]:
    """What ``forward`` returned as the output (B, O) and the interaction's own loss, if it has one."""
    return (returned.output, returned.loss) if isinstance(returned, WithAuxiliary) else (returned, None)
