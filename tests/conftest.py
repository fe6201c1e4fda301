"""Deterministic tests: one thread, fixed seeds."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real sample files kept beside the project; a test that needs them skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real sample files are not here ({SHARED})")
    return SHARED
