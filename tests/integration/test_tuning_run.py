"""Trials that are really trained: they read no test rows, and stop where they fall behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.data.store import Split
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.remake import all_records
from recbole_dtn.training.fit import Run

Fit = Callable[..., Run]


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """First and last row of every split that a loader is made for."""
    found: set[tuple[int, int]] = set()
    made = BatchLoader.__init__

    def note(self: BatchLoader, split: Split, *arguments: Any, **options: Any) -> None:
        found.add((split.start, split.start + split.rows))
        made(self, split, *arguments, **options)

    monkeypatch.setattr(BatchLoader, "__init__", note)
    return found


def test_a_trial_reads_no_test_rows(small_fit: Fit, rows_read: set[tuple[int, int]]) -> None:
    run = small_fit(trial={"study": "s", "number": 0})
    assert run.status == "finished"
    assert rows_read == {(0, 2400), (2400, 2700)}  # of 3,000 rows
    assert (run.test, run.record.details.get("test"), run.record.gate_weights) == (None, None, {})
    assert run.record.valid_value is not None
    assert not (run.folder / "checkpoint.ckpt").exists()
    rows_read.clear()
    assert small_fit().test is not None
    assert (2700, 3000) in rows_read


@pytest.mark.parametrize(("needed", "epochs"), [([0.99], 1), ([None, 0.99], 2), ([0.0], 3), ([], 3)])
def test_a_trial_stops_where_it_falls_behind(small_fit: Fit, needed: list[float | None], epochs: int) -> None:
    run = small_fit(trial={"study": "s", "number": 4, "needed": needed}, epochs=3)
    assert (run.record.epochs, run.status) == (epochs, "finished")


def test_a_trial_of_a_falling_metric_stops_above_the_median(small_fit: Fit) -> None:
    options: dict[str, Any] = {"valid_metric": "mean_logloss", "epochs": 3}
    assert small_fit(trial={"study": "s", "number": 4, "needed": [0.01]}, **options).record.epochs == 1
    assert small_fit(trial={"study": "s", "number": 4, "needed": [9.0]}, **options).record.epochs == 3


def test_tune_and_train_with_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows_read: set[tuple[int, int]]
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--dataset=ml-100k", "--limit_rows=3000", "--epochs=1", "--train_batch_size=512", "--embedding_size=4"]
    assert main(["tune", "--model=SharedBottom", "--trials=2", *common]) == 0
    assert "best settings: --config_files=tuning/SharedBottom-ml-100k.best.yaml" in capsys.readouterr().out
    assert rows_read == {(0, 2400), (2400, 2700)}
    recorded = Recorded()
    recorded.read(tmp_path / "runs" / "ml-100k" / "SharedBottom")
    assert len(recorded.runs) == 2
    assert all_records(recorded) == []  # trials are no rows of a leaderboard
    found = resolve(["--config_files=tuning/SharedBottom-ml-100k.best.yaml"]).settings
    assert (found.model, found.epochs, found.limit_rows) == ("SharedBottom", 10, None)
    assert found.trial is None
