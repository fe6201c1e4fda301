"""A trial that has ended, and the best of several. Torch-free, and without Optuna: tables are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from recbole_dtn.config.strict import Strict

__all__ = ["Trial", "best_of", "best_so_far"]


class Trial(Strict):
    """A trial that has ended.

    Attributes:
        number: from 0, which is the defaults. state: ``pruned`` where it fell behind the median of those before it,
            ``failed`` where there is no value (``reason``); both count.
        value: of ``valid_metric`` at the best epoch. history: the same by epoch.
        params: values of the dimensions that were tuned. seconds: of training. run: name of the run's folder.
    """

    number: int
    state: Literal["complete", "pruned", "failed"]
    value: float | None = None
    params: dict[str, Any] = {}  # noqa: RUF012 (frozen)
    history: list[float | None] = []  # noqa: RUF012
    seconds: float | None = None
    run: str | None = None
    reason: str | None = None


def best_of(trials: Sequence[Trial], *, higher: bool) -> Trial | None:
    """The complete trial with the best value, the first of equal ones; None where none is complete.

    >>> found = [Trial(number=0, state="complete", value=0.7), Trial(number=1, state="pruned", value=0.8)]
    >>> best_of(found, higher=True).number
    0
    """
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return max(complete, key=lambda trial: ((trial.value or 0.0) * (1 if higher else -1), -trial.number), default=None)


def best_so_far(trials: Sequence[Trial], *, higher: bool) -> list[float | None]:
    """After each trial the best value of the complete ones so far."""
    found = (best_of(trials[: place + 1], higher=higher) for place in range(len(trials)))
    return [None if best is None else best.value for best in found]
