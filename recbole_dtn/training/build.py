"""A freshly initialised model for prepared data."""

from __future__ import annotations

import random

import numpy as np
import torch

from recbole_dtn.config.settings import Settings
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.preprocess.prepare import PreparedData
from recbole_dtn.registry import MODELS

__all__ = ["build_model", "seed_everything", "use_threads"]


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def use_threads(settings: Settings) -> None:
    """Set the number of torch's CPU threads, where the settings name one."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


def build_model(settings: Settings, prepared: PreparedData) -> MultiTaskRecommender:
    """A freshly initialised model for the prepared data; ``settings.seed`` alone decides its weights."""
    # Directly before the model is built: preparing the data may have drawn numbers, or may have been skipped.
    seed_everything(settings.seed)
    model: MultiTaskRecommender = MODELS.load(settings.model)(settings, prepared.schema)
    return model
