"""Every benchmark that needs no environment of a peer can be imported: a renamed part of the package is noticed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = ("fuxictr", "rechub", "deepctr", "peers")
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "benchmarks").rglob("*.py")
    if file.stem != "__init__" and (not file.stem.endswith(PEERS) or file.parent.name == "benchmarks")
)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_is_imported(name: str) -> None:
    assert importlib.import_module(name).__doc__
