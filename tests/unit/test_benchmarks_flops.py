"""The benchmarks' counts of operations against torch's own count of what the plain path runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import dtn, roofline
from benchmarks.sides.dtn import make
from recbole_dtn.data.features import Features
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import make_settings

BATCH, FIELDS = 5, 23
TASKS = tuple(TaskSpec(name, "binary", name) for name in ("click", "buy"))


def counted(model: MultiTaskRecommender, features: Features) -> int:
    with FlopCounterMode(display=False) as counter:
        model.task_losses(features, model(features)).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["MMoE", "PLE"])
def test_operations_of_a_step(name: str) -> None:
    fields = tuple(FieldSpec(f"f{i}", "token", 10, 10 * i) for i in range(FIELDS))
    settings = make_settings(name, embedding_size=16, fused=False)
    model: MultiTaskRecommender = MODELS.load(name)(settings, DataSchema(fields, TASKS))
    ids = torch.arange(FIELDS).expand(BATCH, -1) * 10
    features = Features(ids, labels=torch.ones(BATCH, 2), observed=torch.ones(BATCH, 2, dtype=torch.bool))
    expected = sum(roofline.core_flops(name, FIELDS, BATCH)) + 3 * roofline.tower_flops(name, BATCH)
    assert counted(model, features) == expected


@pytest.mark.parametrize("module", dtn.MODULES)
def test_operations_of_dtn(module: str) -> None:
    model, _, features = make(False, BATCH, [module], "cpu")
    counts = dtn.flops(BATCH)
    name = "memonet, plain" if module == "memonet" else module
    # The gates of a DTN of one module choose among 1 + 2 modules, not among 3 + 6.
    fewer = 6 * BATCH * 2 * (368 + 64) * (9 - 3)
    expected = counts[name] + counts["gates and towers"] - fewer
    assert counted(model, features) == pytest.approx(expected, rel=0.005)
