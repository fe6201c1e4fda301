"""Settings: precedence, types, sources, RecBole's names, data sets and plug-ins."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from recbole_dtn.config.choice import choose
from recbole_dtn.config.digest import NOT_DIGESTED
from recbole_dtn.config.load import resolve, restore, settings_digest, settings_yaml
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import INTERACTIONS

OWN = """\
fields: [{name: user_id}, {name: price, type: float}]
tasks: [{name: click, label: click}, {name: buy, label: buy, after: [click]}]
epochs: 4
embedding_size: 8
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a working directory holds (``dataset/``, ``runs/``) is none of these tests' business."""
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """A data path with one prepared set, `mine`."""
    write(tmp_path / "data/mine/mine.yaml", OWN)
    write(tmp_path / "data/mine/mine.inter", "user_id:token\n")
    return tmp_path / "data"


def test_later_layers_win_and_each_value_knows_its_source(tmp_path: Path, data_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "epochs: 5\ndropout: 0.1\n\noptimizer: {lr: 0.5, eps: 1e-3}\n")
    second = write(tmp_path / "b.yaml", "dropout: 0.2\noptimizer:\n  lr: 0.25\n")
    words = ["--model=MMoE", "--dataset=mine", f"--data_path={data_path}", "--optimizer.lr", "0.125"]
    resolved = resolve([*words, f"--config_files={first} {second}", "--experts=7"])
    settings = resolved.settings
    assert settings.optimizer.model_dump() == {"name": "adam", "lr": 0.125, "betas": (0.9, 0.999), "eps": 1e-3}
    assert (settings.epochs, settings.dropout, settings.embedding_size) == (5, 0.2, 8)
    assert settings.dump()["experts"] == 7
    assert settings.dump()["tower_hidden"] == [64]
    expected = {
        "optimizer.lr": "command line",
        "optimizer.eps": f"{first}:4",
        "optimizer.name": "overall.yaml",
        "epochs": f"{first}:1",
        "dropout": f"{second}:1",
        "embedding_size": f"{data_path}/mine/mine.yaml:4",
        "tower_hidden": "model/MMoE.yaml",
        "experts": "command line",
        "seed": "overall.yaml",
    }
    assert {key: resolved.sources[key] for key in expected} == expected


def test_shipped_data_set_is_a_source_of_its_own() -> None:
    resolved = resolve([])
    assert resolved.sources["fields"] == "dataset/ml-100k.yaml"
    assert resolved.settings.folder == "ml-100k-mt"


@pytest.mark.parametrize("separator", [" ", ",", ", "])
def test_config_files_apart_by_spaces_or_commas_or_given_again(tmp_path: Path, separator: str) -> None:
    first, second = write(tmp_path / "a.yaml", "epochs: 5\nseed: 1"), write(tmp_path / "b.yaml", "epochs: 6")
    assert resolve([f"--config_files={first}{separator}{second}"]).settings.epochs == 6
    again = resolve([f"--config_files={second}", "--config_files", str(first)]).settings
    assert (again.epochs, again.seed) == (5, 1)


def test_a_config_file_with_a_space_in_its_name(tmp_path: Path) -> None:
    file = write(tmp_path / "my settings.yaml", "epochs: 3")
    assert resolve([f"--config_files={file}"]).settings.epochs == 3


def test_a_shipped_config_file_is_found_by_its_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = resolve(["--config_files=model/PLE.yaml", "--model=PLE"])
    assert resolved.sources["levels"] == "model/PLE.yaml:3"


def test_values_take_their_declared_type() -> None:
    words = "--seed=007 --optimizer.lr=1e-3 --group_field=007 --devices=2 --cache_dir=null --quiet --progress no"
    settings = resolve([*words.split(), "--tower_hidden=32,16", "--loggers=[csv, wandb]", "--model=PLE"]).settings
    assert (settings.seed, settings.optimizer.lr, settings.group_field) == (7, 0.001, "007")
    assert (settings.devices, settings.cache_dir, settings.quiet, settings.progress) == (2, None, True, False)
    assert settings.dump()["tower_hidden"] == [32, 16]
    assert settings.loggers == ["csv", "wandb"]


