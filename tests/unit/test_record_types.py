"""A record's values are read as they are written, and one that was changed is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.errors import DataError
from recbole_dtn.record.record import RunRecord, read_record, write_record

Runs = Callable[..., list[RunRecord]]


def edited(file: Path, change: Callable[[dict[str, Any]], Any], *, keep_sum: bool = False) -> None:
    """Change a record's values; its sum is left out, as somebody who edits it does."""
    content = json.loads(file.read_text())
    change(content)
    if not keep_sum:
        del content["sum"]
    file.write_text(json.dumps(content))


@pytest.fixture
def record(board_runs: Runs) -> RunRecord:
    return board_runs("MMoE", 0.7, [2020])[0]


LAX: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "best_epoch: true": (lambda r: r.update(best_epoch=True), "best_epoch: Input should be a valid integer"),
    "seed: a text": (lambda r: r.update(seed="7"), "seed: Input should be a valid integer"),
    "epochs: 1.0": (lambda r: r.update(epochs=1.0), "epochs: Input should be a valid integer"),
    "schema_version: true": (lambda r: r.update(schema_version=True), "schema_version: Input should be"),
    "selected_on_test: 1": (lambda r: r.update(selected_on_test=1), "selected_on_test: Input should be"),
    "valid_value: a text": (lambda r: r.update(valid_value="0.5"), "valid_value: Input should be a valid number"),
    "rows: true": (lambda r: r["rows"].update(train=True), "rows.train: Input should be a valid integer"),
    "test: true": (lambda r: r["test"].update(x={"auc": True}), "test.x.auc: Input should be a valid number"),
    "positives: true": (lambda r: r["positives"].update(test={"x": [True, 2]}), "positives.test.x.0: Input should be"),
    "history: true": (
        lambda r: r.update(history=[{"epoch": True, "step": 1, "loss": 1.0, "valid": None, "selected": None}]),
        "history.0.epoch: Input should be a valid integer",
    ),
    "weight: true": (
        lambda r: r["settings"].update(tasks=[{"name": "x", "pos_weight": True}]), "a pos_weight (a number) in each",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", LAX)
def test_a_value_of_another_type_is_refused_not_converted(tmp_path: Path, record: RunRecord, fault: str) -> None:
    change, message = LAX[fault]
    file = write_record(record, tmp_path)
    edited(file, change)
    with pytest.raises(DataError, match=re.escape(message)):
        read_record(tmp_path)


def test_a_changed_value_is_noticed_and_may_be_wanted(tmp_path: Path, record: RunRecord) -> None:
    file = write_record(record, tmp_path)
    assert read_record(tmp_path) == record
    assert list(json.loads(file.read_text()))[-1] == "sum"
    # Laid out in another way, it is the same record.
    edited(file, lambda r: r.update(seed=r.pop("seed")), keep_sum=True)
    assert read_record(tmp_path) == record
    edited(file, lambda r: r.update(epochs=r["epochs"] + 1), keep_sum=True)
    with pytest.raises(DataError, match=r"record\.json was changed.*delete the key `sum`"):
        read_record(tmp_path)
    edited(file, lambda r: None)
    assert read_record(tmp_path) == record.model_copy(update={"epochs": record.epochs + 1})


def test_one_changed_digit_anywhere_is_noticed(tmp_path: Path, record: RunRecord) -> None:
    file = write_record(record, tmp_path)
    text = file.read_text()
    digits = [match.start() for match in re.finditer(r"\d", text)]
    assert len(digits) > 200
    for at in digits[:: len(digits) // 60]:
        file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
        with pytest.raises(DataError):
            read_record(tmp_path)
