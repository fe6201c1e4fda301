"""``new``: every kind is generated, imported, keeps its contract by its own generated test, and can be used."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_dtn.cli import main
from recbole_dtn.registry import REGISTRIES
from recbole_dtn.training.fit import Run

Fit = Callable[..., Run]
KINDS = [registry.kind for registry in REGISTRIES]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_method_passes_its_generated_test(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", kind, "MyName", "--output=made/mine.py"]) == 0
    told = capsys.readouterr().out
    assert "pytest made/test_mine.py" in told
    assert "--plugins=made/mine.py" in told
    assert "my_name" in told
    file = tmp_path / "made" / "test_mine.py"
    spec = importlib.util.spec_from_file_location(f"generated_{kind}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert f"check_{kind}(" in file.read_text()
    assert len(tests) >= (1 if kind == "preprocessor" else 2), "the contract, and values"
    for test in tests.values():
        test(**({"tmp_path": tmp_path} if inspect.signature(test).parameters else {}))
    (registry,) = (each for each in REGISTRIES if each.kind == kind)
    assert registry.entry("my_name").origin == str(tmp_path / "made" / "mine.py")
    assert registry.load("my_name").__name__ == "MyName"


def test_dtn_trains_with_one_of_each_kind(small_fit: Fit) -> None:
    kinds = ["interaction", "balancer", "loss", "metric"]
    for kind in kinds:
        assert main(["new", kind, f"Own{kind.title()}"]) == 0
    run = small_fit(
        "DTN",
        plugins=[f"own_{kind}.py" for kind in kinds],
        interactions=["gdcn", {"name": "own_interaction", "dropout": 0.1}],
        balancer={"name": "own_balancer", "level": 0.5},
        metrics=["auc", "own_metric"],
        tasks__love__loss="own_loss",
        epochs=1,
    )
    record = json.loads((run.folder / "record.json").read_text())
    assert 0 < record["test"]["like"]["own_metric"] < 1
    assert {"love/gdcn", "love/own_interaction"} <= record["gate_weights"]["love"].keys()
    assert len(record["plugins"]) == 4


def test_the_interaction_of_the_readme_trains_in_dtn(small_fit: Fit, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(text.partition("# check_interaction: Mine\n")[2].partition("```")[0])
    run = small_fit("DTN", plugins=["mine.py"], interactions=["gdcn", {"name": "mine", "hidden": 8}], epochs=1)
    assert "love/mine" in run.record.gate_weights["love"]


def test_a_generated_model_trains(small_fit: Fit) -> None:
    assert main(["new", "model", "own_model"]) == 0
    run = small_fit("own_model", plugins=["own_model.py"], bottom_hidden=[8], epochs=1)
    assert run.test is not None
    assert run.test["like"]["auc"] > 0.5


def test_a_generated_preprocessor_writes_a_data_set(tmp_path: Path) -> None:
    assert main(["new", "preprocessor", "OwnClicks"]) == 0
    (tmp_path / "clicks.csv").write_text("u1,i1,1\nu2,i2,0\n")
    assert main(["preprocess", "own_clicks", "--plugins=own_clicks.py", "--raw=."]) == 0
    assert (tmp_path / "dataset" / "own_clicks" / "own_clicks.inter").read_text().endswith("u1\ti1\t1\nu2\ti2\t0\n")


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("kept")
    assert main(["new", "loss", "Mine"]) == 2
    assert "new: mine.py exists; move it away, or choose another file: --output=FILE" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "kept"
    (tmp_path / "mine.py").rename(tmp_path / "test_other.py")
    assert main(["new", "loss", "Other"]) == 2
    assert "new: test_other.py exists" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["test_other.py"], "neither of the two was written"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["loss"], "new: expected a kind and a name, as in `new interaction MyName`; kinds: model, interaction, "),
        (["los", "Mine"], "new: unknown kind 'los'; did you mean 'loss'?"),
        (["loss", "Mine", "Other"], "new: unexpected word 'Other'"),
        (["loss", "2nd"], "new: expected the name of a class, such as MyName; found '2nd'"),
        (["loss", "None"], "new: expected the name of a class, such as MyName; found 'None'"),
        (["loss", "Tensor"], "new: the file would use the name 'Tensor' for something else"),
        (["interaction", "GDCN"], "new: interaction 'gdcn' exists (built-in); choose another name"),
        (["loss", "Random"], "new: random.py would hide the module 'random'; choose another file: --output=FILE"),
        (["loss", "Mine", "--output=mine.txt"], "--output: expected a Python file such as mine.py; found 'mine.txt'"),
        (["loss", "Mine", "--output=my-loss.py"], "--output: expected a Python file such as mine.py; found 'my-loss"),
        (["loss", "Mine", "--outptu=x.py"], "unknown option --outptu; did you mean '--output'?"),
    ],
)
def test_wrong_words(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
