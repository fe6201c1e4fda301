"""Every reference test runs on both ways to compute: fused, and plain."""

from __future__ import annotations

import pytest

from recbole_dtn.kernels.choice import Fusible


@pytest.fixture(autouse=True, params=[True, False], ids=["fused", "plain"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules take the class attribute unless the setting ``fused`` says otherwise."""
    monkeypatch.setattr(Fusible, "fused", request.param)
