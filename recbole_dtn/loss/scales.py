"""From labels to what a loss compares logits with, and from logits to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from recbole_dtn.loss.base import Link
from recbole_dtn.schema import TaskSpec

__all__ = ["Scales", "unscaled"]

LARGEST = 60.0
"""Logit above which an exponential grows no more: e^60 times a scale is still a finite float32."""


def unscaled(task: TaskSpec) -> TaskSpec:
    """The task for a model whose own fit reads labels as they are: its predictions are in their units already."""
    return replace(task, loss=None, mean=None, std=None)


class Scales(nn.Module):
    """Units of the labels of regressions, and the correction for down-sampled negatives.

    A regression learns ``(y - mean) / std`` with the mean and standard deviation of its training labels, so that the
    loss of a label in milliseconds is as large as that of one in seconds; its prediction is ``mean + std z``. One
    whose loss has ``link = "exp"`` learns ``y / mean``, and its prediction is ``mean exp(z)``. Without ``mean`` and
    ``std`` (:class:`~recbole_dtn.schema.TaskSpec`) labels are as they are.

    A binary task whose negatives were kept at a rate r learns the probability q of the kept rows. Back at the full rate
    it is ``p = q / (q + (1 - q) / r)`` (He et al., ADKDD 2014, section 6.3), which is log r on the logit.

    Args:
        tasks: the T tasks, in the order of the columns. links: the link of each task's loss.

    >>> click = TaskSpec("click", "binary", "click", negative_rate=0.1)
    >>> scales = Scales([click, TaskSpec("stay", "regression", "stay", mean=5.0, std=2.0)], ["identity", "identity"])
    >>> scales.labels(torch.tensor([[1.0, 7.0]])).tolist()
    [[1.0, 1.0]]
    >>> torch.sigmoid(scales.predictions(torch.zeros(1, 2)))[0, 0]  # .5 / (.5 + .5 / .1)
    tensor(0.0909)
    """

    shift: Tensor | None
    scale: Tensor | None
    log_rates: Tensor | None
    exponential: Tensor | None

    def __init__(self, tasks: Sequence[TaskSpec], links: Sequence[Link]) -> None:
        super().__init__()
        shift, scale = [], []
        for task, link in zip(tasks, links, strict=True):
            known = task.kind == "regression" and task.mean is not None and task.std is not None
            mean, std = (task.mean or 0.0, task.std or 1.0) if known else (0.0, 1.0)
            shift.append(0.0 if link == "exp" else mean)
            scale.append((mean or 1.0) if link == "exp" and known else std)
        rates = [task.negative_rate for task in tasks]
        found = {
            "shift": torch.tensor(shift, dtype=torch.float64) if any(shift) else None,
            "scale": torch.tensor(scale, dtype=torch.float64) if set(scale) - {1.0} else None,
            "log_rates": torch.tensor(rates, dtype=torch.float64).log() if set(rates) - {1.0} else None,
            "exponential": torch.tensor([link == "exp" for link in links]) if "exp" in links else None,
        }
        for name, values in found.items():
            # Not in the checkpoint's weights: the schema, which is in it, has the numbers.
            self.register_buffer(name, values, persistent=False)

    def labels(self, labels: Tensor) -> Tensor:
        """(B, T) labels in the units of the losses."""
        if self.shift is not None:
            labels = labels - self.shift.to(labels)
        return labels if self.scale is None else labels / self.scale.to(labels)

    def predictions(self, logits: Tensor) -> Tensor:
        """(B, T): log-odds at the full rate of negatives, and values of regressions in the units of their labels."""
        parts = (self.shift, self.scale, self.log_rates, self.exponential)
        if all(part is None for part in parts):
            return logits
        found = logits if logits.dtype is torch.float64 else logits.float()
        if self.exponential is not None:
            found = torch.where(self.exponential, found.clamp(max=LARGEST).exp(), found)
        if self.scale is not None:
            found = found * self.scale.to(found)
        if self.shift is not None:
            found = found + self.shift.to(found)
        return found if self.log_rates is None else found + self.log_rates.to(found)
