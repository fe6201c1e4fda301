"""The one-hot matrix of a batch: its product with a table of rows is what :class:`EmbeddingTable` computes, summed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.schema import DataSchema

__all__ = ["one_hot", "stack"]

Floats = npt.NDArray[np.float64]


def one_hot(features: Features, schema: DataSchema) -> sparse.csr_matrix:
    """(B, rows of the joint table), float64.

    A single id is 1 in the column of its row. A multi-valued field has, in the column of each value, its weight (1
    without weights), divided by the sum of the weights under mean pooling. A continuous value is in the column of its
    learned row; where it is absent, the column of the absent row is 1.

    >>> import torch
    >>> from recbole_dtn.schema import FieldSpec
    >>> single, number = FieldSpec("a", "token", 3, 0), FieldSpec("c", "float", 2, 7)
    >>> fields = (single, FieldSpec("b", "token_seq", 4, 3, "mean"), number)
    >>> many = MultiValued(torch.tensor([4, 6]), torch.tensor([0, 2]))
    >>> batch = Features(torch.tensor([[2, -1, -1]]), {1: many}, torch.tensor([[0.25]]))
    >>> one_hot(batch, DataSchema(fields, ())).toarray().tolist()
    [[0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.25]]
    """
    batch = len(features)
    every = np.arange(batch)
    rows, columns, values = [], [], []
    for position, spec in enumerate(schema.fields):
        if spec.single_id:
            rows.append(every)
            columns.append(features.ids[:, position].numpy())
            values.append(np.ones(batch))
        elif spec.kind == "token_seq":
            many = features.multi[position]
            rows.append(np.repeat(every, np.diff(many.offsets.numpy())))
            columns.append(many.values.numpy())
            values.append(_shares(many, rows[-1], batch, spec.pooling))
        else:
            number = features.dense[:, schema.dense_fields.index(position)].numpy().astype(np.float64)
            absent = np.isnan(number)
            rows.append(every)
            columns.append(np.where(absent, spec.offset, spec.offset + 1))
            values.append(np.where(absent, 1.0, number))
    where = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_matrix((np.concatenate(values), where), shape=(batch, schema.num_rows))


def _shares(many: MultiValued, owner: npt.NDArray[Any], batch: int, pooling: str) -> Floats:
    """The factor of each value in its row's pooled vector (:func:`recbole_dtn.layers.embedding.pool`)."""
    weights = np.ones(len(owner)) if many.weights is None else many.weights.numpy().astype(np.float64)
    if pooling == "sum":
        return weights
    mass = np.bincount(owner, weights, minlength=batch)
    shares: Floats = weights / np.where(mass == 0, 1.0, mass)[owner]
    return shares


def stack(parts: Sequence[sparse.csr_matrix]) -> sparse.csr_matrix:
    """The matrices one below the other."""
    return sparse.vstack(parts, format="csr") if len(parts) > 1 else parts[0]
