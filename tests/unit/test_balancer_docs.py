"""The example of docs/balancers.md runs, keeps the contract, and its parameter is trained."""

import re
from pathlib import Path
from typing import Any

from recbole_dtn.registry import BALANCERS

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_keeps_the_contract(monkeypatch: Any) -> None:
    monkeypatch.setattr(BALANCERS, "_entries", dict(BALANCERS._entries))
    text = (ROOT / "docs" / "balancers.md").read_text(encoding="utf-8")
    definition, check = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "weighted"}
    exec(compile(definition, "docs/balancers.md", "exec"), names)
    exec(compile(check, "docs/balancers.md", "exec"), names)
    assert "weighted" in BALANCERS.names()
    assert names["Weighted"]([]).lr == 0.01
