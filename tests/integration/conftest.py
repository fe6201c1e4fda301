"""A small prepared data set for whole runs: 3,000 rows of MovieLens-100K, in a folder of the session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_dtn.training.fit import Run, fit


@pytest.fixture(scope="session")
def small_fit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """``small_fit(model, **overrides)``: a run of seconds; ``__`` in a name is the dot of a nested key."""
    home = tmp_path_factory.mktemp("runs")

    def run(model: str = "MMoE", **overrides: object) -> Run:
        given: dict[str, object] = {
            "data_path": str(home / "dataset"),
            "output_dir": str(home / "runs"),
            "limit_rows": 3000,
            "epochs": 2,
            "train_batch_size": 512,
            "embedding_size": 4,
            "accelerator": "cpu",
        }
        if model == "DTN":
            given |= {"module_dim": 8, "interactions": ["gdcn", {"name": "memonet", "codes": 50, "attention_dim": 4}]}
        given |= {name.replace("__", "."): value for name, value in overrides.items()}
        return fit(model, "ml-100k", given, quiet=True)

    return run


@pytest.fixture(scope="session")
def dtn_run(small_fit: Callable[..., Run]) -> Run:
    """One finished DTN run that several tests look at."""
    return small_fit("DTN")


@pytest.fixture
def folder(dtn_run: Run) -> Path:
    """Its folder."""
    return dtn_run.folder
