"""Every registered balancer keeps its contract."""

from typing import Any

import pytest

from recbole_dtn.registry import BALANCERS
from recbole_dtn.testing import check_balancer

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("db_mtl", {"beta": 0.5, "decay": 0.5}),
    ("fairgrad", {"alpha": 0.5}),
    ("gradnorm", {"initial": "log2", "alpha": 0.0}),
    ("imtl", {"form": "g"}),
    ("imtl", {"form": "l"}),
    ("mgda", {"normalize": "l2"}),
    ("mgda", {"normalize": "loss"}),
    ("mgda", {"normalize": "loss+"}),
    ("nash_mtl", {"specific": "weighted", "max_norm": None}),
    ("uncertainty", {"form": "half", "init": -0.5, "lr": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in BALANCERS.names()), *VARIANTS])
def test_a_registered_balancer(name: str, options: dict[str, Any]) -> None:
    check_balancer(name, **options)
