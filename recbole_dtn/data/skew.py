"""Numbers of which standardising leaves little: a few rows hold most of the variance, and all others nearly one value.

Measured on the numbers of eight data sets (docs/encodings.md): of a normal number, the 1 % of rows that are furthest
from the mean hold 8 % of the variance, of an exponential one 22 %, of a log-normal one (sigma 1) some 40 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.floats import in_units
from recbole_dtn.data.store import Split
from recbole_dtn.schema import FieldSpec

__all__ = ["skewed_numbers"]

FURTHEST = 0.01
HELD = 0.5
"""A number is skewed when the share ``FURTHEST`` of the rows holds more than this share of its variance, ..."""
FEW = 10
"""... and it has more than this many values: of a few, a standardised number tells each from the others."""
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
    specs = [spec for spec in store.schema.fields if spec.continuous and not spec.log1p]
    rows = train.start + _stretches(train.rows)
    rows_of = {"inter": rows, **{kind: pointer[rows] for kind, pointer in store.pointers.items()}}
    found = {}
    for spec in specs:
        column = store.columns[spec.name]
        found[spec.name] = _sentence(spec, column.values[rows_of[column.table]])
    return {name: sentence for name, sentence in found.items() if sentence is not None}


def _stretches(rows: int) -> npt.NDArray[np.int64]:
    starts = np.linspace(0, max(rows - ROWS, 0), STRETCHES).astype(np.int64)
    # Stretches of few rows overlap.
    taken = np.concatenate([np.arange(start, min(start + ROWS, rows)) for start in starts.tolist()])
    found: npt.NDArray[np.int64] = np.unique(taken)
    return found


def _sentence(spec: FieldSpec, column: npt.NDArray[np.float32]) -> str | None:
    values = column[~np.isnan(column)].astype(np.float64)
    if not len(values):
        return None
    squares = np.square(values - values.mean())
    furthest = max(1, int(FURTHEST * len(squares)))
    total = squares.sum()
    held = np.partition(squares, -furthest)[-furthest:].sum() / total if total > 0 else 0.0
    if held <= HELD:
        return None
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= FEW:
        return None
    share = counts.max() / len(values)
    most = ""
    if share > HELD:
        most = f"{share:.0%} of its training values are {in_units(float(distinct[counts.argmax()]), spec):g}, and "
    return (
        f"field {spec.name!r}: {most}{FURTHEST:.0%} of the rows hold {held:.0%} of the variance, so that standardising "
        "makes the other rows nearly equal: write encoding: log1p or encoding: bins for it in fields "
        "(docs/encodings.md)"
    )
