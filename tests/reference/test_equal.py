"""The plain sum of the losses."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.equal import Equal
from recbole_dtn.balancer.step import Step
from recbole_dtn.schema import TaskSpec

Array = Any


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_every_weight_is_one(tasks: int, balanced: Any) -> None:
    run = balanced(tasks)
    balancer = Equal(run.specs())
    for _ in range(3):
        run.check(balancer, lambda *_: (np.ones(tasks), np.ones(tasks)))


def test_the_weights_of_a_data_set_are_not_read() -> None:
    balancer = Equal([TaskSpec("a", "binary", "a", weight=3.0), TaskSpec("b", "binary", "b", weight=0.5)])
    losses = torch.tensor([2.0, 4.0], requires_grad=True)
    assert balancer.backward(Step(losses, torch.tensor(0.5))).item() == 6.5
    assert losses.grad is not None
    assert losses.grad.tolist() == [1.0, 1.0]
    assert not Equal.reads_weights
