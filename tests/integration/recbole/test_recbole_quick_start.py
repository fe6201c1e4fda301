"""``run_recbole`` of ours takes RecBole's arguments and YAML files; RecBole's own can be imported beside us."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_dtn import run_recbole
from recbole_dtn.errors import UsageError
from recbole_dtn.record.record import read_record
from recbole_dtn.serving.load import load

FILE = """
USER_ID_FIELD: user
ITEM_ID_FIELD: item
RATING_FIELD: price
LABEL_FIELD: dear
threshold: {price: 100}
load_col: ~
unload_col: {inter: [click, buy]}
numerical_features: [age]
benchmark_filename: [train, valid, test]
eval_args: {split: {RS: [0.8, 0.1, 0.1]}, order: RO, group_by: none, mode: labeled}
train_neg_sample_args: ~
metrics: [AUC, LogLoss]
valid_metric: LogLoss
epochs: 300
train_batch_size: 64
learning_rate: 0.01
gpu_id: ''
show_progress: False
state: WARNING
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "user.yaml"
    path.write_text(FILE)
    return path


def given(toy: Any, **values: Any) -> dict[str, Any]:
    return {"data_path": str(toy.data_path), "checkpoint_dir": str(toy.data_path / "saved"), **values}


def test_a_recbole_file_trains_our_model(toy: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prog", "--epochs=99", "--learning_rate=x"])
    small = {"expert_hidden": [8], "tower_hidden": [4], "embedding_size": 4, "epochs": 2}
    found = run_recbole("MMoE", "toy", [str(file)], given(toy, **small))
    record = read_record(found["run_folder"])
    assert found["run_folder"].is_relative_to(toy.data_path / "saved")
    settings = record.settings
    assert (settings["epochs"], settings["train_batch_size"], settings["optimizer"]["lr"]) == (2, 64, 0.01)
    assert [(field["name"], field["type"]) for field in settings["fields"]] == [
        ("user", "token"), ("item", "token"), ("tags", "token_seq"), ("age", "float")
    ]  # fmt: skip
    assert (settings["split"], settings["accelerator"], settings["valid_metric"]) == ("given", "cpu", "mean_logloss")
    assert record.test is not None
    dear = record.test["dear"]
    assert {"auc", "logloss"} <= set(dear)
    means = {metric: value for metric, value in dear.items() if metric not in ("auc_se", "gauc_se")}
    assert found["test_result"] == {**means, **{f"dear_{metric}": value for metric, value in dear.items()}}
    assert found["valid_score_bigger"] is False
    assert found["best_valid_score"] == found["best_valid_result"]["logloss"]
    positives = sum(float(row["price"]) >= 100 for row in toy.rows["train"])
    assert 100 < positives < 200
    assert load(found["run_folder"]).record.run_id == record.run_id


def test_several_tasks_have_a_mean_and_their_own_values(toy: Any) -> None:
    own = {key: toy.settings[key] for key in ("fields", "tasks", "embedding_size", "train_batch_size")}
    values = given(toy, **own, model="SharedBottom", dataset="toy", split="given", epochs=1, quiet=True)
    found = run_recbole(config_dict=values, saved=False)
    test = found["test_result"]
    assert test["auc"] == pytest.approx((test["click_auc"] + test["buy_auc"]) / 2)
    assert found["valid_score_bigger"] is True
    assert not list(found["run_folder"].glob("*.ckpt"))
    assert (found["run_folder"] / "record.json").is_file()


def test_what_has_no_counterpart_is_named_with_its_file(toy: Any, file: Path) -> None:
    with pytest.raises(UsageError) as error:
        run_recbole("MMoE", "toy", [file], given(toy, metrics=["Recall"], val_interval={"age": "[20,inf)"}))
    lines = str(error.value).splitlines()
    assert lines[0] == "2 settings are wrong:"
    assert sorted(line.split(":")[0].strip() for line in lines[1:]) == ["metrics", "val_interval"]
    assert all(line.endswith("(config_dict)") for line in lines[1:])
    file.write_text(FILE.replace("mode: labeled", "mode: full").replace("[train, valid, test]", "~"))
    with pytest.raises(UsageError, match=rf"eval_args: is RecBole's setting; .* write mode: labeled in it \({file}\)"):
        run_recbole("MMoE", "toy", [file], given(toy))


def test_recboles_own_models_are_told_apart_from_misspelt_ones(toy: Any) -> None:
    with pytest.raises(UsageError, match=r"model 'DeepFM' is RecBole's own, .*docs/recbole\.md"):
        run_recbole("DeepFM", "toy", config_dict=given(toy))
    with pytest.raises(UsageError, match="unknown model 'MMoEE': did you mean 'MMoE'"):
        run_recbole("MMoEE", "toy", config_dict=given(toy))
    with pytest.raises(UsageError, match="expected a dataset, as an argument"):
        run_recbole("MMoE")


@pytest.mark.skipif(
    find_spec("pkg_resources") is None, reason="this environment has setuptools >= 81; setup.py pins <81"
)
def test_recboles_quick_start_can_be_imported_and_runs(toy: Any, tmp_path: Path) -> None:
    values = {
        "data_path": str(toy.data_path), "load_col": None, "unload_col": {"inter": ["buy"]}, "LABEL_FIELD": "click",
        "benchmark_filename": ["train", "valid", "test"], "numerical_features": ["age", "price"],
        "USER_ID_FIELD": None, "ITEM_ID_FIELD": None, "epochs": 1, "gpu_id": "", "show_progress": False,
    }  # fmt: skip
    (tmp_path / "stock.yaml").write_text(yaml.safe_dump(values))
    code = (
        "from recbole.quick_start import run_recbole\n"
        "print(sorted(run_recbole('DeepFM', 'toy', ['stock.yaml'], saved=False)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("['best_valid_result', 'best_valid_score', 'test_result', 'valid_score_bigger']\n")
