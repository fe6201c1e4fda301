"""Every shipped YAML loads, validates, and documents the keys that the typed settings have."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from recbole_dtn.config.options import options_class

from recbole_dtn.config.datasets import dataset_values
from recbole_dtn.config.layers import builtin_models
from recbole_dtn.config.load import interaction_options, resolve, settings_class
from recbole_dtn.config.properties import key_help, properties_folder, read_yaml, shipped, shipped_names
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import INTERACTIONS, MODELS

FILES = sorted(properties_folder().rglob("*.yaml"))
MODEL_FILES = shipped_names("model")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a working directory holds (``dataset/``, ``runs/``) is none of these tests' business."""
    monkeypatch.chdir(tmp_path)


def dotted(model: type[BaseModel]) -> set[str]:
    """Keys of a settings class, a nested class by its parts."""
    keys = set()
    for name, info in model.model_fields.items():
        inner = getattr(info.annotation, "model_fields", None)
        keys |= {f"{name}.{part}" for part in inner} if inner else {name}
    return keys


def test_the_folder_is_the_repositorys_and_ships_every_kind() -> None:
    assert (properties_folder() / "overall.yaml").is_file()
    assert {"DTN", "MMoE", "PLE", "SharedBottom", "SingleTask"} <= set(MODEL_FILES)
    assert "ml-100k" in shipped_names("dataset")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(properties_folder())))
def test_it_is_yaml_without_a_key_given_twice(file: Path) -> None:
    assert read_yaml(file)


def test_overall_has_the_shared_keys_in_their_order_and_no_other() -> None:
    assert list(read_yaml(properties_folder() / "overall.yaml")) == list(Settings.model_fields)
    assert {key.key for key in key_help(properties_folder() / "overall.yaml")} == dotted(Settings)


@pytest.mark.parametrize("name", sorted(builtin_models()))
def test_a_models_yaml_has_the_models_own_keys(name: str) -> None:
    file = shipped("model", name)
    assert file is not None
    keys, shared = set(read_yaml(file)), set(Settings.model_fields)
    assert keys - shared == set(settings_class(name).model_fields) - shared
    assert keys & shared <= {"dropout", "embedding_l2"}, "only what tuning gave the model a value of its own for"


@pytest.mark.parametrize("name", INTERACTIONS.names())
def test_an_interactions_yaml_has_its_options(name: str) -> None:
    file = shipped("interaction", name)
    assert file is not None
    assert list(read_yaml(file)) == list(options_class(name).model_fields)
    assert interaction_options(name, {}) == read_yaml(file)


@pytest.mark.parametrize(
    "file",
    [
        properties_folder() / "overall.yaml",
        *(properties_folder() / "model" / f"{name}.yaml" for name in builtin_models()),
        *(properties_folder() / "interaction" / f"{name}.yaml" for name in INTERACTIONS.names()),
    ],
    ids=lambda file: file.stem,
)
def test_every_key_has_a_comment(file: Path) -> None:
    assert [key.key for key in key_help(file) if len(key.comment) < 4] == []


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_resolves_by_its_defaults(name: str) -> None:
    assert resolve([f"--model={name}"]).settings.model == name


@pytest.mark.parametrize("name", [name for name in MODEL_FILES if name not in builtin_models()])
def test_a_variant_of_a_model_is_a_config_file(name: str) -> None:
    resolved = resolve([f"--model={name.partition('-')[0]}", f"--config_files=model/{name}.yaml"])
    for key in read_yaml(properties_folder() / "model" / f"{name}.yaml"):
        assert resolved.sources.get(key, f"model/{name}.yaml").startswith(f"model/{name}.yaml")


@pytest.mark.parametrize("name", shipped_names("dataset"))
def test_a_data_set_has_fields_and_tasks(name: str) -> None:
    settings = resolve([f"--dataset={name}"]).settings
    assert settings.fields
    assert settings.tasks


def test_only_mtreclibs_protocol_is_selected_on_the_test_set() -> None:
    flagged = {name for name in shipped_names("dataset") if dataset_values(name, None).get("selected_on_test")}
    assert flagged == {name for name in shipped_names("dataset") if "mtreclib" in name}
    assert len(flagged) == 5


def test_a_section_and_a_default_of_the_help() -> None:
    keys = {key.key: key for key in key_help(properties_folder() / "overall.yaml")}
    assert (keys["optimizer.lr"].section, keys["optimizer.lr"].default) == ("training", "0.004")
    assert keys["epochs"].comment == "most epochs"
    assert keys["precision"].default == '"32"'


def test_read_yaml_gives_plain_values_and_names_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1e-3\nb: 007\nc: [1, -2.5, true, no, ~]\nd: {e: '1'}\nbase: &x {f: 1}\ng: {<<: *x, h: 2}\n")
    expected = {"a": 0.001, "b": "007", "c": [1, -2.5, True, "no", None], "d": {"e": "1"}, "base": {"f": 1}}
    assert read_yaml(file) == {**expected, "g": {"f": 1, "h": 2}}
    with pytest.raises(UsageError, match=r"gone.yaml: no such file"):
        read_yaml(tmp_path / "gone.yaml")


def test_a_shipped_file_is_never_outside_its_folder() -> None:
    assert shipped("dataset", "../overall") is None
    assert shipped("dataset", "no-such-set") is None
