"""Deterministic tests: one thread, fixed seeds."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from recbole_dtn.registry import REGISTRIES
from recbole_dtn.report.faults import PLUGIN_MODULE

# No test asserts a time: on a busy machine an example may take long.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _cells_in_this_process() -> Iterator[None]:
    """With one worker, leaderboards run cells here, which takes no process that imports torch anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recbole_dtn.leaderboard.session.OWN_PROCESS", False)
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    """What a test registers, and the plug-in files that it loads, are gone after it."""
    before = []
    for registry in REGISTRIES:
        registry.names()  # reads the index, which is no part of what a test registers
        before.append((registry, dict(registry._entries)))
    modules = {name for name in sys.modules if name.startswith(PLUGIN_MODULE)}
    yield
    for registry, entries in before:
        registry._entries = entries
    for name in [name for name in sys.modules if name.startswith(PLUGIN_MODULE) and name not in modules]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real sample files kept beside the project; a test that needs them skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real sample files are not here ({SHARED})")
    return SHARED
