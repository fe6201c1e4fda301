"""Which state of the code made a run: a digest of the files that numbers come from."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

__all__ = ["code_digest"]

PARTS = (
    "balancer", "config", "data", "interaction", "kernels", "layers", "loss", "metric", "model", "optim", "preprocess",
    "training", "tuning",
)  # fmt: skip
"""The packages whose code changes what a run finds with the same settings and data."""


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits of the contents of all source files of :data:`PARTS`.

    >>> len(code_digest())
    12
    """
    root, found = Path(__file__).resolve().parents[1], hashlib.sha256()
    for file in sorted(path for part in PARTS for path in (root / part).rglob("*.py")):
        content = file.read_bytes()
        found.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()[:12]
