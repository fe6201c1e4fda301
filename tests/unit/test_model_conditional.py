"""Losses of conditional probabilities over several processes, and what each task's loss depends on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_dtn.balancer.reach import find_reach
from recbole_dtn.loss.tasks import loss_weights
from recbole_dtn.model import dcmt
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema

CASES: list[tuple[str, dict[str, Any]]] = [
    ("ESCM2", {"form": "ips"}),
    ("ESCM2", {"form": "dr"}),
    ("DCMT", {}),
    ("DCMT", {"self_normalised": True}),
]


def build(name: str, **settings: Any) -> MultiTaskRecommender:
    torch.manual_seed(1)
    cls: type[MultiTaskRecommender] = MODELS.load(name)
    return cls(make_settings(name, embedding_size=3, tower_hidden=[5], **settings), tiny_schema(tasks=3)).double()


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_mean_over_two_processes_is_the_loss_of_the_whole_batch(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name, **settings)
    whole = tiny_features(model.schema, 30, masked=True, sample_weight=True)
    halves = [take_rows(whole, range(12)), take_rows(whole, range(12, 30))]
    # What a process divides by: the sum over all processes, per process.
    weights = loss_weights(whole.observed, whole.sample_weight, torch.float64)
    total = weights.sum(0) / 2
    sums: list[list[Tensor]] = []

    def record(value: Tensor) -> Tensor:
        sums[-1].append(value)
        return value

    monkeypatch.setattr(dcmt, "mean_of_processes", record)
    for half in halves:
        sums.append([])
        model.task_losses(half, model(half), total)
    means = [torch.stack(pair).mean(0) for pair in zip(*sums, strict=True)]
    assert len(means) == (2 if settings.get("self_normalised") else 0)

    parts = []
    for half in halves:
        order = iter(means)
        monkeypatch.setattr(dcmt, "mean_of_processes", lambda value, order=order: next(order))
        parts.append(model.task_losses(half, model(half), total))
    expected = model.task_losses(whole, model(whole))
    torch.testing.assert_close(torch.stack(parts).mean(0), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "own"),
    [("ESCM2", ["towers.towers.{}.", "imputation.towers.{step}."]), ("DCMT", ["counterfactual.towers.{step}."]),
     ("AITM", ["transfers.{step}.", "bottoms.{}.", "towers.towers.{}."]),
     ("ResFlow", ["towers.towers.{}.", "layers.0.{}."])],
)  # fmt: skip
def test_the_last_task_alone_reaches_its_parts(name: str, own: list[str]) -> None:
    """Balancers tell apart what several tasks share: of a chain of three, the last one's parts are its own."""
    model = build(name)
    reach = find_reach(model, tiny_features(model.schema, 24))
    specific = {key for key, value in model.named_parameters() if any(value is each for each in reach.specific[2])}
    for prefix in own:
        named = [key for key, _ in model.named_parameters() if key.startswith(prefix.format(2, step=1))]
        assert named
        assert specific.issuperset(named)
    assert not any(key.startswith(("embedding.", "towers.towers.0.", "towers.towers.1.")) for key in specific)
    assert not reach.other
