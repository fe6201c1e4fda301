"""Scoring one row gives what the row gets in a large batch: the experts of few rows are computed in another way."""

import pytest
import torch

from recbole_dtn.kernels.choice import FEW_ROWS
from recbole_dtn.layers.experts import Experts, run_together


@pytest.mark.parametrize("hidden", [[5], [5, 3]])
def test_few_rows_get_what_they_get_among_many(hidden: list[int]) -> None:
    torch.manual_seed(0)
    groups = [Experts(7, hidden, count=2).eval(), Experts(7, hidden, count=3).eval()]
    x = torch.randn(2 * FEW_ROWS, 7)
    many = run_together(groups, x)
    with torch.no_grad():
        for rows in (1, FEW_ROWS, FEW_ROWS + 1):
            for few, all_rows in zip(run_together(groups, x[:rows]), many, strict=True):
                torch.testing.assert_close(few, all_rows[:rows], rtol=1e-6, atol=1e-6)
                assert few.shape[0] == rows