def test_text_in_yaml_is_never_retyped(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.yaml",
        "fields: [{name: 007}, {name: yes}, {name: 1e3}, {name: 2020-01-01}, {name: 'null'}]\n"
        "tasks: [{name: t, label: y, weight: 1e-3}]\noptimizer.lr: 1e-3\ngroup_field: 'null'\n",
    )
    settings = resolve(["--folder=null"], config_files=[file]).settings
    assert [field.name for field in settings.fields] == ["007", "yes", "1e3", "2020-01-01", "null"]
    assert (settings.tasks[0].weight, settings.optimizer.lr) == (0.001, 0.001)
    assert settings.group_field == "null"


def test_lists_replace_and_maps_merge(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "interactions: [gdcn]\ntask_chain: {love: [like]}\n")
    settings = resolve(["--interactions=[memonet]", "--task_chain.like=[]"], config_files=[file]).settings
    assert settings.dump()["interactions"] == [choose(INTERACTIONS, "memonet").dump()]
    assert settings.dump()["task_chain"] == {"love": ["like"], "like": []}


def test_python_values_are_taken_as_they_are() -> None:
    settings = resolve(
        {"model": "DTN", "optimizer": {"name": "sgd"}, "optimizer.lr": 1, "precision": 32, "interactions": ["gdcn"]}
    ).settings
    assert (settings.optimizer.name, settings.optimizer.lr, settings.precision) == ("sgd", 1.0, "32")
    assert resolve({"epochs": 3}).sources["epochs"] == "overrides"


def test_the_last_of_a_repeated_option_counts() -> None:
    assert resolve(["--epochs=1", "--epochs=2"]).settings.epochs == 2


def test_repeated_interactions_keep_their_own_options() -> None:
    written = "--interactions=[gdcn, {name: masknet, blocks: 3, reduction: 1}, gdcn]"
    gdcn, masknet = (choose(INTERACTIONS, name).dump() for name in ("gdcn", "masknet"))
    changed = {**masknet, "blocks": 3, "reduction": 1.0}
    assert changed != masknet
    assert resolve([written]).settings.dump()["interactions"] == [gdcn, changed, gdcn]
    assert resolve(["--interactions=gdcn,gdcn"]).settings.dump()["interactions"] == [gdcn] * 2


def test_recboles_learning_rate_and_learner_are_ours(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "learning_rate: 0.01\nlearner: sgd\n")
    resolved = resolve([], config_files=[file])
    assert (resolved.settings.optimizer.lr, resolved.settings.optimizer.name) == (0.01, "sgd")
    assert resolved.sources["optimizer.lr"] == f"{file}:1"
    assert resolve(["--learning_rate=0.02"], config_files=[file]).settings.optimizer.lr == 0.02
    assert resolve(["--optimizer.lr=0.02"], config_files=[file]).settings.optimizer.lr == 0.02, "later files win"
    assert resolve(["--learning_rate=0.1", "--optimizer.lr=1e-1"]).settings.optimizer.lr == 0.1, "both, and equal"


def test_both_names_in_one_file_nested_too(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "learner: sgd\noptimizer: {name: adagrad, lr: 0.1}\n")
    with pytest.raises(UsageError, match=r"learner: is given as 'sgd' and, as 'optimizer.name', as 'adagrad'"):
        resolve([], config_files=[file])


def test_a_file_of_resolved_settings_gives_them_again(tmp_path: Path, data_path: Path) -> None:
    words = [
        "--model=DTN",
        "--dataset=mine",
        f"--data_path={data_path}",
        "--interactions=[gdcn, {name: masknet, blocks: 3}]",
    ]
    resolved = resolve([*words, "--task_chain={buy: [click]}", "--precision=bf16-mixed", "--optimizer.eps=1e-9"])
    file = write(tmp_path / "settings.yaml", settings_yaml(resolved))
    again = resolve([], config_files=[file])
    assert again.settings == resolved.settings
    assert settings_digest(again.settings) == settings_digest(resolved.settings)
    assert restore(json.loads(json.dumps(resolved.settings.dump()))) == resolved.settings


