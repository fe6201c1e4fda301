"""The examples of README.md and CONTRIBUTING.md run, and pass the checks that the text names."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recbole_dtn import testing

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n(# (check_\w+): (\w+)\n.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(match[1], match[2], match[3], id=match[3])
    for name in ("README.md", "CONTRIBUTING.md")
    for match in BLOCK.finditer((ROOT / name).read_text(encoding="utf-8"))
]


def load(source: str, name: str, folder: Path) -> ModuleType:
    """The example as a module of its own file, as ``--plugins`` loads it."""
    file = folder / f"{name}.py"
    file.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"example_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_kind_of_method_has_an_example() -> None:
    kinds = {"interaction", "model", "loss", "balancer", "metric", "preprocessor"}
    assert {each.values[1] for each in EXAMPLES} == {f"check_{kind}" for kind in kinds}


def test_an_interaction_takes_fewer_than_25_lines() -> None:
    (source,) = (match[1] for match in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")))
    assert "INTERACTIONS.register" in source
    assert source.count("\n") < 25


@pytest.mark.parametrize(("source", "check", "name"), EXAMPLES)
def test_an_example_passes_its_check(source: str, check: str, name: str, tmp_path: Path) -> None:
    made: Any = getattr(load(source, name, tmp_path), name)
    if check != "check_preprocessor":
        getattr(testing, check)(made)
        return
    (tmp_path / "clicks.csv").write_text("u1,shoe1,1\nu2,hat1,0\nu3,shoe2,0\n")
    testing.check_preprocessor(lambda data_path: made(tmp_path, data_path))
    testing.check_preprocessor(lambda data_path: made(tmp_path, data_path, name="shoes", items="shoe"))
    folder = made(tmp_path, tmp_path / "data", items="shoe").run()
    assert (folder / "clicks.inter").read_text().splitlines()[1:] == ["u1\tshoe1\t1", "u3\tshoe2\t0"]
