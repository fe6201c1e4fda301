"""LightGBM and CatBoost: the bytes in the state score as the library does; skipped where it is not installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from recbole_dtn.data.progress import silent
from recbole_dtn.model.catboost import CatBoostTrees
from recbole_dtn.model.direct.rows import TaskRows
from recbole_dtn.model.direct.stored import StoredTrees
from recbole_dtn.model.lightgbm import LightGBMTrees
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings


@pytest.fixture(autouse=True)
def _path() -> None:
    """Nothing here is fused: one way to compute, not two."""


class Columns:
    categorical = 1


def table(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A category of 400 codes and a number, some absent; labels; weights."""
    draw = np.random.default_rng(seed)
    x = np.column_stack([draw.integers(0, 400, rows), draw.normal(size=rows)]).astype(np.float64)
    y = (draw.random(rows) < 1 / (1 + np.exp(-2 * (x[:, 0] % 2) - x[:, 1] + 1))).astype(np.float64)
    x[draw.random(x.shape) < 0.1] = np.nan
    return x, y, draw.random(rows) + 0.5


@pytest.mark.parametrize(("name", "trees"), [("LightGBM", LightGBMTrees), ("CatBoost", CatBoostTrees)])
def test_the_state_scores_as_the_trees_that_were_grown(name: str, trees: type[StoredTrees]) -> None:
    pytest.importorskip(name.lower())
    settings = make_settings(name, max_trees=40, max_leaf_nodes=8, stopping_trees=5, threads=1)
    train, valid = (TaskRows(*table(rows, seed)) for rows, seed in ((1500, 1), (400, 2)))
    ours, other = trees(), trees()
    grown, kept = ours.fit(TaskSpec("t", "binary", "y"), train, valid, Columns(), settings, silent)  # type: ignore[arg-type]
    assert 1 <= kept <= grown <= 40
    other.load_state_dict({name: value.clone() for name, value in ours.state_dict().items()})
    assert np.array_equal(other.scores(valid.inputs), ours.scores(valid.inputs))
    chances = 1 / (1 + np.exp(-other.scores(valid.inputs)))
    constant = np.full(len(chances), np.average(train.labels, weights=train.weights))
    found, known = (log_loss(valid.labels, each, sample_weight=valid.weights) for each in (chances, constant))
    assert found < known - 0.02
    assert other.content.dtype is torch.uint8
    assert ours.numbers > 4 * kept