def test_restore_needs_no_data_and_refuses_other_keys() -> None:
    values = {**resolve(["--model=PLE"]).settings.dump(), "dataset": "gone", "preprocessor": None, "init_from": "gone"}
    assert restore(values).dataset == "gone"
    with pytest.raises(UsageError, match="levls"):
        restore({**values, "levls": 2})


# ---- the digest -----------------------------------------------------------------------------------------------------


def digest(*words: str) -> str:
    return settings_digest(resolve(words).settings)


def test_folders_of_a_block_have_one_digest() -> None:
    def digest(*words: str) -> str:
        return settings_digest(resolve(["--model=SharedBottom", *words]).settings)

    assert digest("--folder=a") != digest("--folder=b")
    assert digest("--folder=a", "--block=x") == digest("--folder=b", "--block=x")
    assert digest("--folder=a", "--block=x") != digest("--folder=a", "--block=y")
    assert digest("--folder=a", "--block=x") != digest("--folder=a")


def test_digest_is_the_hash_of_what_it_says_it_covers() -> None:
    settings = resolve(["--model=SharedBottom"]).settings
    covered = {key: value for key, value in settings.dump().items() if key not in {*NOT_DIGESTED, "block"}}
    text = json.dumps(covered, sort_keys=True, ensure_ascii=False)
    assert settings_digest(settings) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert set(Settings.model_fields) >= NOT_DIGESTED


@pytest.mark.parametrize(
    "word",
    ["--seed=1", "--split_seed=1", "--output_dir=x", "--cache_dir=x", "--devices=2", "--accelerator=cpu",
     "--strategy=ddp", "--num_nodes=2", "--threads=1", "--loggers=[csv,wandb]", "--progress=false", "--quiet",
     "--plugins=[]"],
)  # fmt: skip
def test_digest_leaves_out_seed_split_places_machine_and_display(word: str) -> None:
    assert digest(word) == digest()


def test_the_folds_of_one_cut_share_a_digest_and_other_cuts_do_not() -> None:
    assert digest("--folds=5", "--fold=0") == digest("--folds=5", "--fold=4") == digest("--folds=5")
    assert digest("--folds=5", "--fold=0") != digest("--folds=4", "--fold=0")


@pytest.mark.parametrize(
    "word",
    ["--split_ratio=[6,2,2]", "--folds=5", "--stratify=rarest", "--selected_on_test=true", "--epochs=3",
     "--optimizer.lr=0.1", "--limit_rows=10",
     "--module_dim=8", "--precision=16-mixed", "--embedding_compression.method=hash",
     "--interactions=[gdcn]", "--interactions=[{name: gdcn, layers: 3}, masknet, memonet]"],
)  # fmt: skip
def test_digest_covers_what_changes_results(word: str) -> None:
    assert digest(word) != digest()


def test_digest_fills_the_options_of_interactions_in() -> None:
    default = "--interactions=[{name: gdcn, layers: 2}, masknet, {name: memonet, hashes: 2}]"
    assert digest(default) == digest("--interactions=[gdcn, masknet, memonet]")


# ---- data sets ------------------------------------------------------------------------------------------------------


def test_a_yaml_in_the_data_sets_folder_comes_before_the_shipped_one(tmp_path: Path) -> None:
    write(tmp_path / "ml-100k/ml-100k.yaml", OWN)
    resolved = resolve([f"--data_path={tmp_path}"])
    assert [field.name for field in resolved.settings.fields] == ["user_id", "price"]
    assert resolved.sources["tasks"] == f"{tmp_path}/ml-100k/ml-100k.yaml:2"


def test_atomic_files_without_a_yaml_need_fields_and_tasks_from_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "bare/bare.inter", "a:token\ty:float\n")
    words = ["--dataset=bare", f"--data_path={tmp_path}"]
    with pytest.raises(UsageError, match=r"bare has atomic files, but nothing says what they mean: write .*bare.yaml"):
        resolve(words)
    given = resolve([*words, "--fields=[{name: a}]", "--tasks=[{name: t, label: y}]"]).settings
    assert given.tasks[0].label == "y"


