"""Expected calibration error."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recbole_dtn.metric.base import Rows, undefined
from recbole_dtn.metric.kept import RowsMetric
from recbole_dtn.metric.runs import run_starts
from recbole_dtn.registry import METRICS

__all__ = ["ECE", "reliability"]


def reliability(rows: Rows, bins: int) -> NDArray[np.float64]:
    """(bins, 3): mass, mean prediction and mean label of bins of equal mass, from the lowest prediction up.

    A run of equal predictions that lies across the edge of two bins is divided between them in proportion, with the
    run's mean label in both: the result does not depend on the order of the rows.

    >>> rows = Rows(torch.tensor([-2.0, -1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    >>> reliability(rows, 2).round(3).tolist()
    [[2.0, 0.194, 0.0], [2.0, 0.5, 0.5]]
    """
    chances = rows.probabilities.numpy()
    order = np.argsort(chances)
    mass = rows.mass.numpy()[order]
    starts = run_starts(chances[order])
    columns = np.stack([mass, mass * chances[order], mass * rows.labels.double().numpy()[order]], 1)
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(np.add.reduceat(columns, starts, axis=0), axis=0)])
    edges = sums[-1, 0] * np.arange(bins + 1) / bins
    # Between the ends of two runs the sums grow in proportion to the mass.
    at_edges = np.stack([np.interp(edges, sums[:, 0], column) for column in sums.T], 1)
    found = np.diff(at_edges, axis=0)
    found[:, 1:] /= found[:, :1]
    return found


@METRICS.register("ece", paper="Naeini et al., AAAI 2015")
class ECE(RowsMetric):
    """Expected calibration error: how far mean predictions are from mean labels, over bins of equal mass.

    ``sum_b n_b / N |mean p_b - mean y_b|`` over bins of equally many rows (by sample weight), ordered by prediction.
    Rows of equal predictions are spread evenly over the bins that they fall into. Bins of equal width, which are common
    too, would put nearly all predictions of a rare event into the first one. With few rows a bin the error is above 0
    for a calibrated model too.

    The record of a run keeps the reliability table of the test rows under ``details``: of each bin its ``rows``,
    ``predicted`` (mean prediction) and ``observed`` (mean label). Undefined without rows.

    >>> metric = ECE(bins=2)
    >>> metric.update(torch.tensor([-2.0, -1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    >>> metric.compute()
    tensor(0.0970, dtype=torch.float64)
    """

    higher_is_better = False
    needs_calibrated = True
    by_default = False

    def __init__(
        self, *, bins: Annotated[int, Field(ge=1, le=10_000, description="number of bins, of equal mass")] = 15
    ) -> None:
        super().__init__()
        self.bins = bins
        self._table: NDArray[np.float64] | None = None

    def compute(self) -> Tensor:
        rows = self.rows()
        self._table = reliability(rows, self.bins) if len(rows) else None
        if self._table is None:
            return undefined()
        return torch.tensor(np.abs(self._table[:, 1] - self._table[:, 2]).mean(), dtype=torch.float64)

    def details(self) -> dict[str, Any] | None:
        if self._table is None:
            return None
        names = ("rows", "predicted", "observed")
        return {"reliability": [dict(zip(names, row, strict=True)) for row in self._table.tolist()]}
