"""The order of batches: a function of (seed, epoch), every row once, ranks in step."""

import mmap
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dtn.data import loader as loaders
from recbole_dtn.data import store as stores
from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import BatchLoader, machine_memory, rows_in_memory
from recbole_dtn.data.mapped import load_array
from recbole_dtn.data.store import PACKED_BYTES, Column, Split, Store, will_need
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec


class Rows:
    """A split whose only column is the number of the row."""

    def __init__(self, rows):
        self.rows = rows
        self.told = []

    def batches(self, indices, size):
        for start in range(0, len(indices), size):
            yield self.batch(indices[start : start + size])

    def batch(self, indices):
        return Features(ids=torch.from_numpy(np.asarray(indices, np.int64)[:, None]))

    def will_need(self, start, stop):
        self.told.append((start, stop))

    def pack(self, limit):
        """There is nothing to pack."""


def visited(loader):
    return [batch.ids[:, 0].tolist() for batch in loader]


def flat(batches):
    return [row for batch in batches for row in batch]


def test_unshuffled_batches_are_stretches():
    loader = BatchLoader(Rows(7), 3, shuffle=False, seed=0)
    assert visited(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(loader) == 3


@pytest.mark.parametrize(
    ("rows", "ranks", "least", "sizes"),
    [
        (9, 1, 2, [4, 4]),
        (10, 1, 2, [4, 4, 2]),
        (11, 1, 4, [4, 4]),
        (8, 1, 4, [4, 4]),
        (9, 1, 1, [4, 4, 1]),
        (19, 2, 2, [4, 4]),
        (1, 1, 2, []),
    ],
)
def test_the_last_batch_of_too_few_rows_is_left_out(rows, ranks, least, sizes):
    for rank in range(ranks):
        loader = BatchLoader(Rows(rows), 4, shuffle=True, seed=0, rank=rank, world_size=ranks, least=least)
        assert [len(batch) for batch in visited(loader)] == sizes
        assert (loader.rows, len(loader)) == (sum(sizes), len(sizes))
    # Evaluation sees every row.
    assert flat(visited(BatchLoader(Rows(rows), 4, shuffle=False, seed=0, least=least))) == list(range(rows))


def test_other_rows_are_left_out_in_every_epoch():
    loader = BatchLoader(Rows(9), 4, shuffle=True, seed=0, least=2)
    left = set()
    for epoch in range(20):
        loader.set_epoch(epoch)
        left |= set(range(9)) - set(flat(visited(loader)))
    assert len(left) > 4


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


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("shuffle_rows", [None, 1_024])
@pytest.mark.parametrize(("rank", "ranks"), [(0, 1), (1, 3)])
def test_an_epoch_begins_at_any_of_its_batches(prefetch, shuffle_rows, rank, ranks):
    split = Rows(5_000)
    loader = BatchLoader(
        split, 64, shuffle=True, seed=3, rank=rank, world_size=ranks, prefetch=prefetch, shuffle_rows=shuffle_rows
    )
    loader.set_epoch(2)
    whole = visited(loader)
    for skipped in (1, 7, len(whole) - 1, len(whole)):
        split.told.clear()
        loader.set_epoch(2, skipped)
        assert visited(loader) == whole[skipped:]
        assert visited(loader) == whole[skipped:], "again, until another epoch is chosen"
    if shuffle_rows:
        assert split.told == [], "no rows are left to read"
        loader.set_epoch(2, len(whole) - 1)
        visited(loader)
        assert sum(stop - start for start, stop in split.told) <= 1_024, "not those of the batches before"
    loader.set_epoch(2)
    assert visited(loader) == whole


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


# ---- the order beyond memory -----------------------------------------------------------------------------------------


@given(st.integers(1_025, 5_000), st.integers(1, 5), st.integers(0, 2))
def test_ranks_share_a_block_order(rows, ranks, epoch):
    seen, told = [], []
    for rank in range(ranks):
        split = Rows(rows)
        loader = BatchLoader(split, 64, shuffle=True, seed=1, rank=rank, world_size=ranks, shuffle_rows=1_024)
        loader.set_epoch(epoch)
        seen += flat(visited(loader))
        told.append(split.told)
    assert len(seen) == len(set(seen)) == rows - rows % ranks
    # Every rank has all rows read ahead, each once.
    for ranges in told:
        assert sorted(row for start, stop in ranges for row in range(start, stop)) == list(range(rows))


def test_rows_up_to_the_limit_are_shuffled_as_a_whole():
    def order(limit):
        return flat(visited(BatchLoader(Rows(3_000), 64, shuffle=True, seed=1, shuffle_rows=limit)))

    assert order(None) == order(3_000) != order(2_048)


def test_memory_is_the_smaller_of_the_machines_and_the_containers(tmp_path, monkeypatch):
    (tmp_path / "two").write_text("max\n")
    assert machine_memory((str(tmp_path / "one"), str(tmp_path / "two"))) == loaders.psutil.virtual_memory().total
    (tmp_path / "one").write_text("123456\n")
    assert machine_memory((str(tmp_path / "one"), str(tmp_path / "two"))) == 123_456
    # Bytes: ids of 4; offsets and values of the multi-valued field; a pointer; a label. The side table counts nothing.
    split = Split(small_store(), 0, 4)
    assert split.bytes == 4 * 4 + (5 + 6) + 4 + 4
    monkeypatch.setattr(loaders, "machine_memory", lambda: 2 * 9 * 5_000)
    assert rows_in_memory(split) == 4_096
    monkeypatch.setattr(loaders, "machine_memory", lambda: 100)
    assert rows_in_memory(split) == 1_024


# ---- what is in a batch ----------------------------------------------------------------------------------------------


def small_store(observed=None, extra=None):
    """Four rows: ids, a multi-valued field of the row, a number and an id of a side table of two rows."""
    fields = (
        FieldSpec("a", "token", 100, 0),
        FieldSpec("m", "token_seq", 10, 100),
        FieldSpec("x", "float", 2, 110),
        FieldSpec("u", "token", 5, 112),
    )
    columns = {
        "a": Column("inter", np.array([5, 6, 7, 99], np.int32)),
        "m": Column("inter", np.array([2, 3, 4, 5, 6, 7], np.int8), np.array([0, 2, 2, 3, 6], np.int8)),
        "x": Column("user", np.array([0.5, np.nan], np.float32)),
        "u": Column("user", np.array([4, 3], np.int8)),
    }
    schema = DataSchema(fields, (TaskSpec("t", "binary", "t"),))
    labels = np.array([[0], [1], [1], [0]], np.int8)
    pointers = {"user": np.array([1, 0, 0, 1], np.int8)}
    shown = np.broadcast_to(np.True_, labels.shape) if observed is None else observed
    return Store(schema, columns, pointers, labels, shown, extra or {})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("held", [1, 1 << 22])
def test_batches_hold_each_kind_of_field(monkeypatch, held, packed):
    monkeypatch.setattr(stores, "HELD_VALUES", held)
    monkeypatch.setattr(stores, "PACKED_AT_A_TIME", 2)
    extra = {"weight": np.array([1, 2, 3, 4], np.float16), "row": np.array([40, 41, 42, 43], np.int32)}
    observed = np.array([[True], [False], [True], [True]])
    split = Split(small_store(observed, extra), 1, 4)
    if packed:
        split.pack()
        assert split._packed.tolist() == [[6, -1, -1, 116], [7, -1, -1, 116], [99, -1, -1, 115]]
    first, second = split.batches(np.array([2, 0, 1], np.int32), 2)
    assert first.ids.tolist() == [[99, -1, -1, 115], [6, -1, -1, 116]]
    assert second.ids.tolist() == [[7, -1, -1, 116]]
    assert first.ids.dtype == torch.int64
    assert first.ids.is_contiguous()
    assert first.multi[1].values.tolist() == [105, 106, 107]
    assert first.multi[1].offsets.tolist() == [0, 3, 3]
    assert second.multi[1].values.tolist() == [104]
    assert first.dense.isnan().tolist() == [[True], [False]]
    assert second.dense.tolist() == [[0.5]]
    assert first.labels.tolist() == [[0.0], [1.0]]
    assert first.observed.tolist() == [[True], [False]]
    assert (first.sample_weight.tolist(), second.row.tolist()) == ([4.0, 2.0], [42])
    assert (first.domain, first.group) == (None, None)
    # A batch is memory of its own.
    assert first.ids.untyped_storage().nbytes() == 2 * 4 * 8
    whole = split.batch(np.array([2, 0, 1]))
    assert torch.equal(whole.ids, torch.cat([first.ids, second.ids]))


def test_rows_are_packed_within_a_limit_where_they_are_shuffled():
    split = Split(small_store(), 0, 4)
    split.pack(limit=4 * 4 * 4 - 1)
    assert split._packed is None
    [*BatchLoader(split, 2, shuffle=False, seed=0)]
    assert split._packed is None
    [*BatchLoader(split, 2, shuffle=True, seed=0)]
    packed = split._packed
    assert packed.nbytes == 4 * 4 * 4
    split.pack()
    assert split._packed is packed
    nothing = Split(small_store(), 2, 2)
    nothing.pack()
    assert nothing._packed is None


def test_rows_that_are_shuffled_in_blocks_are_not_packed():
    split = Split(small_store(), 0, 4)
    [*BatchLoader(split, 2, shuffle=True, seed=0, shuffle_rows=2)]
    assert split._packed is None
    [*BatchLoader(split, 2, shuffle=True, seed=0, shuffle_rows=4)]
    assert split._packed is not None


@pytest.mark.parametrize(("memory", "processes", "packed"), [(8 * 64, 1, True), (8 * 64, 2, False), (8 * 63, 1, False)])
def test_packed_rows_of_all_processes_fill_an_eighth_of_the_memory_at_most(monkeypatch, memory, processes, packed):
    monkeypatch.setattr("recbole_dtn.data.loader.machine_memory", lambda: memory)
    split = Split(small_store(), 0, 4)  # 4 rows of 4 fields of 4 bytes
    [*BatchLoader(split, 2, shuffle=True, seed=0, world_size=processes)]
    assert (split._packed is not None) == packed


def test_where_memory_is_short_rows_are_not_packed(monkeypatch):
    def refuse(*_):
        raise MemoryError

    split = Split(small_store(), 0, 4)
    expected = split.batch(np.array([2, 0])).ids
    monkeypatch.setattr(np, "empty", refuse)
    split.pack()
    monkeypatch.undo()
    assert split._packed is None
    assert torch.equal(split.batch(np.array([2, 0])).ids, expected)


def test_the_default_limit_leaves_most_of_a_gib_to_the_rest_of_training():
    assert PACKED_BYTES <= 2**30 * 3 // 8


def anonymous_bytes(array):
    """Anonymous memory of the mappings that hold an array, which is what RssAnon adds up over all of a process.

    RssAnon itself also falls when another thread's allocator gives pages back meanwhile, as on a busy machine.
    """
    first = array.__array_interface__["data"][0]
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = re.match("([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            start, stop = (int(bound, 16) for bound in bounds.groups())
            inside = start < first + array.nbytes and first < stop
        elif inside and line.startswith("Anonymous:"):
            found += int(line.split()[1]) << 10
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="the system does not tell a process's mappings")
def test_packed_rows_are_seen_where_the_memory_of_a_run_is_measured():
    rows = 1 << 21
    column = Column("inter", np.zeros(rows, np.int8))
    fields = tuple(FieldSpec(name, "token", 1, place) for place, name in enumerate("abcdefgh"))
    labels = np.broadcast_to(np.int8(0), (rows, 1))
    schema = DataSchema(fields, (TaskSpec("t", "binary", "t"),))
    split = Split(Store(schema, {field.name: column for field in fields}, {}, labels, labels == 0, {}), 0, rows)
    split.pack()
    assert split._packed.nbytes == 64 << 20
    assert anonymous_bytes(split._packed) > 0.9 * (64 << 20)
    # Pages of a mapping that is shared do not count there: packed rows were once kept in one.
    shared = np.frombuffer(mmap.mmap(-1, 1 << 20), np.int32)
    shared[:] = 1
    assert anonymous_bytes(shared) == 0


def test_labels_that_are_all_observed_are_not_copied_whole():
    split = Split(small_store(), 0, 4)
    batch = split.batch(np.array([3, 1]))
    assert batch.observed.tolist() == [[True], [True]]
    assert batch.row.tolist() == [3, 1]
    assert len(split.batch(np.empty(0, np.int64))) == 0


def test_ids_of_a_table_beyond_32_bits():
    fields = (FieldSpec("z", "token", 2**31, 0), FieldSpec("a", "token", 100, 2**31))
    columns = {"z": Column("inter", np.array([2**31 - 1], np.int64)), "a": Column("inter", np.array([99], np.int8))}
    labels = np.zeros((1, 1), np.int8)
    store = Store(DataSchema(fields, (TaskSpec("t", "binary", "t"),)), columns, {}, labels, labels == 0, {})
    split = Split(store, 0, 1)
    split.pack()
    assert split._packed is None
    assert split.batch(np.array([0])).ids.tolist() == [[2**31 - 1, 2**31 + 99]]


def test_reading_ahead_asks_for_the_pages_of_the_rows(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.arange(100_000, dtype=np.int32))
    array = load_array(tmp_path / "a.npy")
    asked = []
    monkeypatch.setattr(stores, "READ_AT_A_TIME", 1 << 14)

    class Mapping(stores.mmap.mmap):
        def madvise(self, option, start, length):
            asked.append((option, start, length))
            return super().madvise(option, start, length)

    with (tmp_path / "a.npy").open("rb") as file:
        mapped = Mapping(file.fileno(), 0, access=stores.mmap.ACCESS_READ)
    watched = np.ndarray(100_000, np.int32, buffer=mapped, offset=128)
    will_need(watched, 10_000, 20_000)
    page = stores.mmap.PAGESIZE
    start = (128 + 40_000) // page * page
    assert asked[0][:2] == (stores.mmap.MADV_WILLNEED, start)
    assert sum(length for _, _, length in asked) == 128 + 80_000 - start
    will_need(array, 0, 100_000)
    will_need(np.arange(5), 0, 5)
    assert array[-1] == 99_999


# ---- page-locked memory ----------------------------------------------------------------------------------------------


def test_batches_are_pinned_in_the_thread_that_cuts_them(monkeypatch):
    threads = []

    def pin(self):
        threads.append(threading.current_thread())
        return Features(ids=self.ids + 1_000)

    monkeypatch.setattr(Features, "pin_memory", pin)
    loader = BatchLoader(Rows(5), 2, shuffle=False, seed=0, prefetch=1, pin=True)
    assert visited(loader) == [[1_000, 1_001], [1_002, 1_003], [1_004]]
    assert threading.main_thread() not in threads
    assert len(threads) == 3