def test_an_unknown_data_set_names_the_nearest_and_how_to_make_one(tmp_path: Path) -> None:
    write(tmp_path / "ours-2024/ours-2024.inter", "a:token\n")
    with pytest.raises(UsageError) as error:
        resolve(["--dataset=ours-2023", f"--data_path={tmp_path}"])
    message = str(error.value)
    assert "unknown data set 'ours-2023'; did you mean 'ours-2024'?" in message
    assert "preprocess table --input=FILE --spec=SPEC --name=ours-2023" in message
    assert f"{tmp_path}/ours-2023/ours-2023.yaml" in message


@pytest.mark.parametrize("name", ["../mine", "/data/mine", "a b", ".hidden"])
def test_a_data_set_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="dataset: expected the name of a folder under data_path"):
        resolve([f"--dataset={name}"])


def test_a_data_sets_yaml_cannot_choose_what_was_read_before_it(tmp_path: Path) -> None:
    write(tmp_path / "mine/mine.yaml", OWN + "model: PLE\n")
    with pytest.raises(UsageError, match=rf"model: cannot be set in a data set's YAML.*{tmp_path}/mine/mine.yaml:5"):
        resolve(["--dataset=mine", f"--data_path={tmp_path}"])


# ---- plug-ins -------------------------------------------------------------------------------------------------------

PLUGIN = """
from typing import Annotated, Literal
from pydantic import Field
from recbole_dtn.config.settings import Settings
from recbole_dtn.registry import INTERACTIONS, MODELS

@INTERACTIONS.register("{name}")
class Halved:
    "W flat(e), halved."
    def __init__(self, shape, output_dim, *, factor: float = 0.5, mode: Literal["a", "b"] = "a",
                 count: Annotated[int, Field(ge=1)] = 2, needed: str):
        pass

class OwnSettings(Settings):
    rounds: int = 3
    dropout: float = 0.25

@MODELS.register("{name}Model")
class Own:
    "A model of one's own."
    settings_class = OwnSettings
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A plug-in file with a model and an interaction; both leave the registry afterwards."""
    return write(tmp_path / "plugin.py", PLUGIN.replace("{name}", "halved"))


def test_a_plugin_model_brings_its_settings_and_their_defaults(plugin: Path) -> None:
    resolved = resolve([f"--plugins={plugin}", "--model=halvedModel", "--rounds=5"])
    assert resolved.settings.dump()["rounds"] == 5
    assert (resolved.settings.dropout, resolved.sources["dropout"]) == (0.25, "defaults of OwnSettings")
    with pytest.raises(
        UsageError,
        match=r"rounds: expected an integer; found 'x'[^\n]*\n  round: unknown setting; did you mean 'rounds'",
    ):
        resolve([f"--plugins={plugin}", "--model=halvedModel", "--rounds=x", "--round=1"])


def test_a_plugin_interactions_options_are_its_keyword_arguments(plugin: Path) -> None:
    words = [f"--plugins={plugin}"]
    written = resolve([*words, "--interactions=[{name: halved, factor: 1, needed: 007}]"]).settings
    assert written.dump()["interactions"] == [
        {"name": "halved", "factor": 1.0, "mode": "a", "count": 2, "needed": "007"}
    ]
    with pytest.raises(UsageError) as error:
        resolve([*words, "--interactions=[{name: halved, factr: 1, mode: c, count: 0}]"])
    lines = str(error.value).splitlines()
    assert lines[0] == "4 settings are wrong:"
    assert lines[1].startswith("  interactions[0].factr: halved has no such option; did you mean 'factor'?")
    assert lines[2].startswith("  interactions[0].mode: expected one of a, b; found 'c'")
    assert lines[3].startswith("  interactions[0].count: expected an integer >= 1; found '0'")
    assert lines[4].startswith("  interactions[0].needed: halved needs this option; expected text")


def test_a_plugin_that_fails_to_import_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "broken.py", "import nothing_of_this_name\n")
    with pytest.raises(UsageError, match=r"plugins: .*broken.py, line 1, failed to import: ModuleNotFoundError"):
        resolve([f"--plugins={file}"])
    with pytest.raises(UsageError, match=r"plugins: there is no file 'gone.py'"):
        resolve(["--plugins=gone.py"])


