"""The effect of a field on every row, from the ids of its tokens."""

from __future__ import annotations

import numpy as np

from recbole_dtn.data.hashing import Floats, Ints, effects

__all__ = ["pooled_effect", "token_effect"]


def token_effect(seed: int, task: str, field: str, ids: Ints) -> Floats:
    """``e(id)`` of each row; 0 where the id is -1 (the field is absent).

    Args:
        ids: (n,) one integer token per row.
    """
    # The effect of id 0 is computed for absent rows and not used.
    return np.where(ids >= 0, effects(seed, task, field, np.maximum(ids, 0)), 0.0)


def pooled_effect(seed: int, task: str, field: str, ids: Ints, row: Ints, rows: int) -> Floats:
    """``sum_j e(id_j) / sqrt(n)`` over the tokens of each row; 0 where a row has none.

    Args:
        ids: (m,) tokens. row: (m,) the row of each. rows: how many rows there are.
    """
    # Divided by sqrt(n): the sum of n independent effects then has variance 1 for any n.
    count = np.bincount(row, minlength=rows)
    total = np.bincount(row, weights=effects(seed, task, field, ids), minlength=rows)
    return np.asarray(total / np.sqrt(np.maximum(count, 1)), dtype=np.float64)
