"""What a row of a leaderboard costs: parameters, operations, time and memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recbole_dtn.leaderboard.statistics import BoardRow
from recbole_dtn.report.text import NONE, count, number

__all__ = ["COSTS", "Cost", "cost_cells", "costs_in"]

Value = float | int | None


@dataclass(frozen=True)
class Cost:
    """A column: its key in CSV files, its title, its value for a row, and which end is better (None: neither).

    ``own_table``: whether it is in the table of costs, and not in the first.
    """

    key: str
    title: str
    of: Callable[[BoardRow], Value]
    more: bool | None = False
    own_table: bool = True


def _parameters(part: str) -> Callable[[BoardRow], Value]:
    return lambda row: row.parameters.get(part)


def _speed(key: str) -> Callable[[BoardRow], Value]:
    return lambda row: row.speed.get(key)


def _median_epochs(row: BoardRow) -> Value:
    return statistics.median(row.epochs) if row.epochs else None


def _train_seconds(row: BoardRow) -> Value:
    """As measured, or of as many epochs at the rate of the serial pass."""
    if row.train_seconds is not None or row.train_rate is None or not row.epochs:
        return row.train_seconds
    return statistics.median(row.epochs) * row.train_rows / row.train_rate


COSTS = (
    Cost("parameters_embedding", "embedding", _parameters("embedding"), own_table=False),
    Cost("parameters_codebook", "codebook", _parameters("codebook"), own_table=False),
    Cost("parameters_dense", "dense", _parameters("dense"), own_table=False),
    Cost("parameters_total", "parameters", _parameters("total"), own_table=False),
    Cost("samples_per_second", "samples/s", lambda row: row.train_rate, more=True, own_table=False),
    Cost("flops", "FLOPs/row", _speed("flops")),
    Cost("latency_p50_ms", "p50 ms", _speed("latency_p50_ms")),
    Cost("latency_p99_ms", "p99 ms", _speed("latency_p99_ms")),
    Cost("throughput", "rows/s at 8,192", _speed("throughput"), more=True),
    Cost("peak_memory_mib", "peak MiB", _speed("peak_memory_mib")),
    Cost("epochs", "epochs", _median_epochs, more=None),
    Cost("train_seconds", "training s", _train_seconds),
    Cost("trials", "trials", lambda row: row.trials, more=None),
)
"""Those of the first table, then those of its own."""


def costs_in(rows: Sequence[BoardRow]) -> list[Cost]:
    """The columns of the table of costs that some row has."""
    return [cost for cost in COSTS if cost.own_table and any(cost.of(row) is not None for row in rows)]


def cost_cells(row: BoardRow, costs: Sequence[Cost]) -> list[str]:
    """A row's costs as text."""
    return [_text(cost.of(row)) for cost in costs]


def _text(value: Value) -> str:
    """A cost with three digits, and all digits of a whole number or of 1,000 and more.

    >>> _text(12), _text(0.123456), _text(12345.6), _text(1.9e7), _text(None)
    ('12', '0.123', '12,346', '19,000,000', '–')
    """
    if value is None:
        return NONE
    return count(round(value)) if isinstance(value, int) or value >= 1000 else number(value, 3)