def test_a_plugins_syntax_error_is_told_with_its_line_and_text(tmp_path: Path) -> None:
    file = write(tmp_path / "broken.py", "first = 1\n\n    second = 2\nthird = (\n")
    with pytest.raises(UsageError) as error:
        resolve([f"--plugins={file}"])
    assert str(error.value) == f"plugins: {file}, line 3, column 4: unexpected indent: second = 2 (command line)"


@pytest.mark.parametrize(("given", "ours"), [("AUC", "mean_auc"), ("LogLoss", "mean_logloss"), ("like_ne", "like_ne")])
def test_recbole_names_of_the_selecting_metric_mean_ours(given: str, ours: str) -> None:
    assert resolve([f"--valid_metric={given}"]).settings.valid_metric == ours


@pytest.mark.parametrize("word", ["--fusion=concat", "--gate_input=embedding", "--eval_batch_size=7", "--devices=2"])
def test_settings_that_say_the_same_have_one_digest(word: str) -> None:
    assert settings_digest(resolve([word]).settings) == settings_digest(resolve([]).settings)
    assert settings_digest(resolve(["--variant=released"]).settings) != settings_digest(resolve([]).settings)


def test_a_plugins_settings_do_not_change_the_kind_of_a_shared_one(tmp_path: Path) -> None:
    source = PLUGIN.replace("{name}", "halved").replace("    dropout: float = 0.25\n", "    {field}\n")
    for field, told in (
        ('pooling: Literal["max"] = "max"', "OwnSettings.pooling is another kind of value than the shared setting"),
        ("dump: int = 3", "OwnSettings.dump has a name that is reserved"),
    ):
        file = write(tmp_path / f"{field[:4]}.py", source.replace("{field}", field).replace("halved", field[:4]))
        with pytest.raises(UsageError, match=told):
            resolve([f"--plugins={file}", f"--model={field[:4]}Model"])


def test_a_plugin_that_was_repaired_is_loaded_again(tmp_path: Path) -> None:
    file = write(tmp_path / "again.py", PLUGIN.replace("{name}", "again") + "raise ValueError('early')\n")
    with pytest.raises(UsageError, match=r"again.py, line \d+, failed to import: ValueError: early"):
        resolve([f"--plugins={file}"])
    assert "again" not in INTERACTIONS.names()
    write(file, PLUGIN.replace("{name}", "again").replace("factor: float = 0.5", "factor: float = 0.75"))
    os.utime(file, ns=(1, 1))
    assert (
        resolve([f"--plugins={file}", "--interactions=[{name: again, needed: x}]"]).settings.dump()["interactions"][0][
            "factor"
        ]
        == 0.75
    )


@pytest.mark.parametrize("name", ["null", "a b", "../up", "", "3x"])
def test_a_method_has_a_plain_name(name: str) -> None:
    with pytest.raises(UsageError, match="expected a name of letters"):
        INTERACTIONS.register(name)
    with pytest.raises(UsageError, match=r"write @REGISTRY.register\(NAME\) above it"):
        INTERACTIONS.register(type)  # type: ignore[arg-type]


def test_a_model_has_defaults_of_nested_shared_settings() -> None:
    found = resolve(["--model=DTN", "--dataset=ml-100k"])
    assert (found.settings.optimizer.lr, found.sources["optimizer.lr"]) == (0.002, "model/DTN.yaml")
    assert found.settings.optimizer.betas == (0.9, 0.999)  # of all models
    assert resolve(["--model=MMoE", "--dataset=ml-100k"]).settings.optimizer.lr == 0.004
    given = resolve(["--model=DTN", "--dataset=ml-100k", "--learning_rate=0.1"])
    assert (given.settings.optimizer.lr, given.sources["optimizer.lr"]) == (0.1, "command line")


def test_a_key_of_very_many_parts_is_unknown():
    with pytest.raises(
        UsageError, match=r"optimizer\.zer\.zer.*\.\.\.: unknown key: expected at most 50 dots, found 600"
    ):
        resolve([f"--optimizer{'.zer' * 600}=1"])
