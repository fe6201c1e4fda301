"""Statistics of one field, in one pass over its column per split."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.floats import in_units, unlogged
from recbole_dtn.data.store import Column
from recbole_dtn.data.vocabulary import TokenVocabulary, Vocabulary
from recbole_dtn.inspect.info.report import FieldInfo, FieldSplit, Lengths, Numbers, Tokens
from recbole_dtn.inspect.info.view import StoreView, ragged
from recbole_dtn.schema import ABSENT, FIRST_TOKEN, UNKNOWN, FieldSpec

__all__ = ["QUANTILES", "SAMPLED", "field_info", "value_name"]

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
# Rows that quantiles are taken of, tokens that are listed, share of tokens in top_percent_share, ranks of a frequency
# curve.
SAMPLED = 1_000_000
TOP = 5
TOP_SHARE = 0.01
RANKS = 40
Counts = npt.NDArray[np.int64]
Value = TypeVar("Value")


def field_info(view: StoreView, spec: FieldSpec, vocabulary: Vocabulary) -> FieldInfo:
    """Everything about one field.

    Args:
        view: the data. spec: the field. vocabulary: what training taught about it.
    """
    column = view.store.columns[spec.name]
    splits: dict[str, FieldSplit] = {}
    numbers: dict[str, Numbers] = {}
    lengths: dict[str, Lengths] = {}
    tokens = None
    for split, rows in view.rows.items():
        if spec.continuous:
            splits[split], numbers[split] = _number_split(view, spec, column, split, rows)
            continue
        counts, histogram = _id_counts(view, column, split, spec.size)
        splits[split] = _id_split(counts, histogram, rows, binned=bool(spec.bins))
        if histogram is not None:
            lengths[split] = _lengths(histogram)
        if split == "train":
            tokens = _tokens(counts, spec, vocabulary)
    return FieldInfo(
        name=spec.name,
        kind=spec.kind,
        table=column.table,
        vocabulary=spec.size - FIRST_TOKEN,
        rare=vocabulary.rare if isinstance(vocabulary, TokenVocabulary) else 0,
        splits=splits,
        tokens=tokens,
        lengths=lengths or None,
        numbers=numbers or None,
    )


# ---- ids ----------------------------------------------------------------------------------------------------------


def _id_counts(view: StoreView, column: Column, split: str, size: int) -> tuple[Counts, Counts | None]:
    """How often each id occurs and, for lists, how many rows have each length."""
    counts = np.zeros(size, np.int64)
    histogram = None if column.offsets is None else np.zeros(1, np.int64)
    for start, stop, repeats in view.stretches(column, split):
        if histogram is None:
            values = np.asarray(column.values[start:stop])
        else:
            # A side table's row counts as often as it is pointed to, and so do the values of its list.
            values, lengths = ragged(column, start, stop)
            histogram = _added(histogram, _bincount(lengths, repeats, 0))
            repeats = None if repeats is None else np.repeat(repeats, lengths)
        if size > 4 * len(values):  # adding a long array of zeros for each block would cost more than sorting it
            found, inverse = np.unique(values, return_inverse=True)
            counts[found] += _bincount(inverse, repeats, len(found))
        else:
            counts += _bincount(values, repeats, size)
    return counts, histogram


def _bincount(values: npt.NDArray[np.int64], repeats: Counts | None, size: int) -> Counts:
    if repeats is None:
        return np.bincount(values, minlength=size)
    # bincount adds weights in float64: exact below 2^53.
    return np.bincount(values, repeats.astype(np.float64), size).astype(np.int64)


def _added(first: Counts, second: Counts) -> Counts:
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _id_split(counts: Counts, histogram: Counts | None, rows: int, *, binned: bool) -> FieldSplit:
    present = int(counts[UNKNOWN:].sum())
    unknown = int(counts[UNKNOWN]) / present if present and not binned else None
    if histogram is None:
        missing, constant = int(counts[ABSENT]), np.count_nonzero(counts) <= 1
    else:
        # A list is missing where it is empty.
        missing = int(histogram[0])
        constant = np.count_nonzero(histogram) <= 1 and np.count_nonzero(counts) <= 1
    return FieldSplit(
        missing=missing / rows if rows else 0.0,
        values=present,
        unknown=unknown,
        coverage=None if unknown is None else 1 - unknown,
        distinct=int(np.count_nonzero(counts[UNKNOWN:])),
        constant=bool(constant),
    )


def _lengths(histogram: Counts) -> Lengths:
    rows = int(histogram.sum())
    reached = np.cumsum(histogram)
    longest = int(np.flatnonzero(histogram)[-1]) if rows else 0
    return Lengths(
        mean=float((histogram * np.arange(len(histogram))).sum() / max(rows, 1)),
        # reached[n]: rows of length n at most.
        median=int(np.searchsorted(reached, rows * 0.5)),
        p95=int(np.searchsorted(reached, rows * 0.95 - 1e-9 * rows)),
        longest=longest,
    )


def _tokens(counts: Counts, spec: FieldSpec, vocabulary: Vocabulary) -> Tokens:
    present = int(counts[UNKNOWN:].sum())
    known = counts[FIRST_TOKEN:]
    # Stable: ties keep the order of the ids.
    best = np.argsort(-known, kind="stable")[:TOP] if len(known) else np.empty(0, np.int64)
    best = best[known[best] > 0]
    ordered = np.sort(known)[::-1]
    ordered = ordered[ordered > 0].astype(np.float64)
    entropy = None
    if len(ordered):
        shares = ordered / ordered.sum()
        entropy = max(0.0, float(-(shares * np.log(shares)).sum()))
    top = int(np.ceil(TOP_SHARE * len(known)))
    return Tokens(
        top=tuple((value_name(int(at), spec, vocabulary), int(known[at]) / present) for at in best),
        top_percent_share=float(ordered[:top].sum()) / present if present else None,
        entropy=entropy,
        effective=None if entropy is None else float(np.exp(entropy)),
        frequency=_frequency(ordered),
    )


def _frequency(ordered: npt.NDArray[np.float64]) -> tuple[tuple[int, int], ...]:
    if not len(ordered):
        return ()
    ranks = np.unique(np.round(np.geomspace(1, len(ordered), RANKS)).astype(int))
    return tuple((int(rank), int(ordered[rank - 1])) for rank in ranks)


def value_name(position: int, spec: FieldSpec, vocabulary: Vocabulary) -> str:
    """Token of an id (as the atomic files spell it), or the interval of a bin."""
    if isinstance(vocabulary, TokenVocabulary):
        return str(vocabulary.series[position])
    low = f"[{spec.bins[position - 1]:.5g}, " if position else "(-inf, "
    high = f"{spec.bins[position]:.5g})" if position < len(spec.bins) else "inf)"
    return low + high


# ---- numbers ------------------------------------------------------------------------------------------------------


def _number_split(
    view: StoreView, spec: FieldSpec, column: Column, split: str, rows: int
) -> tuple[FieldSplit, Numbers]:
    """Moments over all rows; they are added up in standardised units, where nothing cancels.

    Those of a logarithm are added up in the units of the file, as its mean would not be that of the numbers.
    """
    present, clipped, total, squares = 0, 0, 0.0, 0.0
    # As float32, in which the stored values were cut off.
    bound = np.inf if spec.clip is None else float(np.float32(spec.clip))
    smallest, largest = np.inf, -np.inf
    for start, stop, repeats in view.stretches(column, split):
        values = np.asarray(column.values[start:stop]).astype(np.float64)
        # A side table's row that no interaction of the split points to does not count, not even for the extremes.
        kept = ~np.isnan(values) if repeats is None else ~np.isnan(values) & (repeats > 0)
        values = values[kept]
        if not len(values):
            continue
        weights = np.ones(len(values)) if repeats is None else repeats[kept].astype(np.float64)
        present += int(weights.sum())
        clipped += int(weights[np.abs(values) >= bound].sum())
        smallest, largest = min(smallest, float(values.min())), max(largest, float(values.max()))
        if spec.log1p:
            values = unlogged(values * spec.std + spec.mean)
        total += float(weights @ values)
        squares += float(weights @ np.square(values))
    missing = (rows - present) / rows if rows else 0.0
    constant = present == 0 or (present == rows and smallest == largest)
    found = FieldSplit(missing, present, None, None, None, constant)
    if not present:
        return found, Numbers(None, None, None, None, (), 0)
    mean, scale, shift = total / present, *((1.0, 0.0) if spec.log1p else (spec.std, spec.mean))
    taken = view.sample(split, SAMPLED)
    values = np.asarray(column.values[view.pointed(column.table, taken)]).astype(np.float64)
    values = values[~np.isnan(values)]
    quantiles = np.quantile(values, QUANTILES) if len(values) else np.empty(0)
    return found, Numbers(
        mean=mean * scale + shift,
        # The difference may be just below 0 where all values are equal.
        std=float(np.sqrt(max(squares / present - mean**2, 0.0))) * scale,
        smallest=in_units(smallest, spec),
        largest=in_units(largest, spec),
        quantiles=tuple(in_units(float(value), spec) for value in quantiles),
        sampled=len(taken),
        clipped=clipped,
    )
