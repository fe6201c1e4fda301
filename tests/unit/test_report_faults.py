"""Whose fault an unexpected error is."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.errors import nearest
from recbole_dtn.registry import load_plugins
from recbole_dtn.report import faults
from recbole_dtn.report.faults import describe_fault

PLUGIN = """\
from recbole_dtn.errors import nearest

def run(work):
    if work == "own":
        return 1 / 0
    if work == "calls":
        return nearest("x", 5)
    return None
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Any:
    (tmp_path / "mine.py").write_text(PLUGIN)
    before = set(sys.modules)
    (path,) = load_plugins([str(tmp_path / "mine.py")])
    (name,) = set(sys.modules) - before
    yield sys.modules[name], path
    del sys.modules[name]


@pytest.fixture(autouse=True)
def _no_other_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plug-ins that other tests have loaded."""
    for name in [name for name in sys.modules if name.startswith(faults.PLUGIN_MODULE)]:
        monkeypatch.delitem(sys.modules, name)


def told(call: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return describe_fault(caught.value)


def test_a_plugins_fault_names_its_file_and_line(plugin: Any) -> None:
    module, path = plugin
    assert told(lambda: module.run("own")) == f"plug-in {path}:5 raised ZeroDivisionError: division by zero"


def test_a_plugin_that_calls_us_wrongly_is_named_and_so_is_our_line(plugin: Any) -> None:
    module, path = plugin
    found = told(lambda: module.run("calls"))
    assert found.startswith(f"plug-in {path}:7 raised TypeError: 'int' object is not iterable (in errors.py:")
    assert found.endswith(", which it called)")


def test_what_a_plugin_returned_may_be_at_fault(plugin: Any) -> None:
    module, path = plugin
    found = told(lambda: nearest("x", module.run("returns")))
    assert "this is a bug" not in found
    assert f"either a bug, or what a plug-in ({path}) returned is not what is expected" in found


def test_without_a_plugin_it_is_a_bug() -> None:
    found = told(lambda: nearest("x", 5))  # type: ignore[arg-type]
    assert found.startswith("this is a bug: TypeError: 'int' object is not iterable (errors.py:")


def test_an_installed_package_is_a_plugin_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package/models.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("theirs", "their_package.models:Model", "recbole_dtn.models")
    monkeypatch.setattr(faults, "entry_points", lambda: importlib.metadata.EntryPoints([point]))
    faults._installed.cache_clear()
    import their_package.models  # type: ignore[import-not-found]

    assert told(lambda: their_package.models.run("own")).startswith(f"plug-in {tmp_path}/their_package/models.py:5 ")
    faults._installed.cache_clear()
