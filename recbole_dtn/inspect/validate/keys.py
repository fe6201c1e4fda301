"""Rows of an atomic file whose keys are empty, as stock RecBole reads them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from recbole_dtn.data.atomic import missing_mask, read_header
from recbole_dtn.inspect.validate.rows import rows_of

__all__ = ["empty_keys"]


def empty_keys(path: Path, keys: Collection[str]) -> dict[str, int]:
    """Rows without a key: an empty cell, or a word such as ``NA`` that stock RecBole reads as one.

    Args:
        path: of the file; unreadable rows are skipped. keys: columns; those missing in the file are skipped.

    Returns:
        The number of rows by column, of the columns that have any.

    Raises:
        DataError: for a header that cannot be read.
    """
    header = read_header(path)
    counts = {name: 0 for name in keys if name in header.names}
    if not counts:
        return {}
    for rows in rows_of(header, list(counts)):
        for name in counts:
            column = rows.frame[name]
            counts[name] += int((column.is_null() | missing_mask(column)).sum())
    return {name: count for name, count in counts.items() if count}
