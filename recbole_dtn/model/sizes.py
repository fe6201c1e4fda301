"""Parameters and FLOPs of a model, counted without its values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["forward_flops", "meta_batch", "meta_model", "model_flops", "model_parameters"]

ROWS = 64
"""Rows of the batch whose FLOPs are counted; work that is done once a batch is shared among them."""


def meta_model(settings: Settings, schema: DataSchema) -> MultiTaskRecommender:
    """The plain form (``fused: false``) of a model on torch's ``meta`` device, which holds shapes and no values."""
    with torch.device("meta"), torch.no_grad():
        model: MultiTaskRecommender = MODELS.load(settings.model)(settings.model_copy(update={"fused": False}), schema)
    model.eval()
    return model


def model_parameters(settings: Settings, schema: DataSchema) -> dict[str, int]:
    """Trainable numbers by part: embedding, codebook, dense, and their ``total``."""
    counts = meta_model(settings, schema).count_parameters()
    return {**counts, "total": sum(counts.values())}


def model_flops(settings: Settings, schema: DataSchema) -> int:
    """FLOPs of a forward pass per row, as :func:`forward_flops` counts them."""
    return forward_flops(meta_model(settings, schema), meta_batch(schema, ROWS), rows=ROWS)


def forward_flops(module: nn.Module, *inputs: Any, rows: int) -> int:
    """FLOPs of a forward pass per row.

    They are those of matrix products, a multiplication and an addition counted as two; element-wise operations and
    look-ups are not counted. Kernels of one's own are not seen: the module is to be in its plain form.

    Args:
        module: to be called with ``inputs``, which have ``rows`` rows.

    >>> forward_flops(nn.Linear(3, 4), torch.zeros(2, 3), rows=2)
    24
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    flops: int = round(counter.get_total_flops() / rows)
    return flops


def meta_batch(schema: DataSchema, rows: int) -> Features:
    """A batch that fits ``schema``, on the ``meta`` device; multi-valued fields have one value a row."""
    with torch.device("meta"):
        multi = {
            position: MultiValued(
                torch.zeros(rows, dtype=torch.int64),
                torch.zeros(rows + 1, dtype=torch.int64),
                torch.zeros(rows) if schema.fields[position].weights else None,
            )
            for position in schema.multi_fields
        }
        return Features(
            ids=torch.zeros(rows, schema.num_fields, dtype=torch.int64),
            multi=multi,
            dense=torch.zeros(rows, len(schema.dense_fields)),
            labels=torch.zeros(rows, schema.num_tasks),
            observed=torch.ones(rows, schema.num_tasks, dtype=torch.bool),
            domain=torch.zeros(rows, dtype=torch.int64) if schema.num_domains else None,
            row=torch.zeros(rows, dtype=torch.int64),
        )
