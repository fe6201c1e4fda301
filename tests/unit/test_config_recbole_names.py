"""RecBole's YAML files under our names: what is translated, what is named with the line to write."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_dtn.config.load import resolve
from recbole_dtn.config.recbole_names import REFUSED, translate
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError

TYPICAL = """
gpu_id: '0'
use_gpu: True
seed: 2023
state: INFO
reproducibility: True
data_path: 'dataset/'
checkpoint_dir: 'saved'
show_progress: False
save_dataset: False
field_separator: "\\t"
seq_separator: " "
USER_ID_FIELD: user_id
ITEM_ID_FIELD: item_id
RATING_FIELD: rating
TIME_FIELD: timestamp
LABEL_FIELD: label
threshold: {rating: 4}
load_col:
  inter: [user_id, item_id, rating, timestamp]
  user: [user_id, age, gender]
numerical_features: [age]
user_inter_num_interval: "[0,inf)"
epochs: 20
train_batch_size: 4096
learner: adam
learning_rate: 0.003
train_neg_sample_args: ~
eval_step: 1
stopping_step: 5
clip_grad_norm: {max_norm: 5, norm_type: 2}
weight_decay: 0.0
eval_args: {split: {RS: [8, 1, 1]}, order: TO, group_by: none, mode: labeled}
metrics: [AUC, LogLoss]
topk: [10]
valid_metric: AUC
eval_batch_size: 4096
metric_decimal_place: 6
"""
EVAL_ARGS = next(line for line in TYPICAL.splitlines() if line.startswith("eval_args"))


def test_a_typical_file_is_translated_whole() -> None:
    ours, faults = translate(yaml.safe_load(TYPICAL))
    assert faults == []
    assert ours == {
        "seed": 2023, "data_path": "dataset/", "output_dir": "saved", "progress": False, "user_field": "user_id",
        "time_field": "timestamp", "tasks": [{"name": "label", "label": "rating", "condition": "rating >= 4"}],
        "fields": [{"name": "user_id"}, {"name": "item_id"}, {"name": "age", "type": "float"}, {"name": "gender"}],
        "epochs": 20, "train_batch_size": 4096, "learner": "adam", "learning_rate": 0.003, "eval_step": 1,
        "stopping_step": 5, "gradient_clip": 5, "weight_decay": 0.0, "split": "time", "split_ratio": [8, 1, 1],
        "metrics": ["auc", "logloss"], "valid_metric": "AUC", "eval_batch_size": 4096,
    }  # fmt: skip


def test_recboles_own_files_name_what_has_no_counterpart() -> None:
    spec = find_spec("recbole")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "properties"
    named = {}
    for file in ("overall.yaml", "dataset/ml-100k.yaml", "quick_start_config/context-aware_ml-100k.yaml"):
        text = (folder / file).read_text(encoding="utf-8")
        named[file] = [key for key, _ in translate(yaml.safe_load(text))[1]]
    assert named == {
        "overall.yaml": ["train_neg_sample_args", "eval_args", "eval_args", "metrics", "valid_metric"],
        "dataset/ml-100k.yaml": ["normalize_all"],
        "quick_start_config/context-aware_ml-100k.yaml": [],
    }
    text = (folder / "quick_start_config" / "context-aware.yaml").read_text(encoding="utf-8")
    ours, faults = translate(yaml.safe_load(text))
    assert (ours["split"], ours["split_ratio"], faults) == ("random", [0.8, 0.1, 0.1], [])


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({"LABEL_FIELD": "click"}, {"tasks": [{"name": "click", "label": "click"}]}),
        ({"threshold": {"stars": 3.5}}, {"tasks": [{"name": "label", "label": "stars", "condition": "stars >= 3.5"}]}),
        (
            {"threshold": {"a b": 1}, "LABEL_FIELD": "y"},
            {"tasks": [{"name": "y", "label": "a b", "condition": "`a b` >= 1"}]},
        ),
        ({"threshold": None, "RATING_FIELD": "stars"}, {}),
        ({"eval_args": {"order": "TO"}}, {"split": "user_time", "split_ratio": [0.8, 0.1, 0.1]}),
        ({"eval_args": {"group_by": None, "mode": {"valid": "labeled"}, "split": {"RS": [7, 2, 1]}}},
         {"split": "random", "split_ratio": [7, 2, 1]}),
        ({"benchmark_filename": ["train", "valid", "test"], "eval_args": {"split": {"LS": "x"}}}, {"split": "given"}),
        ({"load_col": {"inter": ["user", "rating", "label"]}}, {"fields": [{"name": "user"}]}),
        ({"load_col": {"inter": ["user", "stars"]}, "RATING_FIELD": "stars"}, {"fields": [{"name": "user"}]}),
        ({"load_col": {"inter": ["u", "p"]}, "unused_col": {"inter": ["p"]}}, {"fields": [{"name": "u"}]}),
        ({"use_gpu": False}, {"accelerator": "cpu"}),
        ({"gpu_id": ""}, {"accelerator": "cpu"}),
        ({"gpu_id": 0, "use_gpu": True}, {}),
        ({"enable_amp": True, "enable_scaler": True}, {"precision": "16-mixed"}),
        ({"log_wandb": True}, {"loggers": ["csv", "wandb"]}),
        ({"state": "WARNING"}, {"quiet": True}),
        ({"dropout_prob": 0.2, "embedding_size": 8}, {"dropout": 0.2, "embedding_size": 8}),
        ({"metrics": "AUC"}, {"metrics": ["auc"]}),
        ({"numerical_features": [], "unload_col": None}, {}),
        ({"normalize_all": False, "val_interval": None, "preload_weight": {}}, {}),
    ],
)  # fmt: skip
def test_translated(given: dict[str, Any], ours: dict[str, Any]) -> None:
    assert translate(given) == (ours, [])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"threshold": {"a": 1, "b": 2}}, "write tasks: [{name: label, label: rating, condition: rating >= 4}]"),
        ({"threshold": {"a": "x"}}, "write tasks:"),
        ({"load_col": None}, "write fields: [{name: user_id}, ...]"),
        ({"numerical_features": ["age"]}, "write fields: [{name: age, type: float}, ...]"),
        ({"load_col": {"inter": ["u"]}, "numerical_features": ["age"]}, "load_col does not load 'age'"),
        (
            {"load_col": {"inter": ["p"]}, "numerical_features": ["p"],
             "discretization": {"p": {"method": "ED", "bucket": 3}}},
            "write {name: p, type: float, encoding: bins, bins: 3} in fields",
        ),
        ({"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO"}}, "write split: {RS: [0.8, 0.1, 0.1]} in it"),
        ({"eval_args": {"split": {"RS": [0.8, 0.2]}}}, "only three shares"),
        ({"eval_args": {"group_by": "user"}}, "write group_by: none in it, or split: user_time"),
        ({"eval_args": {"group_by": None, "mode": "uni100"}}, "write mode: labeled in it"),
        ({"eval_args": "RO_RS"}, "write split: random and split_ratio: [0.8, 0.1, 0.1]"),
        ({"benchmark_filename": ["a", "b", "c"]}, "and write split: given"),
        ({"metrics": ["Recall", "AUC"]}, "nothing is ranked (Recall): write metrics: [auc, logloss]"),
        ({"valid_metric": "MRR@10"}, "write valid_metric: AUC"),
        ({"clip_grad_norm": {"max_norm": 5, "norm_type": 1}}, "write gradient_clip: 5.0"),
        ({"gpu_id": "1,2"}, "set CUDA_VISIBLE_DEVICES=1,2 for the process, and write devices: 2"),
        ({"worker": 4}, "CPU threads are threads"),
        ({"user_inter_num_interval": "[5,inf)"}, "min_count"),
        ({"normalize_all": True}, "standardised or binned by encoding"),
        ({"shuffle": "no"}, "training rows are shuffled"),
    ],
)  # fmt: skip
def test_named_with_the_line_to_write(given: dict[str, Any], line: str) -> None:
    (fault,) = translate(given)[1]
    assert fault[0] in given
    assert line in fault[1]


def test_a_recbole_file_beside_a_shipped_data_set(tmp_path: Path) -> None:
    file = tmp_path / "user.yaml"
    file.write_text(TYPICAL.replace("numerical_features: [age]", "numerical_features: ~"))
    resolved = resolve(["--model=MMoE", "--dataset=ml-100k", f"--config_files={file}", "--epochs=3"])
    settings = resolved.settings
    assert [(task.name, task.condition) for task in settings.tasks] == [("label", "rating >= 4")]
    assert [field.name for field in settings.fields] == ["user_id", "item_id", "age", "gender"]
    assert (settings.split, settings.split_ratio, settings.time_field) == ("time", (8.0, 1.0, 1.0), "timestamp")
    assert (settings.epochs, settings.optimizer.lr, settings.gradient_clip) == (3, 0.003, 5.0)
    assert (settings.valid_metric, [metric.name for metric in settings.metrics or []]) == (
        "mean_auc",
        ["auc", "logloss"],
    )
    assert resolved.sources["split"] == f"{file}:{1 + TYPICAL.splitlines().index(EVAL_ARGS)}"
    assert resolved.sources["output_dir"] == f"{file}:8"


def test_what_a_file_cannot_say_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "user.yaml"
    file.write_text("epochs: 2\n\neval_args: {mode: full, group_by: none}\nworker: 4\nepoch: 3\n")
    with pytest.raises(UsageError) as error:
        resolve([f"--config_files={file}", "--gpu_id=0"])
    lines = str(error.value).splitlines()
    assert lines[0] == "4 settings are wrong:"
    for start, end in (
        ("  eval_args: is RecBole's setting; rows are labelled, nothing is ranked: write mode", f"({file}:3)"),
        ("  worker: is RecBole's setting;", f"({file}:4)"),
        ("  epoch: unknown setting; did you mean 'epochs'", f"({file}:5)"),
        ("  gpu_id: is RecBole's setting; choose the device", "(command line)"),
    ):
        assert next(line for line in lines if line.startswith(start)).endswith(end)


def test_our_keys_in_the_same_file_win() -> None:
    own = {
        "tasks": [{"name": "like", "label": "stars"}], "fields": [{"name": "u"}], "split": "given", "user_field": "u",
        "gradient_clip": 1.0, "accelerator": "gpu", "precision": "32", "loggers": ["csv"], "quiet": False,
    }  # fmt: skip
    theirs = {
        "LABEL_FIELD": "y", "threshold": {"rating": 4}, "load_col": None, "eval_args": {"split": {"LS": "x"}},
        "USER_ID_FIELD": "v", "clip_grad_norm": {"max_norm": 5}, "use_gpu": False, "enable_amp": True,
        "log_wandb": True, "state": "ERROR",
    }  # fmt: skip
    assert translate({**theirs, **own}) == (own, [])


def test_labels_of_our_tasks_are_no_inputs() -> None:
    tasks = [{"name": "like", "label": "stars"}]
    ours, faults = translate({"load_col": {"inter": ["u", "stars"]}, "tasks": tasks})
    assert (ours["fields"], faults) == ([{"name": "u"}], [])


def test_known_types_say_which_columns_are_inputs() -> None:
    types = {"u": "token", "tags": "token_seq", "price": "float", "age": "float", "v": "float_seq", "label": "float"}
    ours, faults = translate({"load_col": None, "numerical_features": ["age"], "unload_col": {"inter": ["u"]}}, types)
    assert faults == []
    assert ours["fields"] == [{"name": "tags", "type": "token_seq"}, {"name": "age", "type": "float"}]


def test_a_key_of_recbole_is_either_ours_or_known() -> None:
    """Every key of RecBole's YAML files is translated, named, or a setting of ours with the same name."""
    spec = find_spec("recbole")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "properties"
    for file in ("overall.yaml", "dataset/sample.yaml"):
        values = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
        ours, faults = translate(values)
        unknown = set(ours) - set(Settings.model_fields) - {"metrics", "learner", "learning_rate"}
        assert not unknown
        assert {key for key, _ in faults} <= set(values)
    assert all(line and not line.endswith(".") for line in REFUSED.values())


