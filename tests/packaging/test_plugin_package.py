"""examples/plugin, installed beside our wheel: a method of each kind trains, and a changed package is told."""

from __future__ import annotations

import importlib.util
import inspect
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Shell = Callable[[list[object], Path], str]

TRAIN = """
import shutil
import sys
from pathlib import Path
from recbole_dtn.cli import main
from recbole_dtn.registry import REGISTRIES
import shop_methods

sys.stderr = sys.stdout
for words in {commands}:
    print("> train", main(words))
(dtn,) = Path("runs/shop_clicks/DTN").iterdir()
print("> test", main(["test", f"--run={{dtn}}"]))
file = Path(shop_methods.__path__[0]) / "interaction.py"
file.write_text(file.read_text() + "# changed")
print("> changed", main(["test", f"--run={{dtn}}"]))
print("> list", main(["list", "interactions", "--details"]))
print("> new", main(["new", "loss", "Mine"]))
for found in file.parents[1].glob("shop_methods-*"):  # what pip knows of the package
    shutil.rmtree(found)
for registry in REGISTRIES:  # as in a new process
    registry._entries, registry._scanned = {{}}, False
print("> gone", main(["test", f"--run={{dtn}}"]))
"""
RAW = "".join(f"u{i % 29},i{i % 17},{int(i % 29 < 15)},{int(i % 29 < 15 and i % 17 < 6)}\n" for i in range(1200))
SIZE = ["--dataset=shop_clicks", "--epochs=1", "--train_batch_size=64", "--embedding_size=4", "--output_dir=runs",
        "--accelerator=cpu", "--threads=1"]  # fmt: skip


def test_one_of_each_kind_from_an_installed_package(installed: Path, tmp_path: Path, shell: Shell) -> None:
    shutil.copytree(ROOT / "examples" / "plugin", tmp_path / "plugin")  # pip builds in place
    pip = [sys.executable, "-m", "pip", "--python", installed, "install", "-q", "--no-index", "--force-reinstall"]
    shell([*pip, "--no-deps", "--no-build-isolation", tmp_path / "plugin"], tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "clicks.csv").write_text(RAW)
    methods = ["--interactions=[gdcn, {name: shop_pairs, dropout: 0.1}]", "--balancer=shop_scales",
               "--tasks.click.loss=shop_hinge", "--metrics=auc,shop_brier"]  # fmt: skip
    commands = [
        ["preprocess", "shop_clicks", "--raw=raw"],
        ["--model=DTN", "--module_dim=8", *methods, *SIZE],
        ["--model=ShopGated", "--metrics=auc", *SIZE],
    ]
    out = shell([installed, "-c", TRAIN.format(commands=commands)], tmp_path)
    assert out.count("> train 0\n") == 3, out
    (dtn,) = tmp_path.glob("runs/shop_clicks/DTN/*")
    (gated,) = tmp_path.glob("runs/shop_clicks/ShopGated/*")
    record = json.loads((dtn / "record.json").read_text())
    assert 0 <= record["test"]["buy"]["shop_brier"] < 1
    assert "click/shop_pairs" in record["gate_weights"]["click"]
    used = {plugin["module"]: plugin for plugin in record["plugins"]}
    assert list(used) == [f"shop_methods.{kind}" for kind in ("balancer", "interaction", "loss", "metric")]
    assert {plugin["package"] for plugin in used.values()} == {"shop-methods 0.1"}
    assert json.loads((gated / "record.json").read_text())["test"]["click"]["auc"] > 0.6

    # An installed package is trusted: nothing has to be named.
    before, _, after = out.partition("> test 0\n")
    warning = "warning: the plug-in shop_methods.interaction of shop-methods 0.1 has changed since"
    assert warning not in before
    assert warning in after
    assert "> changed 0\n" in after
    # What the wheel ships beside its code: equations and sizes, and the files that `new` starts from.
    assert "74,048 parameters" in after
    assert "Products of all pairs of fields, summed (an example; package shop-methods)." in after
    assert (tmp_path / "test_mine.py").is_file()
    missing = "needs the module shop_methods.balancer of the installed package shop-methods 0.1, which is missing"
    assert f"{dtn.relative_to(tmp_path)} {missing}" in after
    assert "> gone 2\n" in after


def test_the_examples_own_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "plugin"))
    before = set(sys.modules)
    file = ROOT / "examples" / "plugin" / "tests" / "test_contract.py"
    spec = importlib.util.spec_from_file_location("example_plugin_tests", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 6
    for test in tests:
        test(**({"tmp_path": tmp_path} if inspect.signature(test).parameters else {}))
    for name in [name for name in sys.modules if name not in before and name.startswith("shop_methods")]:
        del sys.modules[name]
