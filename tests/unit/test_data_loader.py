"""The order of batches: a function of (seed, epoch), every row once, ranks in step."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import BatchLoader


class Rows:
    """A split whose only column is the number of the row."""

    def __init__(self, rows):
        self.rows = rows

    def batch(self, indices):
        return Features(ids=torch.from_numpy(np.asarray(indices, np.int64)[:, None]))


def visited(loader):
    return [batch.ids[:, 0].tolist() for batch in loader]


def flat(batches):
    return [row for batch in batches for row in batch]


def test_unshuffled_batches_are_stretches():
    loader = BatchLoader(Rows(7), 3, shuffle=False, seed=0)
    assert visited(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(loader) == 3


def test_shuffled_order_depends_on_seed_and_epoch_alone():
    loader = BatchLoader(Rows(50), 8, shuffle=True, seed=5)
    first = visited(loader)
    assert visited(loader) == first
    assert sorted(flat(first)) == list(range(50))
    assert [len(batch) for batch in first] == [8] * 6 + [2]
    loader.set_epoch(1)
    second = visited(loader)
    assert second != first
    assert sorted(flat(second)) == list(range(50))
    other = BatchLoader(Rows(50), 16, shuffle=True, seed=5)
    assert flat(visited(other)) == flat(first)
    assert flat(visited(BatchLoader(Rows(50), 8, shuffle=True, seed=6))) != flat(first)


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 5))
def test_evaluation_sees_every_row_once_over_all_ranks(rows, batch_size, ranks):
    loaders = [
        BatchLoader(Rows(rows), batch_size, shuffle=False, seed=0, rank=rank, world_size=ranks) for rank in range(ranks)
    ]
    parts = [visited(loader) for loader in loaders]
    assert flat(flat(parts)) == list(range(rows))
    assert [len(part) for part in parts] == [len(loader) for loader in loaders]
    counts = [loader.rows for loader in loaders]
    assert max(counts) - min(counts) <= 1


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_training_ranks_are_in_step_and_share_no_row(rows, batch_size, ranks, shuffle, epoch):
    loaders = [
        BatchLoader(Rows(rows), batch_size, shuffle=shuffle, seed=1, rank=rank, world_size=ranks, drop_uneven=True)
        for rank in range(ranks)
    ]
    for loader in loaders:
        loader.set_epoch(epoch)
    parts = [visited(loader) for loader in loaders]
    assert len({tuple(len(batch) for batch in part) for part in parts}) == 1
    seen = flat(flat(parts))
    assert len(seen) == len(set(seen)) == rows - rows % ranks


def test_the_rows_left_out_differ_between_epochs():
    left = set()
    for epoch in range(20):
        loaders = [BatchLoader(Rows(11), 2, shuffle=True, seed=0, rank=rank, world_size=4) for rank in range(4)]
        for loader in loaders:
            loader.set_epoch(epoch)
        left |= set(range(11)) - set(flat(flat(visited(loader) for loader in loaders)))
    assert len(left) > 6


def test_prefetching_changes_nothing_and_leaves_no_thread():
    plain = visited(BatchLoader(Rows(50), 8, shuffle=True, seed=5))
    ahead = BatchLoader(Rows(50), 8, shuffle=True, seed=5, prefetch=2)
    assert visited(ahead) == plain
    before = threading.active_count()
    iterator = iter(ahead)
    assert next(iterator).ids[:, 0].tolist() == plain[0]
    iterator.close()
    assert threading.active_count() == before


def test_an_error_while_prefetching_is_raised_where_the_batch_is_asked_for():
    class Broken(Rows):
        def batch(self, indices):
            if 20 in indices:
                raise OSError("disk")
            return super().batch(indices)

    batches = iter(BatchLoader(Broken(50), 8, shuffle=False, seed=0, prefetch=1))
    assert [len(next(batches)), len(next(batches))] == [8, 8]
    with pytest.raises(OSError, match="disk"):
        next(batches)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        BatchLoader(Rows(5), 2, shuffle=False, seed=0, rank=2, world_size=2)
