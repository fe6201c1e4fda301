"""Experts and gates as one operation: numpy's values, and the gradients of autograd over the same products."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_dtn.layers import mixture
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGate
from recbole_dtn.layers.mixture import mixtures

ROWS, INPUTS, WIDTH = 13, 6, 5
CASES = {
    "MMoE": ([3], [[0], [0]]),
    "PLE": ([2, 1, 3], [[0, 2], [1, 2], [0, 1, 2]]),
    "one expert each": ([1, 1], [[0], [1]]),
    "all experts in another order": ([2, 2], [[1, 0], [0, 1]]),
}


def parts(counts: Sequence[int], reads: Sequence[Sequence[int]]) -> tuple[list[Experts], list[SoftmaxGate], Tensor]:
    torch.manual_seed(0)
    groups = [Experts(INPUTS, [WIDTH], count=count).double() for count in counts]
    gates = [SoftmaxGate(INPUTS, sum(counts[group] for group in read)).double() for read in reads]
    return groups, gates, (2.0 * torch.randn(ROWS, INPUTS, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("case", CASES)
def test_values_are_the_equation(case: str) -> None:
    counts, reads = CASES[case]
    groups, gates, x = parts(counts, reads)
    mixed, weights = mixtures(groups, gates, reads, x)
    rows = x.detach().numpy()
    outputs = [
        np.maximum(
            np.einsum("bi,kio->bko", rows, group.weights[0].detach().numpy()) + group.biases[0].detach().numpy()[:, 0],
            0,
        )
        for group in groups
    ]
    for number, (gate, read) in enumerate(zip(gates, reads, strict=True)):
        exponent = np.exp(rows @ gate.linear.weight.detach().numpy().T)
        share = exponent / exponent.sum(1, keepdims=True)
        expected = np.einsum("bk,bkh->bh", share, np.concatenate([outputs[group] for group in read], axis=1))
        np.testing.assert_allclose(weights[number].detach().numpy(), share, atol=1e-12)
        np.testing.assert_allclose(mixed[:, number].detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("rows_at_a_time", [5, 1000])
@pytest.mark.parametrize("reading", ["mixes", "weights", "both"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_autograd(
    case: str, reading: str, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, reads = CASES[case]
    monkeypatch.setattr(mixture, "ROWS", rows_at_a_time)

    def gradients() -> list[Tensor]:
        groups, gates, x = parts(counts, reads)
        mixed, weights = mixtures(groups, gates, reads, x)
        loss = torch.zeros((), dtype=torch.float64)
        if reading != "weights":
            loss = loss + (mixed * torch.arange(mixed.numel(), dtype=torch.float64).view_as(mixed).cos()).sum()
        if reading != "mixes":
            loss = loss + sum((weight.square() * (1 + k)).sum() for k, weight in enumerate(weights))
        loss.backward()
        leaves = [x, *(p for part in (*groups, *gates) for p in part.parameters())]
        return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]

    fused = gradients()
    monkeypatch.setattr(mixture, "_fusible", lambda *_: False)
    for found, expected in zip(fused, gradients(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    if case != "one expert each" or reading != "weights":  # a lone choice weighs 1, whatever x is
        assert any(gradient.abs().max() > 0.1 for gradient in fused)
