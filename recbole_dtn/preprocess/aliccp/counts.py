"""Occurrences of each id of a field, for the rule that rare ids become empty cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recbole_dtn.preprocess.aliccp.words import Flags, Ints, Words

__all__ = ["IdCounts"]

DENSE = 1 << 24
"""Ids below are counted in an array (Ali-CCP's end at about 10 M); pages that are never touched take no memory."""
MERGED_AT = 1 << 20


class IdCounts:
    """Counts of the ids of one field.

    >>> counts = IdCounts()
    >>> counts.add(np.array([7, 1 << 40, 7], np.uint64), np.array([1, 2, 3]))
    >>> counts.at_least(3)(np.array([7, 1 << 40, 8], np.uint64)).tolist()
    [True, False, False]
    """

    def __init__(self) -> None:
        self._dense = np.zeros(DENSE, np.int64)
        # Ids from DENSE on: sorted, with their counts; and those not yet merged into them.
        self._large: tuple[Words, Ints] = (np.empty(0, np.uint64), np.empty(0, np.int64))
        self._waiting: list[tuple[Words, Ints]] = []

    def add(self, ids: Words, weights: Ints) -> None:
        """Count ids, each as often as its weight says."""
        small = ids < DENSE
        if not small.all():
            self._waiting.append((ids[~small], weights[~small]))
            ids, weights = ids[small], weights[small]
            # Merged when they are more than the merged ones: a merge costs in proportion to what was added.
            if sum(len(some) for some, _ in self._waiting) > max(MERGED_AT, len(self._large[0])):
                self._merge()
        # add.at counts an id as often as it occurs; ``dense[ids] += weights`` would count it once.
        np.add.at(self._dense, ids.astype(np.int64), weights)

    def _merge(self) -> None:
        every = [self._large, *self._waiting]
        ids, places = np.unique(np.concatenate([some for some, _ in every]), return_inverse=True)
        counts = np.zeros(len(ids), np.int64)
        np.add.at(counts, places, np.concatenate([weights for _, weights in every]))
        self._large, self._waiting = (ids, counts), []

    def at_least(self, least: int) -> Callable[[Words], Flags]:
        """A function from ids to whether each was seen ``least`` times."""
        self._merge()
        large = self._large[0][self._large[1] >= least]

        def kept(ids: Words) -> Flags:
            # Larger ids read the last element here, and are answered below.
            found: Flags = self._dense[np.minimum(ids, DENSE - 1).astype(np.int64)] >= least
            beyond = ids >= DENSE
            if beyond.any():
                found[beyond] = np.isin(ids[beyond], large)
            return found

        return kept
