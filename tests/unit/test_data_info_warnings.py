"""What ``data info`` warns of, on data sets made odd, and columns without any value."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.inspect.info.page import page
from recbole_dtn.inspect.info.report import to_json
from recbole_dtn.preprocess.prepare import PreparedData, prepare

SPLITS = ("train", "valid", "test")


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """Prepare a data set of given parts from columns ``name: {split: values}``."""

    def make(columns: dict[str, dict[str, list[str]]], tasks: str, floats: tuple[str, ...] = ()) -> PreparedData:
        folder = tmp_path / "small"
        folder.mkdir()
        names = list(columns)
        kinds = {name: "float" if name in floats or name.startswith("y") else "token" for name in names}
        inputs = ", ".join(f"{{name: {name}, type: {kinds[name]}}}" for name in names if not name.startswith("y"))
        (folder / "small.yaml").write_text(f"fields: [{inputs}]\ntasks: {tasks}\nsplit: given\n")
        for split in SPLITS:
            header = "\t".join(f"{name}:{kinds[name]}" for name in names)
            rows = zip(*(columns[name][split] for name in names), strict=True)
            lines = "\n".join([header, *("\t".join(row) for row in rows)])
            (folder / f"small.{split}.inter").write_text(lines + "\n")
        return prepare(resolve(["--dataset=small", f"--data_path={tmp_path}"]).settings)

    return make


def test_warnings_name_what_is_odd(small: Any) -> None:
    count = {"train": 200, "valid": 4, "test": 4}
    rng = random.Random(0)
    label_of = {split: [str(rng.randrange(2)) for _ in range(n)] for split, n in count.items()}
    every = {split: range(n) for split, n in count.items()}
    columns = {
        "row": {split: [f"{split}{i}" if split == "test" else str(i % 50) for i in every[split]] for split in SPLITS},
        "outcome": {split: [f"o{value}" for value in label_of[split]] for split in SPLITS},
        "constant": {split: ["c"] * count[split] for split in SPLITS},
        "empty": {split: ["" if split == "train" else "v"] * count[split] for split in SPLITS},
        "gone": {split: ["" if split == "test" else str(i % 3) for i in every[split]] for split in SPLITS},
        "y": label_of,
        "y2": {split: ["1" if i == 0 else "0" for i in every[split]] for split in SPLITS},
    }
    columns["y"]["train"][0] = "0"
    columns["outcome"]["train"][0] = "o0"
    info = inspect(small(columns, "[{name: y, label: y}, {name: late, label: y2, after: [y]}]"))
    unseen = "of its values in {} have no id (too rare or not in training)"
    expected = {
        "field 'outcome' alone gives AUC 1.00 for task 'y': is it an outcome?",
        f"field 'row': 100.0% {unseen.format('test')}",
        "field 'row' has one value in test, but not in training",
        "field 'constant' has one value in training: a model learns nothing from it",
        "field 'empty' is missing in every training row: a model learns nothing from it",
        "field 'empty' has values in valid, where training has none",
        "field 'empty' has values in test, where training has none",
        "field 'gone' is missing in every row of test, but not in training",
        "task 'late' comes after 'y', but in 1 rows of train late is 1 and y is 0",
        # Hanley and McNeil for 1 positive and 3 negatives: SE^2 = (.21 + 2 * (.98 / 1.7 - .49)) / 3 = .1276
        "task 'late' has 1 positives in test (4 rows); an AUC of .7 has a standard error of 0.357 there, so that "
        "models closer than about 0.71 cannot be told apart: test on more rows (split_ratio), or average over several "
        "splits (--split_seeds)",
    }
    assert expected <= set(info.warnings)
    others = set(info.warnings) - expected
    assert all("late" in text or "'y' has " in text or "'outcome' has one value in" in text for text in others), others


def test_leaked_rows_are_a_warning_and_quick_leaves_them_out(small: Any) -> None:
    values = {"train": ["a", "b", "c", "c"], "valid": ["a", "d"], "test": ["c"]}
    labels = {"train": ["0", "1", "0", "0"], "valid": ["1", "0"], "test": ["0"]}
    prepared = small({"t": values, "y": labels}, "[{name: y, label: y}]")
    info = inspect(prepared)
    assert "1 row of valid (50.00%) has the inputs of a training row, 0 of them its labels too" in info.warnings
    assert "1 row of test (100.00%) has the inputs of a training row, 1 of them its labels too" in info.warnings
    quick = inspect(prepared, quick=True)
    assert (quick.duplicates, quick.single_field_auc, quick.sampled_rows) == (None, None, None)
    assert not any("training row," in text for text in quick.warnings)
    assert (quick.fields, quick.tasks, quick.pairs) == (info.fields, info.tasks, info.pairs)


def test_test_rows_that_are_validation_rows_are_a_warning(small: Any) -> None:
    """What training has never seen may still be in both of the others: numbers are then selected on the test set."""
    values = {"train": ["a", "b"], "valid": ["x", "y", "x"], "test": ["x", "y", "z", "y"]}
    labels = {"train": ["0", "1"], "valid": ["1", "0", "1"], "test": ["1", "1", "0", "0"]}
    numbers = {split: [str(float(ord(text) % 4)) for text in texts] for split, texts in values.items()}
    prepared = small({"t": values, "u": numbers, "y": labels}, "[{name: y, label: y}]", floats=("u",))
    info = inspect(prepared)
    found = to_json(info)["duplicates"]
    assert [found["test"][key] for key in ("in_valid", "in_valid_share", "in_valid_same")] == [3, 0.75, 2]
    assert [found["valid"][key] for key in ("in_valid", "in_valid_share", "in_valid_same")] == [None] * 3
    warning = "3 rows of test (75.00%) have the inputs of a validation row, 2 of them its labels too"
    assert warning in info.warnings
    assert warning in page(info)
    assert not any("validation row," in text for text in inspect(prepared, quick=True).warnings)


def test_an_outcome_that_is_a_number_is_suspected(small: Any, tmp_path: Path) -> None:
    folder = tmp_path / "num"
    folder.mkdir()
    (folder / "num.yaml").write_text("fields: [{name: seconds, type: float}]\ntasks: [{name: y, label: y}]\n")
    rng = random.Random(1)
    lines = [f"{value}\t{float(0.3 < value < 0.7)}" for value in (rng.random() for _ in range(3000))]
    (folder / "num.inter").write_text("\n".join(["seconds:float\ty:float", *lines]) + "\n")
    info = inspect(prepare(resolve(["--dataset=num", f"--data_path={tmp_path}"]).settings))
    assert "field 'seconds' alone gives AUC 1.00 for task 'y': is it an outcome?" in info.warnings


def test_columns_without_a_value_are_counted_and_shown(tmp_path: Path) -> None:
    folder = tmp_path / "void"
    folder.mkdir()
    (folder / "void.yaml").write_text(
        "fields: [{name: t}, {name: s, type: token_seq}, {name: x, type: float}, "
        "{name: b, type: float, encoding: bins, bins: 4}]\n"
        "tasks: [{name: y, label: y}]\n"
    )
    lines = [f"\t\t\t\t{i % 2}" for i in range(400)]
    header = "t:token\ts:token_seq\tx:float\tb:float\ty:float"
    (folder / "void.inter").write_text("\n".join([header, *lines]) + "\n")
    info = inspect(prepare(resolve(["--dataset=void", f"--data_path={tmp_path}"]).settings))
    for field in info.fields:
        assert [found.missing for found in field.splits.values()] == [1, 1, 1]
        assert [found.values for found in field.splits.values()] == [0, 0, 0]
        assert [found.coverage for found in field.splits.values()] == [None, None, None]
        assert f"field '{field.name}' is missing in every training row: a model learns nothing from it" in info.warnings
    assert info.duplicates is not None
    assert [found.distinct for found in info.duplicates.values()] == [1, 1, 1]
    assert [found.leaked for found in info.duplicates.values()] == [None, 40, 40]
    assert info.single_field_auc is not None
    assert {one.auc for one in info.single_field_auc} == {0.5}
    json.dumps(to_json(info), allow_nan=False)
    assert "Lengths of lists" in page(info)
