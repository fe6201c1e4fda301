"""Learning-rate schedules: a factor on the learning rate of every parameter group, by optimiser step."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from recbole_dtn.config.settings import SchedulerSettings

__all__ = ["build_schedule", "schedule_factor"]


def schedule_factor(step: int, settings: SchedulerSettings, *, steps_per_epoch: int, epochs: int) -> float:
    """The factor of optimiser step ``step``, counted from 0.

    With s the step, W the warm-up steps, E the steps of an epoch, N = E * epochs, m ``min_factor`` and
    p = min(1, (s - W) / max(1, N - W)), the fraction of the steps after the warm-up that are done::

        s < W:        (s + 1) / W
        constant:     1
        linear:       1 - (1 - m) p
        cosine:       m + (1 - m) (1 + cos(pi p)) / 2
        exponential:  gamma ^ floor(s / E)

    so that step W - 1 is the first at the full rate.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.name == "exponential":
        return float(settings.gamma ** (step // max(1, steps_per_epoch)))
    if settings.name == "constant":
        return 1.0
    rest = max(1, steps_per_epoch * epochs - settings.warmup_steps)
    passed = min(1.0, (step - settings.warmup_steps) / rest)
    shape = 1.0 - passed if settings.name == "linear" else (1.0 + math.cos(math.pi * passed)) / 2.0
    return settings.min_factor + (1.0 - settings.min_factor) * shape


def build_schedule(
    optimizer: torch.optim.Optimizer, settings: SchedulerSettings, *, steps_per_epoch: int, epochs: int
) -> LambdaLR:
    """The scheduler of ``settings``; its ``step()`` is to be called after every optimiser step."""

    def factor(step: int) -> float:
        return schedule_factor(step, settings, steps_per_epoch=steps_per_epoch, epochs=epochs)

    # LambdaLR sets the rate of step 0 as it is made, so that the warm-up holds for the first step too.
    return LambdaLR(optimizer, factor)
