"""Mean and standard deviation of the labels of regressions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.config.settings import TaskSettings
from recbole_dtn.errors import DataError
from recbole_dtn.registry import LOSSES

__all__ = ["target_statistics"]

BLOCK = 1 << 20


def target_statistics(
    tasks: Sequence[TaskSettings], labels: npt.NDArray[Any], observed: npt.NDArray[np.bool_]
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the observed labels of every regression with ``standardise``.

    A regression without an observed label is left out; labels that are all equal have the standard deviation 1.

    Args:
        tasks: the T tasks. labels, observed: (rows, T) of the training rows; read some rows at a time.

    Raises:
        DataError: for a label below 0 whose loss learns the logarithm of its expectation (``wlr``).
    """
    found = {}
    for position, task in enumerate(tasks):
        if task.kind != "regression":
            continue
        count, mean, squares, least = 0, 0.0, 0.0, math.inf
        for start in range(0, len(labels), BLOCK):
            rows = slice(start, start + BLOCK)
            values = labels[rows, position][observed[rows, position]].astype(np.float64)
            if not len(values):
                continue
            # Two sets of deviations are joined as Chan et al. (1979) do: labels far from 0 lose no digits.
            own, total = float(values.mean()), count + len(values)
            squares += float(np.square(values - own).sum()) + (own - mean) ** 2 * count * len(values) / total
            mean += (own - mean) * len(values) / total
            count, least = total, min(least, float(values.min()))
        exponential = task.loss is not None and LOSSES.attributes(task.loss.name).get("link") == "exp"
        if exponential and least < 0:
            raise DataError(
                f"task {task.name!r}: loss {task.loss.name!r} expects labels of at least 0; found {least:g} in "  # type: ignore[union-attr]
                f"column {task.label!r} of the training rows: choose mse or huber"
            )
        if count and task.standardise:
            found[task.name] = mean, math.sqrt(squares / count) or 1.0
    return found
