"""How well each field alone predicts each task: an input that does so almost perfectly may be an outcome."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.hashing import mix
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.store import Column
from recbole_dtn.inspect.info.report import SingleFieldAuc
from recbole_dtn.inspect.info.view import StoreView, ragged_of
from recbole_dtn.schema import FieldSpec

__all__ = ["SUSPICIOUS", "grouped_auc", "single_field_aucs"]

SUSPICIOUS = 0.95
# Rows and list values that are read, fewest rows of a class in a half, bins of a number, and values for its edges.
SAMPLED = 1_000_000
SAMPLED_VALUES = 4_000_000
FEWEST = 20
BINS = 256
EDGE_ROWS = 65_536
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def grouped_auc(scores: Floats, positives: Floats, negatives: Floats) -> float:
    """AUC over groups of rows that share a score, ties counted half.

    >>> grouped_auc(np.array([0.1, 0.5, 0.5]), np.array([0.0, 1.0, 1.0]), np.array([2.0, 0.0, 1.0]))
    0.8333333333333334
    """
    distinct, inverse = np.unique(scores, return_inverse=True)
    ones = np.bincount(inverse, positives, len(distinct))
    zeros = np.bincount(inverse, negatives, len(distinct))
    below = np.cumsum(zeros) - zeros
    return float((ones * (below + zeros / 2)).sum() / (ones.sum() * zeros.sum()))


def single_field_aucs(
    view: StoreView, meter: Meter = silent, rows: Ids | None = None
) -> tuple[tuple[SingleFieldAuc, ...], int]:
    """The AUC of every field for every binary task, on up to 1 M training rows evenly spaced.

    A value's score is its rate of positives on the other of two halves of the rows (one row of the overall rate is
    added, so that a value unseen there scores that rate); the two AUCs are averaged. Numbers are cut into 256 quantile
    bins, missing is a value of its own, a list scores the mean over its values. Pairs with fewer than 20 positives or
    negatives in a half are left out.

    Args:
        view: the data. meter: gets the progress. rows: other training rows to use, ascending.

    Returns:
        The AUCs, field by field, and the number of rows.
    """
    if rows is None:
        rows = view.sample("train", SAMPLED)
    # By a hash of the row: no pattern of the file decides the half.
    halves = (mix(rows.astype(np.uint64)) & np.uint64(1)).astype(np.int64)
    labels, observed = view.labels_of(rows)
    found = []
    fields = view.schema.fields
    for number, spec in enumerate(fields):
        column = view.store.columns[spec.name]
        scorer = _Lists(view, column, rows) if column.offsets is not None else _Values(view, spec, column, rows)
        for position, task in enumerate(view.schema.tasks):
            if task.kind != "binary":
                continue
            auc = scorer.auc(labels[:, position], observed[:, position], halves)
            if auc is not None:
                found.append(SingleFieldAuc(spec.name, task.name, auc))
        meter("each field alone", number + 1, len(fields))
    return tuple(found), len(rows)


def _rates(ids: Ids, halves: Ids, labels: Floats, size: int) -> tuple[Floats, Floats, Floats]:
    """Per half and id: rows, positives, and the id's score from the other half."""
    # counts[half, id], by one bincount over (id, half).
    places = ids * 2 + halves
    counts = np.bincount(places, minlength=2 * size).reshape(size, 2).T.astype(np.float64)
    ones = np.bincount(places, labels, 2 * size).reshape(size, 2).T.astype(np.float64)
    overall = ones.sum(1, keepdims=True) / np.maximum(counts.sum(1, keepdims=True), 1)
    # One row of the overall rate is added: rare values score near it, and a value unseen in a half scores it.
    scores: Floats = (ones + overall) / (counts + 1)
    # Each half is scored by the other, or a field of unique values would predict every label.
    return counts, ones, scores[::-1]


