"""What an encoded data set holds, as plain values; the command line prints them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recbole_dtn.schema import DataSchema

if TYPE_CHECKING:
    from recbole_dtn.data.datamodule import PreparedData

__all__ = ["DataInfo", "DataSummary", "FieldSummary", "TaskSummary", "summarise"]


@dataclass(frozen=True)
class FieldSummary:
    """One field. ``missing`` and ``coverage`` are shares per split.

    Attributes:
        kind: token, token_seq or float. table: ``inter``, ``user`` or ``item``, where its column lies.
        vocabulary: tokens (or bins) with an id of their own; 0 for a continuous number.
        missing: rows without a value. coverage: among rows with one, those whose token training has shown often
            enough; None where that has no meaning (numbers, multi-valued fields), or no row has a value.
    """

    name: str
    kind: str
    table: str
    vocabulary: int
    missing: Mapping[str, float]
    coverage: Mapping[str, float | None]


@dataclass(frozen=True)
class DataSummary:
    """Rows per split, fields, and per split and task ``(positives, observed)``."""

    rows: Mapping[str, int]
    fields: tuple[FieldSummary, ...]
    positives: Mapping[str, Mapping[str, tuple[int, int]]]


@dataclass(frozen=True)
class TaskSummary:
    """One task in one split; ``rate`` is the share of positives among the observed rows, None where there are none."""

    task: str
    split: str
    positives: int
    observed: int
    rate: float | None


@dataclass(frozen=True)
class DataInfo:
    """Everything ``data info`` prints."""

    folder: str
    fingerprint: str
    cached: bool
    rows: Mapping[str, int]
    fields: tuple[FieldSummary, ...]
    tasks: tuple[TaskSummary, ...]


def field_summaries(
    schema: DataSchema, rows: Mapping[str, int], tables: Mapping[str, str], counts: Mapping[str, Mapping[str, Any]]
) -> tuple[FieldSummary, ...]:
    """From the counts that encoding took."""
    found = []
    for spec in schema.fields:
        missing, unknown = counts[spec.name]["missing"], counts[spec.name].get("unknown")
        coverage: dict[str, float | None] = {}
        for split, total in rows.items():
            present = total - missing[split]
            coverage[split] = None if unknown is None or not present else 1 - unknown[split] / present
        shares = {split: missing[split] / total for split, total in rows.items()}
        found.append(FieldSummary(spec.name, spec.kind, tables[spec.name], spec.size - 2, shares, coverage))
    return tuple(found)


def summarise(prepared: PreparedData) -> DataInfo:
    """The tables of ``data info``."""
    tasks = [
        TaskSummary(name, split, positives, observed, positives / observed if observed else None)
        for name in prepared.schema.task_names
        for split, counts in prepared.summary.positives.items()
        for positives, observed in [counts[name]]
    ]
    return DataInfo(
        folder=str(prepared.folder),
        fingerprint=prepared.fingerprint,
        cached=prepared.cached,
        rows=prepared.summary.rows,
        fields=prepared.summary.fields,
        tasks=tuple(tasks),
    )
