"""A label of type token is refused where nothing turns it into 0 and 1: stock RecBole would make it an input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.prepare import prepare


def prepared(folder: Path, **task: Any) -> Any:
    (folder / "mine").mkdir()
    rows = "".join(f"u{i % 5}\t{i % 3 % 2}\n" for i in range(40))
    (folder / "mine" / "mine.inter").write_text(f"u:token\ty:token\n{rows}")
    tasks = [{"name": "t", "label": "y", **task}]
    return prepare(
        resolve({"dataset": "mine", "data_path": str(folder), "fields": [{"name": "u"}], "tasks": tasks}).settings
    )


def test_a_token_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine\.inter, line 1: the label 'y' of task 't' is of type token.*y:float"):
        prepared(tmp_path)


def test_a_condition_over_a_token_is_fine(tmp_path: Path) -> None:
    found = prepared(tmp_path, condition="y == 1")
    assert found.summary.positives["train"]["t"][0] > 0