@pytest.mark.parametrize("least", [1234567, 0.123456789, 16777217, 4])
def test_a_threshold_keeps_every_digit(least: float) -> None:
    (task,) = translate({"LABEL_FIELD": "like", "threshold": {"rating": least}})[0]["tasks"]
    assert task["condition"] == f"rating >= {least}"


@pytest.mark.parametrize(
    "values",
    [
        {"metrics": 5}, {"numerical_features": 5}, {"load_col": {"inter": 5}}, {"benchmark_filename": 5},
        {"eval_args": {"mode": ["a"]}}, {"load_col": {"inter": ["u"]}, "discretization": 5},
        {"load_col": {"inter": ["u"]}, "LABEL_FIELD": ["a"]},
    ],
)  # fmt: skip
def test_a_value_of_another_form_is_named(values: dict[str, object]) -> None:
    _, faults = translate(values)
    assert faults
    assert all(key in values or key in ("tasks", "fields") for key, _ in faults)


def test_metrics_of_ours_pass_as_they_are(tmp_path: Path) -> None:
    for written, names in (("[{name: auc}]", ["auc"]), ("[auc, {name: gauc}]", ["auc", "gauc"]), ("null", None)):
        (tmp_path / "a.yaml").write_text(f"metrics: {written}\n")
        (tmp_path / "b.yaml").write_text("metrics: [auc]\nseed: 3\n")
        files = [tmp_path / "b.yaml", tmp_path / "a.yaml"]
        found = resolve(["--group_field=user_id"], config_files=files).settings.metrics
        assert (None if found is None else [choice.name for choice in found]) == names
