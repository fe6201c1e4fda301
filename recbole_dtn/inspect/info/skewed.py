"""Warnings of standardised numbers that are too skewed for that (:mod:`recbole_dtn.data.skew`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.floats import in_units
from recbole_dtn.data.skew import FURTHEST, HELD, spread
from recbole_dtn.data.store import Split
from recbole_dtn.schema import FieldSpec

__all__ = ["skewed_numbers"]

STRETCHES, ROWS = 16, 8192
"""Rows that are looked at, in stretches: a row of every page would read whole files."""


def skewed_numbers(train: Split) -> dict[str, str]:
    """The standardised numbers that are too skewed for that.

    Args:
        train: the training rows; at most some 130,000 of them are looked at.

    Returns:
        By field a sentence that says what was seen and what to write instead.
    """
    store = train.store
    rows = train.start + _stretches(train.rows)
    rows_of = {"inter": rows, **{kind: pointer[rows] for kind, pointer in store.pointers.items()}}
    found = {}
    for spec in store.schema.fields:
        if spec.continuous and not spec.log1p:
            column = store.columns[spec.name]
            values = column.values[rows_of[column.table]]
            values = values[~np.isnan(values)]
            seen = spread([(values, None)])
            if seen.skewed:
                found[spec.name] = _sentence(spec, values, seen.held)
    return found


def _stretches(rows: int) -> npt.NDArray[np.int64]:
    starts = np.linspace(0, max(rows - ROWS, 0), STRETCHES).astype(np.int64)
    # Stretches of few rows overlap.
    taken = np.concatenate([np.arange(start, min(start + ROWS, rows)) for start in starts.tolist()])
    found: npt.NDArray[np.int64] = np.unique(taken)
    return found


def _sentence(spec: FieldSpec, values: npt.NDArray[np.float32], held: float) -> str:
    distinct, counts = np.unique(values, return_counts=True)
    share = counts.max() / len(values)
    most = ""
    if share > HELD:
        most = f"{share:.0%} of its training values are {in_units(float(distinct[counts.argmax()]), spec):g}, and "
    return (
        f"field {spec.name!r}: {most}{FURTHEST:.0%} of the rows hold {held:.0%} of the variance, so that "
        "standardising makes the other rows nearly equal: write encoding: bins, bins: 20 for it in fields "
        "(docs/encodings.md)"
    )
