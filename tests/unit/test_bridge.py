"""RecBole's Config without its side effects: each harmful habit of the stock class, shown to be absent in ours."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.model.context_aware_recommender.deepfm import DeepFM as StockDeepFM
from recbole.utils import InputType, ModelType, dataset_arguments

from recbole_dtn.bridge import SETTINGS_KEY, RecBoleConfig, recbole_config
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError

TASKS = [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy", "after": ["click"]}]
FIELDS = [{"name": "user"}, {"name": "price", "type": "float"}]


class Namesake(AbstractRecommender):  # type: ignore[misc]
    type = ModelType.CONTEXT
    input_type = InputType.POINTWISE


Namesake.__name__ = "DeepFM"


def config(tmp_path: Path, model: Any = Namesake, dataset: str = "toy", **values: Any) -> RecBoleConfig:
    return RecBoleConfig(model=model, dataset=dataset, config_dict={"data_path": str(tmp_path), **values})


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Atomic files of a set named toy."""
    folder = tmp_path / "toy"
    folder.mkdir()
    for part in ("train", "valid", "test"):
        lines = ["user:token\tprice:float\tclick:float\tbuy:float", "a\t1.5\t1\t0", "b\t2.5\t0\t0"]
        (folder / f"toy.{part}.inter").write_text("\n".join(lines) + "\n")
    return tmp_path


# ---- the class ------------------------------------------------------------------------------------------------------


def test_the_command_line_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prog", "--epochs=7", "--learning_rate=9", "junk"])
    found = config(tmp_path, epochs=3)
    assert (found["epochs"], found["learning_rate"]) == (3, 0.001)


def test_text_is_never_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVALUATED", raising=False)
    text = "__import__('os').environ.setdefault('EVALUATED', '1')"
    found = config(tmp_path, RATING_FIELD=text, TIME_FIELD="1+1")
    assert (found["RATING_FIELD"], found["TIME_FIELD"]) == (text, "1+1")
    assert "EVALUATED" not in os.environ


@pytest.mark.parametrize("value", [None, "3,4"])
def test_visible_devices_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    found = config(tmp_path, use_gpu=False)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == value
    assert (found["device"].type, found["single_spec"], found["local_rank"]) == ("cpu", True, 0)


def test_the_process_wide_yaml_loader_stays(tmp_path: Path) -> None:
    before = {key: list(value) for key, value in yaml.FullLoader.yaml_implicit_resolvers.items()}
    file = tmp_path / "own.yaml"
    file.write_text("learning_rate: 1e-3\nweight_decay: -2.5E+1\nRATING_FIELD: e-3\n")
    found = RecBoleConfig(
        model=Namesake, dataset="toy", config_file_list=[str(file)], config_dict={"data_path": str(tmp_path)}
    )
    assert (found["learning_rate"], found["weight_decay"], found["RATING_FIELD"]) == (0.001, -25.0, "e-3")
    assert {key: list(value) for key, value in yaml.FullLoader.yaml_implicit_resolvers.items()} == before


def test_a_namesake_does_not_inherit_the_stock_models_settings(tmp_path: Path) -> None:
    assert config(tmp_path, model=StockDeepFM)["mlp_hidden_size"] == [128, 128, 128]
    assert config(tmp_path)["mlp_hidden_size"] is None


def test_ml_100k_is_read_from_data_path_like_any_other(tmp_path: Path) -> None:
    found = config(tmp_path, dataset="ml-100k")
    assert found["data_path"] == str(tmp_path / "ml-100k")
    assert found["threshold"] is None


def test_recboles_list_of_keys_does_not_grow(tmp_path: Path) -> None:
    before = list(dataset_arguments)
    config(tmp_path, dataset="ml-100k")
    assert dataset_arguments == before


def test_numpy_names_that_recbole_uses_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without np.float_, as in numpy 2, where the stock class fails.
    for name in ("float", "float_", "int", "bool"):
        monkeypatch.setattr(np, name, None, raising=False)
        monkeypatch.delattr(np, name)
    config(tmp_path)
    assert vars(np)["float"] is vars(np)["float_"] is np.float64
    assert vars(np)["int"] is np.int_
    assert vars(np)["bool"] is np.bool_


@pytest.mark.parametrize("key", ["gpu_id", "nproc", "local_rank", "save_dataset", "save_dataloaders"])
def test_keys_that_do_harm_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match=f"RecBole's {key}=1 is refused"):
        config(tmp_path, **{key: 1})


# ---- from our settings ----------------------------------------------------------------------------------------------


