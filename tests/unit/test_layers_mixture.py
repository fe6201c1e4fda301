"""Experts and gates as one operation: numpy's values, and the gradients of autograd over the same products."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_dtn.kernels import mixtures as kernel
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers import mixture
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.gates import SoftmaxGate, SoftmaxGates
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
    monkeypatch.setattr(kernel, "ROWS", rows_at_a_time)

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
    monkeypatch.setattr(mixture, "by_hand", lambda *_: False)
    for found, expected in zip(fused, gradients(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    if case != "one expert each" or reading != "weights":  # a lone choice weighs 1, whatever x is
        assert any(gradient.abs().max() > 0.1 for gradient in fused)


@pytest.mark.parametrize("case", CASES)
def test_plain_experts_and_gates_are_computed_plainly(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``fused: false`` reaches every part of a mixture: nothing is written by hand, and the numbers are the same."""
    counts, reads = CASES[case]
    groups, gates, x = parts(counts, reads)
    expected, expected_weights = mixtures(groups, gates, reads, x)
    for name in ("expert_mixtures", "run_together", "weigh_together"):
        monkeypatch.delattr(mixture, name)
    mixed, weights = mixtures([set_fused(group, False) for group in groups], gates, reads, x)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)
    for one, other in zip(weights, expected_weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_one_input_per_group(fused: bool) -> None:
    """Gate m reads x[m]; the last group, which has no gate, has an input too."""
    groups, _, _ = parts([2, 1, 3], [[0, 2], [1, 2]])
    gates = [SoftmaxGate(INPUTS, 5).double(), SoftmaxGate(INPUTS, 4).double()]
    inputs = [torch.randn(ROWS, INPUTS, dtype=torch.float64) for _ in groups]
    mixed, weights = mixtures([set_fused(group, fused) for group in groups], gates, [[0, 2], [1, 2]], inputs)
    for number, (gate, read) in enumerate(zip(gates, ([0, 2], [1, 2]), strict=True)):
        experts = torch.cat([set_fused(groups[group], False)(inputs[group]) for group in read], dim=1)
        share = torch.softmax(inputs[number] @ gate.linear.weight.T, dim=1)
        torch.testing.assert_close(weights[number], share, rtol=0, atol=1e-12)
        torch.testing.assert_close(mixed[:, number], (share.unsqueeze(2) * experts).sum(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("hidden", "bias"), [((), True), ((4,), False), ((4, 3), True)])
@pytest.mark.parametrize("fused", [True, False])
def test_gates_with_hidden_layers_and_a_bias(fused: bool, hidden: Sequence[int], bias: bool) -> None:
    groups, _, x = parts([3], [[0]])
    gates = SoftmaxGates(INPUTS, 3, 2, hidden=hidden, bias=bias).double()
    mixed, weights = mixtures([set_fused(groups[0], fused)], set_fused(gates, fused), [[0], [0]], x)
    values = {name: value.detach().numpy() for name, value in gates.named_parameters()}
    assert len(values) == 2 * (2 * len(hidden) + 1 + bias)
    for number, found in enumerate(weights):
        h = x.detach().numpy()
        for layer in range(len(hidden)):
            name = f"gates.{number}.hidden.layers.{2 * layer}"
            h = np.maximum(h @ values[f"{name}.weight"].T + values[f"{name}.bias"], 0)
        logits = h @ values[f"gates.{number}.linear.weight"].T + values.get(f"gates.{number}.linear.bias", 0)
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(found.detach().numpy(), share, atol=1e-12)
        outputs = groups[0](x).detach().numpy()
        np.testing.assert_allclose(mixed[:, number].detach().numpy(), (share[:, :, None] * outputs).sum(1), atol=1e-12)
