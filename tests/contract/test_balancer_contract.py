"""Every registered balancer keeps its contract."""

from typing import Any

import pytest

from recbole_dtn.registry import BALANCERS
from recbole_dtn.testing import check_balancer

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("gradnorm", {"initial": "log2", "alpha": 0.0}),
    ("mgda", {"normalize": "l2"}),
    ("mgda", {"normalize": "loss"}),
    ("mgda", {"normalize": "loss+"}),
    ("uncertainty", {"form": "half", "init": -0.5, "lr": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in BALANCERS.names()), *VARIANTS])
def test_a_registered_balancer(name: str, options: dict[str, Any]) -> None:
    check_balancer(name, **options)
