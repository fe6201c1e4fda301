"""Runs whose probabilities are worse than a constant one: they diverged, or overfit so far that they are of no use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_dtn.metric.ne import entropy
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import LOSSES

__all__ = ["Worse", "worse_than_constant"]

HINDSIGHT = 4.0
"""Log loss that the split's own share of positives has ahead of any other constant, in nats times rows: twice it is
chi-squared with one degree of freedom, and above 8 with a probability of .005."""
LOST = 5.0
"""Log loss, in nats, that no useful model has, whatever its probabilities were trained for: what happened had a
probability of e^-5 in the (geometric) mean."""


@dataclass(frozen=True)
class Worse:
    """A log loss above ``base``, that of the share of positives; ``split`` is ``validation`` or ``test``."""

    split: str
    task: str
    loss: float
    base: float


def worse_than_constant(record: RunRecord) -> Iterator[Worse]:
    """The log losses of a run that are above that of predicting the share of positives for every row.

    What chance explains is left out (``HINDSIGHT``). Where probabilities are not meant to be those of the data
    (``pos_weight``, sample weights without NE, some losses), a log loss counts from ``LOST`` on.
    """
    for split, values in (("validation", record.valid), ("test", record.test)):
        for task, found in (values or {}).items():
            loss, ones_and_rows = found.get("logloss"), _rows(record, split, task)
            base = _base_loss(record, task, found, ones_and_rows)
            if loss is None:
                continue
            if base is not None and loss > base + HINDSIGHT / max(ones_and_rows[1], 1):
                yield Worse(split, task, loss, base)
            elif base is None and loss > LOST:
                yield Worse(split, task, loss, LOST)


def _rows(record: RunRecord, split: str, task: str) -> tuple[int, int]:
    return record.positives.get("valid" if split == "validation" else split, {}).get(task, (0, 0))


def _base_loss(
    record: RunRecord, task: str, found: Mapping[str, float | None], ones_and_rows: tuple[int, int]
) -> float | None:
    """Log loss of the split's share of positives; None where a prediction is no probability of the data."""
    loss, ne = found.get("logloss"), found.get("ne")
    if loss is not None and ne:
        return loss / ne
    weighted = {spec["name"] for spec in record.settings.get("tasks", []) if not _calibrated(spec)}
    ones, rows = ones_and_rows
    # With sample weights the share of rows is not that which the loss is about.
    if task in weighted or record.settings.get("weight_field") is not None or not 0 < ones < rows:
        return None
    return entropy(ones / rows)


def _calibrated(task: Mapping[str, Any]) -> bool:
    """:func:`recbole_dtn.config.metrics.calibrated` of a task in a record, whose loss may be of an unknown plug-in."""
    name = (task.get("loss") or {}).get("name", "")
    by_loss = LOSSES.attributes(name).get("calibrated", True) if name in LOSSES.names() else True
    return task.get("pos_weight", 1.0) == 1.0 and bool(by_loss)
