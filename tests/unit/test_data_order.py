"""Permutations of an epoch: all rows once, as evenly spread as numpy's, and without memory where there are many."""

import tracemalloc

import numpy as np
import pytest

from recbole_dtn.data import order as orders
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.data.order import BlockOrder, keyed_permutation, shuffled


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8, 9, 1_000, 1_023, 1_024, 1_025, 65_537, 150_001])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_row_once_whatever_the_number(rows, epoch):
    found = keyed_permutation(rows, 3, epoch)(np.arange(rows))
    assert np.array_equal(np.sort(found), np.arange(rows))


def test_a_stretch_is_what_the_whole_has_there():
    whole = keyed_permutation(200_003, 3, 1)(np.arange(200_003))
    assert np.array_equal(keyed_permutation(200_003, 3, 1)(np.arange(777, 5_000, 3)), whole[777:5_000:3])
    assert not np.array_equal(keyed_permutation(200_003, 3, 2)(np.arange(1_000)), whole[:1_000])
    assert not np.array_equal(keyed_permutation(200_003, 4, 1)(np.arange(1_000)), whole[:1_000])


def statistics(visited):
    """Correlations (in standard errors), displacement (1 when uniform) and chi-squared per degree of freedom."""
    rows = len(visited)
    places, root = np.arange(rows), np.sqrt(rows)
    found = [np.corrcoef(visited[:-lag], visited[lag:])[0, 1] * root for lag in (1, 2, 16, 4_096)]
    found.append(np.corrcoef(visited, places)[0, 1] * root)
    found.append((visited % 2 - 0.5).cumsum()[rows // 3] * 2 / np.sqrt(rows / 3))
    cells = np.bincount((visited * 32 // rows) * 32 + places * 32 // rows, minlength=1_024)
    chi = ((cells - rows / 1_024) ** 2 / (rows / 1_024)).sum() / 961
    return np.array(found), np.abs(visited - places).mean() * 3 / rows, chi


@pytest.mark.parametrize("seed", range(4))
def test_as_uniform_as_a_drawn_permutation(seed):
    rows = 120_011
    for visited in (
        keyed_permutation(rows, seed, 0)(np.arange(rows)),
        np.random.default_rng(seed).permutation(rows),
    ):
        correlations, displacement, chi = statistics(visited)
        assert np.abs(correlations).max() < 4
        assert displacement == pytest.approx(1, abs=0.01)
        assert chi == pytest.approx(1, abs=0.2)
    # What the checks are worth: a multiplication modulo the number of rows fails them.
    correlations, _, _ = statistics(np.arange(rows) * 7_919 % rows)
    assert np.abs(correlations).max() > 4


def test_small_data_keeps_numpys_order_and_large_data_needs_no_memory(monkeypatch):
    expected = np.arange(1_000, dtype=np.int32)
    np.random.default_rng([5, 2]).shuffle(expected)
    assert np.array_equal(shuffled(1_000, 5, 2)(np.arange(1_000)), expected)
    assert orders.DRAWN_ROWS == 2**22
    monkeypatch.setattr(orders, "DRAWN_ROWS", 999)
    assert np.array_equal(shuffled(1_000, 5, 2)(np.arange(1_000)), keyed_permutation(1_000, 5, 2)(np.arange(1_000)))


class Count:
    """A split of which only the number of rows counts."""

    def __init__(self, rows):
        self.rows = rows

    def pack(self, limit):
        """There is nothing to pack."""

    def batches(self, indices, size):
        return (indices[start : start + size] for start in range(0, len(indices), size))


def test_a_thousand_million_rows_begin_at_once():
    tracemalloc.start()
    batches = {}
    for rank in range(2):
        loader = BatchLoader(Count(10**9), 4_096, shuffle=True, seed=1, rank=rank, world_size=2)
        batches[rank] = next(iter(loader))
        assert len(loader) == 122_071
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert len(np.union1d(batches[0], batches[1])) == 2 * 4_096
    assert batches[0].max() < 10**9


def test_ranks_share_the_keyed_order(monkeypatch):
    monkeypatch.setattr(orders, "DRAWN_ROWS", 10)
    whole = keyed_permutation(1_003, 1, 0)(np.arange(1_003))
    for rank in range(4):
        loader = BatchLoader(Count(1_003), 64, shuffle=True, seed=1, rank=rank, world_size=4)
        assert np.array_equal(np.concatenate(list(loader)), whole[rank::4][:250])


@pytest.mark.parametrize(("rows", "held"), [(1_025, 1_024), (2_000, 1_024), (100_003, 1_024), (70_001, 1 << 16)])
def test_blocks_hold_every_row_once_and_a_stretch_is_what_the_whole_has_there(rows, held):
    places = np.arange(rows)
    whole = BlockOrder(rows, held, (3, 1))(places)
    assert np.array_equal(np.sort(whole), places)
    order = BlockOrder(rows, held, (3, 1))
    assert np.array_equal(np.concatenate([order(places[at : at + 777]) for at in range(0, rows, 777)]), whole)
    for other in ((3, 2), (4, 1)):
        assert not np.array_equal(BlockOrder(rows, held, other)(places), whole)


def test_blocks_read_few_stretches_at_a_time_and_mix_them():
    rows, held = 200_003, 1 << 15
    order = BlockOrder(rows, held, (0, 0))
    visited = order(np.arange(rows))
    # 3,125 blocks of 64 rows are 13 windows of 240 or 241 blocks; two blocks may be neighbours.
    assert (order.block, len(order.first_blocks), order.first_blocks[1]) == (64, 13, 240)
    window = visited[: 240 * 64]
    assert 200 < np.count_nonzero(np.diff(np.sort(window)) > 1) < 240
    # Within it rows are mixed: a batch of 1,024 has rows of nearly every block, about four of each.
    shares = np.bincount(np.searchsorted(np.sort(window), window[:1_024]) // 64, minlength=240)
    assert np.count_nonzero(shares) > 225
    assert shares.max() < 20
    # Over the epoch, neighbours in the files are no neighbours in the order, and places are uncorrelated.
    assert np.abs(np.diff(visited)).mean() * 3 / rows == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(visited, np.arange(rows))[0, 1]) < 0.1


def test_rows_are_read_ahead_before_they_are_visited_and_no_earlier_than_memory_allows():
    rows, held = 100_003, 1 << 13
    told = np.zeros(rows, bool)

    def will_need(start, stop):
        told[start:stop] = True

    order = BlockOrder(rows, held, (0, 0), will_need)
    for first in range(0, rows, 500):
        visited = order(np.arange(first, min(first + 500, rows)))
        assert told[visited].all()
        assert told.sum() <= first + 500 + held // 2 + 2 * order.block
    assert told.all()