class _Values:
    """One value a row."""

    def __init__(self, view: StoreView, spec: FieldSpec, column: Column, rows: Ids) -> None:
        values = np.asarray(column.values[view.pointed(column.table, rows)])
        if spec.continuous:
            self.ids, self.size = _binned(values)
        else:
            self.ids, self.size = values.astype(np.int64), spec.size

    def auc(self, labels: npt.NDArray[np.float32], observed: npt.NDArray[np.bool_], halves: Ids) -> float | None:
        """Mean of the AUCs of the two halves, where both have enough rows of either class."""
        ids, truth = self.ids, labels.astype(np.float64)
        if not observed.all():
            ids, truth, halves = ids[observed], truth[observed], halves[observed]
        counts, ones, scores = _rates(ids, halves, truth, self.size)
        if min(ones.sum(1).min(), (counts - ones).sum(1).min()) < FEWEST:
            return None
        found = 0.0
        for half in (0, 1):
            used = counts[half] > 0
            found += grouped_auc(scores[half][used], ones[half][used], (counts - ones)[half][used]) / 2
        return found


def _binned(values: npt.NDArray[np.float32]) -> tuple[Ids, int]:
    present = values[~np.isnan(values)]
    # Some 100,000 values are enough for the edges of 256 bins.
    thin = present[:: max(1, len(present) // EDGE_ROWS)]
    edges = np.unique(np.quantile(thin, np.linspace(0, 1, BINS + 1)[1:-1])) if len(thin) else np.empty(0)
    # 0: missing; from 1 on the bins.
    ids = 1 + np.searchsorted(edges.astype(np.float32), values, side="right").astype(np.int64)
    ids[np.isnan(values)] = 0
    return ids, len(edges) + 2


class _Lists:
    """A list a row; so many rows that their values stay within 4 M."""

    def __init__(self, view: StoreView, column: Column, rows: Ids) -> None:
        assert column.offsets is not None
        pointed = view.pointed(column.table, rows)
        total = int((np.asarray(column.offsets[pointed + 1]).astype(np.int64) - column.offsets[pointed]).sum())
        # Every step-th row, so that lists of any length fit.
        self.step = max(1, -(-total // SAMPLED_VALUES))
        values, self.lengths = ragged_of(column, pointed[:: self.step])
        self.ids = values.astype(np.int64)
        self.size = int(self.ids.max()) + 1 if len(self.ids) else 1

    def auc(self, labels: npt.NDArray[np.float32], observed: npt.NDArray[np.bool_], halves: Ids) -> float | None:
        """Mean of the AUCs of the two halves, where both have enough rows of either class."""
        truth, seen, halves = labels[:: self.step].astype(np.float64), observed[:: self.step], halves[:: self.step]
        owner = np.repeat(np.arange(len(seen)), self.lengths)
        used = seen[owner]
        ids, owner = self.ids[used], owner[used]
        _, _, scores = _rates(ids, halves[owner], truth[owner], self.size)
        # Per row the sum of its values' scores from the other half.
        sums = np.bincount(owner, scores[halves[owner], ids], len(seen))
        filled = self.lengths > 0
        score = np.where(filled, sums / np.maximum(self.lengths, 1), -1.0)  # empty is a value of its own
        found = 0.0
        for half in (0, 1):
            rows = seen & (halves == half)
            # Each row is a group of its own: the score is a mean over its values.
            ones = truth[rows]
            if min(ones.sum(), (1 - ones).sum()) < FEWEST:
                return None
            chosen = self._with_empty(score, filled, truth, seen, halves, half)
            found += grouped_auc(chosen[rows], ones, 1 - ones) / 2
        return found

    @staticmethod
    def _with_empty(
        score: Floats, filled: npt.NDArray[np.bool_], truth: Floats, seen: npt.NDArray[np.bool_], halves: Ids, half: int
    ) -> Floats:
        """Scores with an empty list's rate taken from the other half."""
        other = seen & (halves != half)
        empty = truth[other & ~filled]
        overall = float(truth[other].mean())
        return np.where(filled, score, (empty.sum() + overall) / (len(empty) + 1))
