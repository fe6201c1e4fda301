"""A freshly initialised model for prepared data."""

from __future__ import annotations

import random

import numpy as np
import torch

from recbole_dtn.config.settings import Settings
from recbole_dtn.interaction.bounds import bounded_defaults
from recbole_dtn.interaction.memonet import MemoNet
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.preprocess.prepare import PreparedData
from recbole_dtn.registry import MODELS

__all__ = ["build_model", "choices_by_data", "left_out_of_pairs", "seed_everything", "use_threads"]


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


def choices_by_data(model: MultiTaskRecommender) -> list[str]:
    """Sentences about what the size of the data decided in a model's interactions, for the output and the record."""
    return [*left_out_of_pairs(model), *bounded_defaults(model)]


def left_out_of_pairs(model: MultiTaskRecommender) -> list[str]:
    """Sentences about fields that MemoNet's ``top_fields`` leaves out of its pairs, each once.

    Args:
        model: with MemoNet modules, or without.
    """
    found = []
    for module in model.modules():
        if not isinstance(module, MemoNet):
            continue
        fields, paired = module.shape.id_fields, module.paired_fields
        left_out = [model.schema.fields[position].name for position in fields if position not in paired]
        if left_out:
            used, all_pairs = (count * (count - 1) // 2 for count in (len(paired), len(fields)))
            found.append(
                f"memonet: top_fields={module.top_fields} leaves {', '.join(left_out)} out of its pairs ({used:,} of "
                f"{all_pairs:,} pairs; {{name: memonet, top_fields: null}} in interactions pairs all)"
            )
    return list(dict.fromkeys(found))
