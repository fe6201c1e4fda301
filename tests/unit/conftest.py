"""What several unit tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.cli import main
from recbole_dtn.leaderboard.compare import compare
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, Tested
from recbole_dtn.record.record import RunRecord

Shown = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Run a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def board_runs() -> Callable[..., list[RunRecord]]:
    """``board_runs(model, auc, seeds)``: finished runs of one row, two tasks, whose AUC differs a little by seed."""

    def runs(model: str, auc: float, seeds: Sequence[int] = range(10), **changes: Any) -> list[RunRecord]:
        return [_board_run(model, auc + (seed * 3 % 7 - 3) * 1e-4, seed, changes) for seed in seeds]

    return runs


@pytest.fixture
def tested() -> Callable[[list[BoardRow]], list[BoardRow]]:
    """Rows of one data set with statistics of their test sample: those of the paired t-test, which are made up."""

    def given(rows: list[BoardRow]) -> list[BoardRow]:
        about = {"draws": 2000, "drawn": "users", "units": 40, "test_rows": 100}
        tests: dict[int, dict[Metric, Tested]] = {}
        found = compare(rows)
        for each in found.differences if found is not None else ():
            paired = each.paired
            numbers = (paired.error, paired.low, paired.high)
            found_of = tests.setdefault(id(each.row), {})
            found_of[each.metric] = Tested("bootstrap", *numbers, *numbers, paired.p)
        return [replace(row, tested=tests.get(id(row), {}), tested_on=about) for row in rows]

    return given


def _board_run(model: str, auc: float, seed: int, changes: dict[str, Any]) -> RunRecord:
    changes = dict(changes)
    settings = {"valid_metric": "mean_auc", "tasks": [], "epochs": 2, "optimizer": {"name": "adam", "lr": 0.002}}
    parameters = {"embedding": 1000, "codebook": 0, "dense": len(model) * 100}
    valid = {"like": {"auc": auc - 0.01, "logloss": 0.6}, "love": {"auc": auc + 0.01, "logloss": 0.5}}
    values: dict[str, Any] = {
        "run_id": f"20260101-00{seed:04}-{model}",
        "status": "finished",
        "interrupted_at": None,
        "model": model,
        "dataset": "films",
        "seed": seed,
        "split_seed": 2020,
        "settings": {**settings, "model": model, **changes.pop("settings", {})},
        "settings_digest": f"digest-of-{model}",
        "data_fingerprint": "feedbeef",
        "code_version": "0.1.0",
        "tasks": [{"name": name, "label": name, "after": []} for name in ("like", "love")],
        "valid": valid,
        "test": {
            "like": {"auc": auc, "auc_se": 0.005, "logloss": 0.6, "calibration": 1.1},
            "love": {"auc": auc + 0.03, "auc_se": 0.006, "logloss": 0.5, "calibration": None},
        },
        "best_epoch": 2,
        "epochs": 3,
        "history": [
            {"epoch": epoch, "step": epoch, "loss": 1 / epoch, "valid": valid, "selected": auc - abs(epoch - 2) * 0.01}
            for epoch in (1, 2, 3)
        ],
        "valid_value": auc,
        "parameters": parameters,
        "train_samples_per_second": 1000.0,
        "peak_rss_bytes": 2**20,
        "peak_anon_bytes": None,
        "wall_seconds": {"train": 2.5},
        "gate_weights": {},
        "versions": {},
        "rows": {"train": 800, "valid": 100, "test": 100},
    }
    return RunRecord.model_validate({**values, **changes})
