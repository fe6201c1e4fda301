"""Counts taken during encoding, as a cache entry stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_dtn.schema import DataSchema

__all__ = ["DataSummary", "FieldSummary", "field_summaries"]


@dataclass(frozen=True)
class FieldSummary:
    """One field. ``missing`` and ``coverage`` are shares per split.

    Attributes:
        kind: token, token_seq or float. table: ``inter``, ``user`` or ``item``, the table of its column.
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
    """Rows per split, fields, and per split and task ``(positives, observed)``.

    ``how`` says in words how the rows were split, where the settings alone do not.
    """

    rows: Mapping[str, int]
    fields: tuple[FieldSummary, ...]
    positives: Mapping[str, Mapping[str, tuple[int, int]]]
    how: str = ""


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
