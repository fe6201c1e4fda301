"""What is said before a run: regression targets that would outweigh the other tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.training.warn import large_targets, unread_weights


def warnings_of(
    folder: Path, *, watched: int, weight: float, binary: bool = True, standardise: bool = False
) -> list[str]:
    rows = "".join(f"u{i % 7}\t{i % 3 % 2}\t{watched * (1 + i % 2)}\n" for i in range(60))
    (folder / "mine").mkdir()
    (folder / "mine" / "mine.inter").write_text(f"u:token\ty:float\ttime:float\n{rows}")
    tasks: list[dict[str, Any]] = [
        {"name": "watch", "kind": "regression", "label": "time", "weight": weight, "standardise": standardise}
    ]
    tasks += [{"name": "click", "label": "y"}] if binary else []
    metric = "click_auc" if binary else "watch_rmse"
    given = {"dataset": "mine", "data_path": str(folder), "fields": [{"name": "u"}], "tasks": tasks}
    settings = resolve({**given, "valid_metric": metric}).settings
    return large_targets(settings.tasks, prepare(settings).splits["train"])


def test_large_targets_are_named_with_a_weight_that_fits(tmp_path: Path) -> None:
    (sentence,) = warnings_of(tmp_path, watched=1000, weight=1.0)
    found = re.search(r"task 'watch': its targets are large \(mean square (\S+)\)", sentence)
    assert found is not None
    assert 2.2e6 < float(found[1]) < 2.8e6  # 1000 and 2000, about half each
    assert "a weight of about 4e-07" in sentence


@pytest.mark.parametrize(("watched", "weight", "binary"), [(1, 1.0, True), (1000, 4e-7, True), (1000, 1.0, False)])
def test_small_weighted_and_lonely_targets_are_fine(tmp_path: Path, watched: int, weight: float, binary: bool) -> None:
    assert warnings_of(tmp_path, watched=watched, weight=weight, binary=binary) == []


def test_targets_that_are_standardised_are_fine(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, watched=1000, weight=1.0, standardise=True) == []


def test_weights_of_tasks_that_a_balancer_does_not_read_are_told() -> None:
    weighted = ["--tasks.love.weight=2"]
    assert unread_weights(resolve(weighted).settings) == []
    assert unread_weights(resolve(["--balancer=pcgrad"]).settings) == []
    (told,) = unread_weights(resolve([*weighted, "--balancer=pcgrad"]).settings)
    assert told.startswith("the balancer pcgrad does not read the weight of love: ")
