"""How long work in the data room tells how far it is; drawing a bar is the command line's matter."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Meter", "silent"]

Meter = Callable[[str, int, int], None]
"""``meter(stage, done, total)``: the stage in words, how much of it is done and how much there is (bytes or rows)."""


def silent(stage: str, done: int, total: int) -> None:
    """A meter that shows nothing."""
