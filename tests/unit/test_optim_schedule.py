"""Schedules against hand-worked factors."""

import warnings

import pytest
import torch

from recbole_dtn.config.settings import SchedulerSettings
from recbole_dtn.optim.schedule import build_schedule


def rates(name: str, steps: int, *, warmup: int = 0, low: float = 0.0, gamma: float = 0.5) -> list[float]:
    """Learning rates of ``steps`` steps from a rate of 2; 4 steps an epoch, 2 epochs."""
    settings = SchedulerSettings.model_validate(
        {"name": name, "warmup_steps": warmup, "min_factor": low, "gamma": gamma}
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=2.0)
    schedule = build_schedule(optimizer, settings, steps_per_epoch=4, epochs=2)
    found = []
    for _ in range(steps):
        weight.grad = torch.ones(1)
        before = weight.item()
        optimizer.step()
        found.append(before - weight.item())  # what the step really was
        schedule.step()
    return found


def test_constant() -> None:
    assert rates("constant", 3) == [2.0, 2.0, 2.0]
    assert rates("constant", 5, warmup=4) == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_linear() -> None:
    assert rates("linear", 10) == pytest.approx([2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0, 0])
    # warm-up of 4 leaves 4 steps from factor 1 to 0.5
    assert rates("linear", 9, warmup=4, low=0.5) == pytest.approx([0.5, 1, 1.5, 2, 2, 1.75, 1.5, 1.25, 1])


def test_cosine() -> None:
    found = rates("cosine", 10, low=0.25)
    assert found[0] == pytest.approx(2.0)
    assert found[2] == pytest.approx(2 * (0.25 + 0.75 * (1 + 0.5**0.5) / 2))  # cos(pi / 4)
    assert found[4] == pytest.approx(2 * (0.25 + 0.75 / 2))
    assert found[8:] == pytest.approx([0.5, 0.5])


def test_exponential_falls_at_each_epoch() -> None:
    assert rates("exponential", 9) == [2.0] * 4 + [1.0] * 4 + [0.5]
    assert rates("exponential", 6, warmup=2) == [1.0, 2.0, 2.0, 2.0, 1.0, 1.0]


def test_a_warm_up_longer_than_the_run() -> None:
    assert rates("cosine", 3, warmup=16) == [0.125, 0.25, 0.375]


def test_no_warning_and_a_state_that_continues() -> None:
    settings = SchedulerSettings(name="linear", warmup_steps=0, min_factor=0.0, gamma=0.5)
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = build_schedule(optimizer, settings, steps_per_epoch=4, epochs=1)
        optimizer.step()
        schedule.step()
    other = torch.optim.SGD([weight], lr=1.0)
    restored = build_schedule(other, settings, steps_per_epoch=4, epochs=1)
    restored.load_state_dict(schedule.state_dict())
    other.load_state_dict(optimizer.state_dict())
    other.step()
    restored.step()
    assert other.param_groups[0]["lr"] == 0.5
