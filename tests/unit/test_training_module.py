"""What the Lightning module does around a step."""

import torch

from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.training.module import TrainingModule


def test_a_batch_that_is_on_the_device_is_not_copied() -> None:
    schema, settings = tiny_schema(), make_settings("MMoE")
    module = TrainingModule(MODELS.load("MMoE")(settings, schema), settings)
    batch = tiny_features(schema, 3)
    assert module.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {moved.ids.device.type, moved.labels.device.type, moved.dense.device.type} == {"meta"}