def test_settings_travel_and_are_spelled_in_recboles_words(toy: Path) -> None:
    own = {"fields": FIELDS, "tasks": TASKS, "optimizer.lr": 0.02, "epochs": 4, "stopping_step": 4, "experts": 3}
    found = recbole_config("MMoE", "toy", toy, {**own, "valid_metric": "buy_logloss", "metric_decimal_place": 9})
    settings = found[SETTINGS_KEY]
    assert (settings.model, settings.dataset, settings.experts, settings.optimizer.lr) == ("MMoE", "toy", 3, 0.02)
    expected = {
        "model": "MMoE", "dataset": "toy", "data_path": str(toy / "toy"), "epochs": 4, "learner": "adam",
        "learning_rate": 0.02, "stopping_step": 4, "train_batch_size": settings.train_batch_size, "seed": settings.seed,
        "metrics": ["AUC", "LogLoss"], "valid_metric": "LogLoss", "valid_metric_bigger": False, "LABEL_FIELD": "buy",
        "load_col": None, "benchmark_filename": ["train", "valid", "test"], "numerical_features": ["price"],
        "USER_ID_FIELD": None, "ITEM_ID_FIELD": None, "gpu_id": "", "save_dataset": False, "metric_decimal_place": 9,
        "MODEL_TYPE": ModelType.CONTEXT, "MODEL_INPUT_TYPE": InputType.POINTWISE,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["eval_args"]["mode"] == {"valid": "labeled", "test": "labeled"}


def test_resolved_settings_are_taken_as_they_are(toy: Path) -> None:
    own = {"model": "MMoE", "dataset": "toy", "data_path": str(toy), "fields": FIELDS, "tasks": TASKS}
    settings = resolve(own).settings
    assert recbole_config(settings)[SETTINGS_KEY].dump() == settings.dump()
    with pytest.raises(
        UsageError, match="experts: set it in the Settings; only RecBole's keys can be given beside them"
    ):
        recbole_config(settings, overrides={"experts": 3})


def test_a_misspelt_key_is_an_error(toy: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown key 'expertz'.*did you mean 'experts'"):
        recbole_config("MMoE", "toy", toy, {"fields": FIELDS, "tasks": TASKS, "expertz": 3})


def test_missing_files_are_named(toy: Path) -> None:
    (toy / "toy" / "toy.valid.inter").unlink()
    with pytest.raises(UsageError, match=r"atomic files are missing: \S*toy\.valid\.inter;"):
        recbole_config("MMoE", "toy", toy, {"fields": FIELDS, "tasks": TASKS})


def test_a_label_that_only_a_condition_gives_is_missing(toy: Path) -> None:
    tasks = [{"name": "dear", "label": "price", "condition": "price > 2"}]
    fields = [{"name": "user"}]
    with pytest.raises(UsageError, match="task 'dear': RecBole's data has no label column; expected a :float column"):
        recbole_config("MMoE", "toy", toy, {"fields": fields, "tasks": tasks})


def test_a_condition_over_a_column_of_the_tasks_own_name_is_no_label_column(toy: Path) -> None:
    tasks = [{"name": "buy", "label": "buy", "condition": "buy == 1 and click == 1"}]
    with pytest.raises(UsageError, match=r"task 'buy': its condition .* reads a column of the task's own name"):
        recbole_config("MMoE", "toy", toy, {"fields": FIELDS, "tasks": tasks})


def test_without_an_item_file_a_token_field_stands_in_for_its_key_not_a_label(toy: Path) -> None:
    folder = toy / "toy"
    for part in ("train", "valid", "test"):
        lines = ["click:float\tbuy:float\tuser:token\tshop:token", "1\t0\ta\ts", "0\t0\tb\ts"]
        (folder / f"toy.{part}.inter").write_text("\n".join(lines) + "\n")
    (folder / "toy.user").write_text("user:token\tprice:float\na\t1\nb\t2\n")
    fields = [*FIELDS, {"name": "shop"}]
    found = recbole_config("MMoE", "toy", toy, {"fields": fields, "tasks": TASKS})
    assert (found["USER_ID_FIELD"], found["ITEM_ID_FIELD"]) == ("user", "shop")


def test_rows_without_a_key_are_a_warning_that_says_what_becomes_of_them(toy: Path) -> None:
    folder = toy / "toy"
    header = "click:float\tbuy:float\tuser:token\tshop:token"
    rows = [header, "1\t0\ta\ts", "0\t0\t\ts", "0\t0\tNA\ts", "1\t0\ta\t", "", "x"]
    for part in ("", ".train", ".valid", ".test"):
        (folder / f"toy{part}.inter").write_text("\n".join(rows) + "\n")
    fields = [*FIELDS, {"name": "shop"}]
    own: dict[str, Any] = {"fields": fields, "tasks": TASKS, "benchmark_filename": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recbole_config("MMoE", "toy", toy, own)  # no keys, nothing dropped
    (folder / "toy.user").write_text("user:token\tprice:float\na\t1\n\t2\n")
    with pytest.warns(UserWarning, match="empty ids") as caught:
        recbole_config("MMoE", "toy", toy, own)
    (text,) = [str(warning.message) for warning in caught]
    assert text == (
        "empty ids: toy.inter has 2 rows without 'user', toy.inter has 1 row without 'shop', toy.user has 1 row "
        "without 'user'; stock RecBole drops rows without a USER_ID_FIELD or ITEM_ID_FIELD, and where both occur it "
        "drops others in their place (docs/recbole.md)"
    )
    assert Path(caught[0].filename).name == Path(__file__).name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recbole_config("MMoE", "toy", toy, {"fields": fields, "tasks": TASKS})  # in parts nothing is dropped


def test_a_set_selected_on_its_test_rows_is_a_warning(toy: Path) -> None:
    own: dict[str, Any] = {"fields": FIELDS, "tasks": TASKS, "selected_on_test": True}
    with pytest.warns(UserWarning, match="^selected_on_test: the validation rows are, or contain, rows of"):
        recbole_config("MMoE", "toy", toy, own)


def test_one_warning_names_what_recboles_trainer_does_not_follow(toy: Path) -> None:
    own: dict[str, Any] = {"fields": FIELDS, "tasks": TASKS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recbole_config("MMoE", "toy", toy, own)
    with pytest.warns(UserWarning, match="does not follow these settings: weight_decay, scheduler$"):
        recbole_config("MMoE", "toy", toy, {**own, "weight_decay": 0.1, "scheduler.name": "cosine"})
