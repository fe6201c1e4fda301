"""Stream Ali-CCP's four raw files: each user is written once, each impression gets the key of its user."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np

from recbole_dtn.data.hashing import GOLDEN, mix
from recbole_dtn.data.progress import Meter
from recbole_dtn.data.write import replace_file
from recbole_dtn.preprocess.aliccp.counts import IdCounts
from recbole_dtn.preprocess.aliccp.options import AliCCPOptions
from recbole_dtn.preprocess.aliccp.rows import COMMON, SKELETON, FeatureBlock, TableLayout, read_block
from recbole_dtn.preprocess.aliccp.text import (
    LABELS,
    Chosen,
    Column,
    Kept,
    choose,
    columns_of,
    lines_of,
    other_values,
    types_of,
)
from recbole_dtn.preprocess.aliccp.words import Flags, Ints, Words
from recbole_dtn.preprocess.base import Work
from recbole_dtn.preprocess.lines import Lines, line_blocks
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.rejects import Tally

__all__ = ["BLOCK_BYTES", "PARTS", "WORKERS", "Join", "raw_name", "valid_rows"]

PARTS = ("train", "test")
# Bytes of a block, and threads that parse blocks.
BLOCK_BYTES = 1 << 22
WORKERS = 2
DUPLICATE = "common_feature_index occurs in an earlier row"
ORPHAN = "no good row of the common features has this common_feature_index"
REPEATED = "field {} occurs more than once: name it in `lists`, or set repeated: last"
UNCLICKED = "click = 0 and buy = 1"

S = TypeVar("S")
T = TypeVar("T")


def raw_name(kind: str, part: str) -> str:
    """The name of a raw file.

    >>> raw_name("skeleton", "train"), raw_name("common", "test")
    ('sample_skeleton_train.csv', 'common_features_test.csv')
    """
    return f"{'sample_skeleton' if kind == 'skeleton' else 'common_features'}_{part}.csv"


def valid_rows(rows: Ints, seed: int, share: float) -> Flags:
    """Which rows are drawn for validation: a hash of the seed and the row's number (SplitMix64) against the share."""
    with np.errstate(over="ignore"):
        # The row's number in the file decides, so that the split does not depend on the size of blocks.
        mixed = mix(np.uint64(seed) + rows.astype(np.uint64) * GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share


def in_order(function: Callable[[S], T], items: Iterator[S], workers: int) -> Iterator[T]:
    """The results of a function in the order of the items, computed by ``workers`` threads."""
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            # No more than ``workers`` + 1 results are held, however slow the consumer is.
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class CommonRows:
    """The common rows of one part, found by their index."""

    def __init__(self, index: Words) -> None:
        self.index = np.sort(index)

    def find(self, index: Words) -> Ints:
        """The position of each index, -1 where there is none. Each run of equal indices is searched once."""
        # Impressions of one user stand together in the skeleton: most rows repeat the index before.
        changes = np.append(True, index[1:] != index[:-1])
        wanted = index[changes]
        places = np.searchsorted(self.index, wanted)
        if len(self.index):
            places[self.index[np.minimum(places, len(self.index) - 1)] != wanted] = -1
        else:
            places[:] = -1
        found: Ints = places[np.cumsum(changes) - 1]
        return found


@dataclass
class Impressions:
    """A block of the skeleton: the common row of each impression, which rows a rule drops, and the lines to write."""

    common: Ints
    dropped: Flags
    chosen: list[Chosen]
    lines: list[bytes]


class Join:
    """Writes ``<name>.user`` and ``<name>.{train,valid,test}.inter``.

    Args:
        name: of the data set. options: of the protocol. raw: the raw files by name. work: of the preprocessing.
        block_bytes: about how many bytes are read at a time; the files do not depend on it. workers: threads.
    """

    def __init__(
        self,
        name: str,
        options: AliCCPOptions,
        raw: Mapping[str, RawFile],
        work: Work,
        *,
        block_bytes: int = BLOCK_BYTES,
        workers: int = WORKERS,
    ) -> None:
        self.name, self.options, self.raw, self.work = name, options, raw, work
        self.block_bytes, self.workers = block_bytes, workers
        self.columns = {layout: columns_of(layout, options) for layout in (SKELETON, COMMON)}
        self.kept: Kept = {}
        self.others: Counter[str] = Counter()

    def write(self) -> dict[str, int]:
        """Write all files; returns ``{file: rows}``."""
        if self.options.min_occurrences > 1:
            self.kept = self._count()
        rows: Counter[str] = Counter()
        common = {}
        with self._file("user", COMMON, ()) as user:
            for part in PARTS:
                common[part] = self._write_common(part, user, rows)
        for part, files in (("train", ("train", "valid")), ("test", ("test",))):
            self._write_skeleton(part, files, common[part], rows)
        for field, features in sorted(self.others.items()):
            self.work.log(
                f"field {field}: {features:,} features have another value than 1, which the files do not hold (a field "
                "named in `lists` keeps its values)"
            )
        return dict(rows)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _write_common(self, part: str, file: BinaryIO, rows: Counter[str]) -> CommonRows:
        columns, tally = self.columns[COMMON], self.work.rejects.table(f"common features, {part}")
        # So that there is something to concatenate where the file is empty.
        index = [np.empty(0, np.uint64)]

        def made(block: FeatureBlock) -> tuple[list[Chosen], bytes]:
            chosen = [choose(block, column, self.kept, self.options.max_list) for column in columns]
            # All good rows go to the one file of users.
            (lines,) = lines_of(block, part, np.where(block.good, 0, -1), 1, columns, chosen)
            return chosen, lines

        with closing(self._common(part, made, self.work.meter)) as blocks:
            for block, (chosen, lines) in blocks:
                written = int(np.count_nonzero(block.good))
                self._report(block, tally, raw_name("common", part), written)
                self._note_values(block, columns, chosen)
                file.write(lines)
                index.append(block.index[block.good])
                rows[f"{self.name}.user"] += written
        return CommonRows(np.concatenate(index))

    def _write_skeleton(self, part: str, files: Sequence[str], common: CommonRows, rows: Counter[str]) -> None:
        columns, tally = self.columns[SKELETON], self.work.rejects.table(f"skeleton, {part}")
        shown = np.zeros(len(common.index), bool)
        with ExitStack() as stack:
            targets = [stack.enter_context(self._file(f"{file}.inter", SKELETON, LABELS)) for file in files]
            blocks = stack.enter_context(
                closing(self._skeleton(part, common, self.work.meter, files=len(files), writing=True))
            )
            for block, found in blocks:
                dropped = int(np.count_nonzero(found.dropped))
                if dropped:
                    tally.dropped[UNCLICKED] += dropped
                self._report(block, tally, raw_name("skeleton", part), int(np.count_nonzero(block.good)) - dropped)
                self._note_values(block, columns, found.chosen)
                shown[found.common[block.good]] = True
                for file, target, lines in zip(files, targets, found.lines, strict=True):
                    target.write(lines)
                    rows[f"{self.name}.{file}.inter"] += lines.count(b"\n")
        unseen = int(np.count_nonzero(~shown))
        if unseen:
            self.work.log(f"{unseen:,} of {len(shown):,} common rows of {part} belong to no impression; they are kept")

    def _file(self, ending: str, layout: TableLayout, labels: Sequence[str]) -> _AtomicFile:
        return _AtomicFile(self.work, f"{self.name}.{ending}", types_of(self.columns[layout], labels))

    def _report(self, block: FeatureBlock, tally: Tally, name: str, written: int) -> None:
        tally.rows_in += block.rows
        tally.written += written
        for fault in sorted(block.faults):
            tally.reject(self.raw[name].name, [block.first_line + fault.row], fault.reason, [fault.text])

    def _note_values(self, block: FeatureBlock, columns: Sequence[Column], chosen: Sequence[Chosen]) -> None:
        for column, some in zip(columns, chosen, strict=True):
            if found := other_values(block, column, some):
                self.others[column.name] += found

    # ---- the raw tables, block by block -----------------------------------------------------------------------------

    def _blocks(self, kind: str, part: str, function: Callable[[Lines], T], meter: Meter) -> Generator[T, None, None]:
        raw = self.raw[raw_name(kind, part)]
        blocks = line_blocks(raw, block_bytes=self.block_bytes, meter=meter, max_line=self.work.rejects.max_line)
        with closing(blocks) as lines:
            yield from in_order(function, lines, self.workers)

    def _common(
        self, part: str, made: Callable[[FeatureBlock], T], meter: Meter
    ) -> Generator[tuple[FeatureBlock, T], None, None]:
        """Blocks of the common features with what ``made`` makes of each, rows that stand twice refused."""
        seen = _Seen()

        def task(lines: Lines) -> tuple[FeatureBlock, T]:
            block = read_block(lines, COMMON)
            self._refuse_repeats(block)
            return block, made(block)

        for block, found in self._blocks("common", part, task, meter):
            # Duplicates are found here, in the order of the file; lines that a thread made with such a row are made
            # again.
            yield (block, made(block)) if seen.refuse_duplicates(block) else (block, found)

    def _skeleton(
        self, part: str, common: CommonRows, meter: Meter, *, files: int, writing: bool
    ) -> Generator[tuple[FeatureBlock, Impressions], None, None]:
        """Blocks of the skeleton with what is known of their rows, and their lines when ``writing``."""
        options, columns = self.options, self.columns[SKELETON]

        def task(lines: Lines) -> tuple[FeatureBlock, Impressions]:
            block = read_block(lines, SKELETON)
            self._refuse_repeats(block)
            places = common.find(block.index)
            block.refuse(np.flatnonzero(places < 0), ORPHAN)
            dropped = block.good & (block.labels["click"] == 0) & (block.labels["buy"] == 1)
            if not options.drop_unclicked_buys:
                dropped[:] = False
            chosen = [choose(block, column, self.kept, options.max_list) for column in columns]
            found = Impressions(places, dropped, chosen, [])
            if writing:
                file = np.zeros(block.rows, np.int64)
                if files > 1:
                    numbers = np.arange(block.rows) + (block.first_line - 1)
                    file[valid_rows(numbers, options.split_seed, options.valid_share)] = 1
                # Not written.
                file[~block.good | dropped] = -1
                found.lines = lines_of(block, part, file, files, columns, chosen)
            return block, found

        return self._blocks("skeleton", part, task, meter)

    def _refuse_repeats(self, block: FeatureBlock) -> None:
        for column in self.columns[block.layout]:
            if column.many or column.last:
                continue
            row = block.row[np.flatnonzero(block.code == column.code)]
            # Features come row by row, so that repeated ones of a field are neighbours.
            twice = row[1:][row[1:] == row[:-1]]
            if len(twice):
                block.refuse(np.unique(twice), REPEATED.format(column.name))

    # ---- counting ---------------------------------------------------------------------------------------------------

    def _count(self) -> Kept:
        """Which ids of each field the official training file shows often enough.

        An id of a user counts once per impression of that user, or once per common row, as ``count`` says.
        """

        # Three passes: the users' indices; the ids and users of the impressions; the ids of the users, weighted by how
        # many impressions they have.

        def meter(stage: str, done: int, total: int) -> None:
            self.work.meter(f"counting ids, {stage}", done, total)

        index = [np.empty(0, np.uint64)]
        with closing(self._common("train", lambda block: None, meter)) as scanned:
            index += [block.index[block.good] for block, _ in scanned]
        common = CommonRows(np.concatenate(index))
        counts = {column.name: IdCounts() for columns in self.columns.values() for column in columns}
        impressions = np.zeros(len(common.index), np.int64)
        with closing(self._skeleton("train", common, meter, files=1, writing=False)) as skeleton:
            for block, found in skeleton:
                weight = (block.good & ~found.dropped).astype(np.int64)
                # add.at, as a user occurs many times in a block.
                np.add.at(impressions, found.common[weight > 0], 1)
                self._add(counts, block, found.chosen, weight)

        def chosen(block: FeatureBlock) -> list[Chosen]:
            return [choose(block, column, {}, None) for column in self.columns[COMMON]]

        with closing(self._common("train", chosen, meter)) as rows:
            for block, some in rows:
                places = common.find(block.index)
                weight = impressions[places] if self.options.count == "impressions" else np.ones(block.rows, np.int64)
                self._add(counts, block, some, np.where(block.good, weight, 0))
        return {name: found.at_least(self.options.min_occurrences) for name, found in counts.items()}

    def _add(self, counts: Mapping[str, IdCounts], block: FeatureBlock, chosen: Sequence[Chosen], weight: Ints) -> None:
        for column, some in zip(self.columns[block.layout], chosen, strict=True):
            features = some.features[weight[block.row[some.features]] > 0]
            counts[column.name].add(block.numbers(features), weight[block.row[features]])


class _Seen:
    """Indices of the common rows read so far, as sorted words: at most 16 bytes a row, where a set takes 90."""

    def __init__(self) -> None:
        self.sorted = np.empty(0, np.uint64)
        self.recent = np.empty(0, np.uint64)

    def refuse_duplicates(self, block: FeatureBlock) -> bool:
        """Refuse common rows whose index is there already; returns whether there was one."""
        rows = np.flatnonzero(block.good)
        index = block.index[rows]
        # The first row of each index in this block stays, if no block before had it.
        _, first = np.unique(index, return_index=True)
        again = np.ones(len(index), bool)
        again[first] = False
        again |= _among(index, self.sorted) | np.isin(index, self.recent)
        block.refuse(rows[again], DUPLICATE)
        self.recent = np.append(self.recent, index[~again])
        # Sorting all of them for each block would take quadratic time; a few recent ones are searched by themselves.
        if len(self.recent) > len(self.sorted) // 16:
            self.sorted = np.sort(np.append(self.sorted, self.recent))
            self.recent = self.recent[:0]
        return bool(again.any())


def _among(index: Words, ordered: Words) -> Flags:
    """Which of the indices are among ordered ones."""
    if not len(ordered):
        return np.zeros(len(index), bool)
    places = np.minimum(np.searchsorted(ordered, index), len(ordered) - 1)
    found: Flags = ordered[places] == index
    return found


class _AtomicFile:
    """``with _AtomicFile(...) as file``: an atomic file written in lines that begin with a line feed."""

    def __init__(self, work: Work, name: str, types: Mapping[str, str]) -> None:
        self._target = replace_file(work.folder / name)
        self._header = "\t".join(f"{column}:{kind}" for column, kind in types.items())

    def __enter__(self) -> BinaryIO:
        self._file = self._target.__enter__()
        self._file.write(self._header.encode())
        return self._file

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._file.write(b"\n")
        self._target.__exit__(*error)
