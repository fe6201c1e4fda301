"""Every registered loss passes the shipped checks, and the checks find the faults that they are for."""

import pytest
import torch
from torch import Tensor, nn

from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.registry import LOSSES
from recbole_dtn.testing import check_loss


@pytest.mark.parametrize("name", LOSSES.names())
def test_the_shipped_checks_pass(name: str) -> None:
    check_loss(name)


OPTIONS = [
    ("focal", {"gamma": 0.0}),
    ("focal", {"gamma": 0.5, "alpha": 0.25}),
    ("huber", {"delta": 0.1}),
    ("wlr", {"negatives": "unwatched"}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_they_pass_with_other_options(name: str, options: dict) -> None:
    check_loss(name, **options)


class Sound(TaskLoss):
    """A smooth hinge with a margin of its own, of which each fault below is a small change."""

    def __init__(self, *, start: float = 1.0) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(start))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.softplus(self.margin - (2 * labels - 1) * logits)


class Reduced(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels).mean()


class Narrow(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels).float()


class Batchwise(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits - logits.mean(0), labels)


class Detached(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels) + logits.detach() ** 2


class Unused(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.softplus((1 - 2 * labels) * logits)


class Random(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels) + torch.rand_like(logits)


class Misplaced(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels) * torch.ones(1, dtype=logits.dtype)


class Overwriting(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        found = super().forward(logits, labels)
        labels.mul_(1 - 1e-9)
        return found


class Infinite(Sound):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels) / labels


def test_a_sound_loss_passes() -> None:
    check_loss(Sound)
    check_loss(Sound, start=0.5)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Reduced, "it is not to be reduced"),
        (Narrow, "float64 logits give a torch.float32 loss"),
        (Batchwise, "depends on the other rows|differs from its columns"),
        (Detached, "the gradient differs from central differences"),
        (Unused, "no gradient reaches the parameter 'margin'"),
        (Random, "another loss the second time"),
        (Overwriting, "the tensors given are changed"),
        (Infinite, "a loss is not finite"),
        (nn.Module, "Module is not a TaskLoss"),
    ],
)
def test_the_checks_find(kind: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_loss(kind)


def test_they_find_a_tensor_made_on_the_wrong_device() -> None:
    with pytest.raises((AssertionError, RuntimeError), match=r"meta|device"):
        check_loss(Misplaced)
