"""Dropout: how many values it drops, what it keeps, its gradient, and when torch's own is used."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from scipy import stats
from torch import nn

from recbole_dtn.layers import dropout as module
from recbole_dtn.layers.dropout import Dropout, dropout

COUNT = 400_003  # not a multiple of the four that are drawn at once


@pytest.mark.parametrize("p", [0.001, 0.1, 0.2, 0.5, 0.9])
def test_drops_the_share_and_keeps_the_mean(p):
    torch.manual_seed(1)
    found = dropout(torch.ones(COUNT, dtype=torch.float64), p)
    rounded = round(p * 65536) / 65536
    assert stats.binomtest(int((found == 0).sum()), COUNT, rounded).pvalue > 1e-4
    assert found[found != 0].unique().tolist() == [pytest.approx(1 / (1 - rounded), rel=1e-12)]
    assert abs(rounded - p) <= 2**-17


def test_values_drawn_at_once_are_independent():
    torch.manual_seed(2)
    dropped = (dropout(torch.ones(4 * 50_000), 0.3) == 0).double().numpy()
    for lag in (1, 2, 3, 4, 5, 8):
        correlation = np.corrcoef(dropped[:-lag], dropped[lag:])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(len(dropped)), lag
    # The number dropped of each four is binomial.
    counts = np.bincount(dropped.reshape(-1, 4).sum(1).astype(int), minlength=5)
    assert stats.chisquare(counts, stats.binom.pmf(range(5), 4, round(0.3 * 65536) / 65536) * 50_000).pvalue > 1e-4


def test_gradient_is_the_mask():
    torch.manual_seed(3)
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    found = dropout(x, 0.4)
    weight = torch.randn(7, 5, dtype=torch.float64)
    (found * weight).sum().backward()
    mask = torch.where(found == 0, 0.0, 65536 / (65536 - round(0.4 * 65536))).double()
    assert 0 < int((mask == 0).sum()) < 35
    torch.testing.assert_close(found, x * mask)
    torch.testing.assert_close(x.grad, weight * mask)


def test_a_seed_gives_a_mask_by_place_in_memory():
    x = torch.ones(6, 11)
    torch.manual_seed(4)
    first = dropout(x, 0.5)
    torch.manual_seed(4)
    assert torch.equal(dropout(x, 0.5), first)
    torch.manual_seed(4)
    assert torch.equal(dropout(torch.ones(11, 6).t(), 0.5), first.view(11, 6).t())
    assert not torch.equal(dropout(x, 0.5), first)


@pytest.mark.parametrize(
    "x", [torch.ones(3, 1).expand(3, 4), torch.ones(8, 8)[::2, 1:4], torch.ones(0, 3), torch.ones(())]
)
def test_any_layout(x):
    torch.manual_seed(5)
    found = dropout(x, 0.5)
    assert found.shape == x.shape
    assert set(found.flatten().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize(("p", "training", "dtype"), [
    (0.0, True, torch.float32), (1.0, True, torch.float32), (1e-7, True, torch.float32),
    (0.5, False, torch.float32), (0.5, True, torch.bfloat16),
])  # fmt: skip
def test_torchs_own_elsewhere(p, training, dtype, monkeypatch):
    asked = []
    monkeypatch.setattr(functional, "dropout", lambda x, p, training: asked.append((p, training)) or x)
    x = torch.ones(4, dtype=dtype)
    assert dropout(x, p, training) is x
    assert asked == [(p, training)]


def test_module_drops_in_training_alone(monkeypatch):
    layer = Dropout(0.5)
    assert isinstance(layer, nn.Dropout)
    assert set(layer(torch.ones(100)).tolist()) == {0.0, 2.0}
    assert layer.eval()(torch.ones(3)).tolist() == [1.0, 1.0, 1.0]
    monkeypatch.setattr(module, "dropout", lambda x, p, training: (p, training))
    assert layer.train()(torch.ones(1)) == (0.5, True)
