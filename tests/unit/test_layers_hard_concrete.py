"""Hard concrete gates against their equations in numpy."""

import numpy as np
import pytest
import torch

from recbole_dtn.layers.hard_concrete import HardConcrete
from recbole_dtn.optim.build import decays
from recbole_dtn.testing.numeric import check_reference, sigmoid

LOG_ALPHA = [[-4.0, -2.5, -0.3], [0.0, 0.7, 5.0]]


def gates_with(log_alpha, **options):
    gates = HardConcrete(np.shape(log_alpha), **options)
    with torch.no_grad():
        gates.log_alpha.copy_(torch.tensor(log_alpha))
    return gates


def clipped(s, gamma=-0.1, zeta=1.1):
    stretched = s * (zeta - gamma) + gamma
    return np.where(stretched.real < 0, 0, np.where(stretched.real > 1, 1, stretched))


def test_evaluation_equals_numpy():
    gates = gates_with(LOG_ALPHA).eval()
    # sigmoid(-4) = .0180 and sigmoid(-2.5) = .0759 are below 1 / 12, sigmoid(5) = .9933 is above 11 / 12.
    assert gates().tolist() == [[0.0, 0.0, pytest.approx(0.41066899)], [0.5, pytest.approx(0.70182535), 1.0]]
    assert gates.kept().tolist() == [[False, False, True], [True, True, True]]
    assert torch.equal(gates(), gates())
    check_reference(gates, lambda m: m(), lambda p: clipped(sigmoid(p["log_alpha"])))


@pytest.mark.parametrize(("beta", "gamma", "zeta"), [(0.9, -0.1, 1.1), (0.5, -0.4, 1.2)])
def test_training_equals_numpy(beta, gamma, zeta):
    gates = gates_with(LOG_ALPHA, beta=beta, gamma=gamma, zeta=zeta).double()
    found = []
    for seed in range(40):
        u = torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).numpy()
        torch.manual_seed(seed)
        z = gates()
        noise = np.log(u) - np.log(1 - u)
        wanted = clipped(sigmoid((noise + gates.log_alpha.detach().numpy()) / beta), gamma, zeta)
        np.testing.assert_allclose(z.detach().numpy(), wanted, atol=1e-12)
        gates.zero_grad()
        z.sum().backward()
        moved = sigmoid((noise + gates.log_alpha.detach().numpy() + 1e-30j) / beta)
        np.testing.assert_allclose(gates.log_alpha.grad.numpy(), clipped(moved, gamma, zeta).imag / 1e-30, atol=1e-12)
        found.append(wanted)
    # All three parts of the clip were reached.
    assert {0.0, 1.0} <= set(np.ravel(found))
    assert np.logical_and(np.array(found) > 0, np.array(found) < 1).any()


@pytest.mark.parametrize(("beta", "gamma", "zeta"), [(0.9, -0.1, 1.1), (0.5, -0.4, 1.2)])
def test_penalty_is_the_expected_number_of_open_gates(beta, gamma, zeta):
    gates = gates_with(LOG_ALPHA, beta=beta, gamma=gamma, zeta=zeta)
    check_reference(
        gates, lambda m: m.penalty(), lambda p: sigmoid(p["log_alpha"] - beta * np.log(-gamma / zeta)).sum()
    )
    many = gates_with(np.tile(LOG_ALPHA, (20_000, 1)), beta=beta, gamma=gamma, zeta=zeta)
    torch.manual_seed(0)
    # Standard error of the mean over 20,000 draws of 6 gates: below .01.
    assert (many() > 0).sum().item() / 20_000 == pytest.approx(gates.penalty().item(), abs=0.04)


def test_every_gate_draws_at_every_call_and_a_seed_repeats():
    gates = HardConcrete((4, 5), init=(0.0, 0.0))
    torch.manual_seed(1)
    first, second = gates(), gates()
    inside = (first > 0) & (first < 1)
    assert len(set(first[inside].tolist())) == inside.sum() > 5
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(gates(), first)
    # The random numbers are no part of the state, and nothing but log alpha is trained.
    assert list(gates.state_dict()) == ["log_alpha"]


def test_log_alpha_does_not_decay():
    assert not decays(HardConcrete((2, 3)), "log_alpha")


def test_starts_between_the_bounds():
    start = HardConcrete((30, 20), init=(-1.0, 0.5)).log_alpha
    assert start.shape == (30, 20)
    assert -1.0 <= start.min() < -0.95
    assert 0.45 < start.max() <= 0.5


def test_a_draw_of_zero_closes_the_gate(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    gates = HardConcrete((2,))
    z = gates()
    z.sum().backward()
    assert z.tolist() == gates.log_alpha.grad.tolist() == [0.0, 0.0]


def test_log_alpha_far_away_is_finite():
    gates = gates_with([-200.0, 200.0])
    for training in (True, False):
        gates.zero_grad()
        z = gates.train(training)()
        (z.sum() + gates.penalty()).backward()
        assert z.tolist() == [0.0, 1.0]
        assert gates.log_alpha.grad.isfinite().all()


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"gamma": 0.0}, {"zeta": 1.0}])
def test_constants_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="expected beta > 0, gamma < 0 and zeta > 1"):
        HardConcrete((2,), **wrong)
