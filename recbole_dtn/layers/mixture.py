"""Experts and the softmax gates that mix them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from recbole_dtn.kernels.choice import are_fused, by_hand, few_rows
from recbole_dtn.kernels.experts import side_by_side
from recbole_dtn.kernels.mixtures import expert_mixtures, mix
from recbole_dtn.layers.experts import Experts, run_together
from recbole_dtn.layers.gates import SoftmaxGate, SoftmaxGates, weigh_together
from recbole_dtn.layers.stages import stage

__all__ = ["mixtures"]

Mixed = tuple[Tensor, list[Tensor]]


def mixtures(
    groups: Sequence[Experts],
    gates: Iterable[SoftmaxGate],
    reads: Sequence[Sequence[int]],
    x: Tensor | Sequence[Tensor],
) -> Mixed:
    """What each gate mixes of the experts that it reads: ``h_m = sum_k softmax(W_m x)_k E_k(x)``.

    Args:
        groups: experts of one width. gates: M of them. reads: for each gate, the groups whose experts its columns
            weigh, in that order.
        x: (B, I), read by all; or one (B, I) per group, in which case gate m reads ``x[m]``.

    Returns:
        (B, M, H), and each gate's weights (B, experts it reads).

    >>> experts, gate = Experts(3, [4], count=2), SoftmaxGate(3, choices=2)
    >>> mixed, weights = mixtures([experts], [gate], [[0]], torch.zeros(5, 3))
    >>> mixed.shape, weights[0].shape
    (torch.Size([5, 1, 4]), torch.Size([5, 2]))
    """
    singles = [*gates]
    inputs = [x] * max(len(groups), len(singles)) if isinstance(x, Tensor) else x
    fused = are_fused(*groups, *(gate.linear for gate in singles))
    # PLE gives every owner the same tensor at its first level, and different ones above it.
    if fused and all(each is inputs[0] for each in inputs):
        # A compiler ignores profiler labels, with a warning.
        if torch.compiler.is_compiling():
            return _together(groups, singles, reads, inputs[0])
        with stage("experts"):
            return _together(groups, singles, reads, inputs[0])
    if isinstance(gates, SoftmaxGates) and isinstance(x, Tensor):  # called as one module, which profilers label
        weights = list(gates(x).unbind(1))
        return mix(weights, [group(x) for group in groups], reads), weights
    # Fewer gates than inputs at PLE's last level, which has no shared gate.
    outputs = [group(each) for group, each in zip(groups, inputs, strict=False)]
    weights = [gate(each) for gate, each in zip(singles, inputs, strict=False)]
    return mix(weights, outputs, reads), weights


def _together(
    groups: Sequence[Experts], gates: Sequence[SoftmaxGate], reads: Sequence[Sequence[int]], x: Tensor
) -> Mixed:
    """Fused experts and gates over one input; one operation where each expert is a single layer without dropout."""
    one_operation = (
        by_hand(x, *groups)
        and all(len(group.weights) == 1 for group in groups)
        and not any(group.training and group.dropout.p > 0.0 for group in groups)
        and all(gate.is_one_product for gate in gates)
        and not few_rows(x)  # which have a quicker way
    )
    if not one_operation:
        outputs, weights = run_together(groups, x), weigh_together(gates, x)
        return mix(weights, outputs, reads), weights
    # Experts of all groups are numbered 0 .. K-1, and the weights are laid out (M, K): gate m weighs expert k at place
    # m * K + k.
    starts, experts = [], 0
    for group in groups:
        starts.append(experts)
        experts += group.count
    counts = [sum(groups[group].count for group in read) for read in reads]
    places = [
        number * experts + starts[group] + k
        for number, read in enumerate(reads)
        for group in read
        for k in range(groups[group].count)
    ]
    weight, bias = side_by_side([group.weights[0] for group in groups], [group.biases[0] for group in groups])
    choices = torch.cat([gate.linear.weight for gate in gates])
    mixed, chosen = expert_mixtures(x, weight, bias, choices, places, len(gates), experts)
    return mixed, list(chosen.split(counts, dim=1))  # type: ignore[no-untyped-call]
