"""Regressions in large units, watch times and down-sampled negatives, from the files to the predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recbole_dtn import fit, load
from recbole_dtn.training.fit import Run

KEPT = 0.2
"""Share of the negatives that the training file has."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 6,000 rows: a time in milliseconds and a click, of 5 users and 5 items; training lacks negatives."""
    home, random = tmp_path_factory.mktemp("targets"), np.random.default_rng(0)
    user, item = random.integers(5, size=(2, 12_000))
    click = random.random(12_000) < (1 + user + item) / 40
    seconds = (2 + user * item) * random.exponential(size=12_000)
    part = np.where(random.random(12_000) < 0.7, "train", np.where(random.random(12_000) < 0.5, "valid", "test"))
    kept = click | (part != "train") | (random.random(12_000) < KEPT)
    rows = zip(user, item, click, seconds * 1000, part, kept, strict=True)
    lines = [f"u{u}\ti{i}\t{c:d}\t{t:.1f}\t{p}" for u, i, c, t, p, k in rows if k]
    (home / "mine").mkdir()
    header = "u:token\ti:token\tclick:float\ttime:float\tpart:token"
    (home / "mine" / "mine.inter").write_text("\n".join([header, *lines]) + "\n")
    return home


def run(folder: Path, loss: Any, **task: Any) -> Run:
    given = {
        "data_path": str(folder),
        "output_dir": str(folder / "runs"),
        "fields": [{"name": "u"}, {"name": "i"}],
        "tasks": [
            {"name": "click", "label": "click", "negative_rate": KEPT, "pairwise": 0.1},
            {"name": "stay", "label": "time", "kind": "regression", "loss": loss, **task},
        ],
        "split": "column",
        "split_field": "part",
        "epochs": 4,
        "train_batch_size": 128,
        "embedding_size": 4,
        "optimizer.lr": 0.01,
        "valid_metric": "stay_rmse",
        "metrics": ["auc", "calibration", "rmse", "xauc"],
        "accelerator": "cpu",
    }
    return fit("SharedBottom", "mine", given, quiet=True)


@pytest.fixture(scope="module")
def squared(folder: Path) -> Run:
    """With the default loss."""
    return run(folder, None)


GRID = pl.DataFrame({"u": [f"u{u}" for u in range(5)] * 5, "i": [f"i{i}" for i in range(5) for _ in range(5)]})
EXPECTED = np.array([1000.0 * (2 + u * i) for i in range(5) for u in range(5)])
"""Of each user and item, the expected time in milliseconds."""


@pytest.mark.parametrize("loss", [None, "huber", "wlr"])
def test_milliseconds_learn_and_are_predicted(folder: Path, squared: Run, loss: str | None) -> None:
    made = squared if loss is None else run(folder, loss)
    loaded = load(made.folder)
    spec = loaded.model.schema.tasks[1]
    assert spec.mean is not None
    assert 4500 < spec.mean < 7500
    found = loaded.predict(GRID)["stay"].to_numpy()
    if loss == "huber":  # of a skewed time: below its mean
        assert np.corrcoef(found, EXPECTED)[0, 1] > 0.9
    else:
        assert np.abs(found - EXPECTED).mean() < 0.25 * EXPECTED.mean()
    # Metrics are in milliseconds, and those of the loaded run.
    assert made.test["stay"] == loaded.evaluate().tasks["stay"]
    assert 5000 < made.test["stay"]["rmse"] < 9000
    assert 0.6 < made.test["stay"]["xauc"] < 0.8


def test_without_the_scale_they_learn_less(folder: Path) -> None:
    found = load(run(folder, None, standardise=False).folder)
    assert found.model.schema.tasks[1].mean is None
    assert np.abs(found.predict(GRID)["stay"].to_numpy() - EXPECTED).mean() > 0.33 * EXPECTED.mean()


def test_predictions_are_those_of_all_negatives(squared: Run) -> None:
    # Validation and test rows are all there: without the correction it would be above 2.
    assert squared.test["click"]["calibration"] == pytest.approx(1, abs=0.2)
    loaded = load(squared.folder)
    chances = loaded.predict(GRID)["click"].to_numpy()
    expected = np.array([(1 + u + i) / 40 for i in range(5) for u in range(5)])
    assert np.abs(chances - expected).mean() < 0.05
    rate = loaded.model.schema.tasks[0].rate
    assert rate is not None
    assert rate > 2 * expected.mean()
