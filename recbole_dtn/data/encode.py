"""Second pass of encoding: splits, labels, and each column as its narrowest integers (:mod:`recbole_dtn.data.fields`).

The interactions are stored in the order training, validation, test, so that a split is one slice of every array. A
side table is stored once, and each interaction holds a row number of it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.config.settings import Settings
from recbole_dtn.config.tasks import task_columns
from recbole_dtn.data.atomic import Tap
from recbole_dtn.data.columns import Tables, read_tables
from recbole_dtn.data.fields import StoredTable, write_field
from recbole_dtn.data.labels import write_labels
from recbole_dtn.data.layout import ArrayWriter, RowBlock, SplitLayout, narrowest
from recbole_dtn.data.parts import assign_parts
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.raw import RawFloats, RawSequences, workers
from recbole_dtn.data.sources import PARTS, Sources
from recbole_dtn.data.vocabulary import Vocabularies, Vocabulary
from recbole_dtn.errors import DataError, UsageError

__all__ = ["Encoded", "check_count_parts", "encode"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Encoded:
    """What the arrays of a cache entry mean: vocabularies, and counts per split, field and task.

    ``how`` says in words how rows were assigned to the splits, where the settings alone do not.
    """

    vocabularies: Vocabularies
    rows: dict[str, int]
    tables: dict[str, str]
    fields: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, list[int]]]
    how: str = ""


def check_count_parts(settings: Settings) -> None:
    """Refuse ``count_parts`` where it has no effect.

    Raises:
        UsageError: naming the field.
    """
    for spec in settings.fields:
        if spec.count_parts is None:
            continue
        if settings.split != "given":
            raise UsageError(
                f"field {spec.name!r}: count_parts needs split: given, found split: {settings.split}; leave it "
                "out, and only training is counted"
            )
        if spec.type == "float" or "train" not in spec.count_parts:
            raise UsageError(
                f"field {spec.name!r}: count_parts is for token and token_seq fields and names train, found "
                f"{spec.count_parts} for a {spec.type}"
            )


def encode(
    settings: Settings,
    sources: Sources,
    target: Path,
    scratch: Path,
    log: Callable[[str], None] = lambda text: None,
    meter: Meter = silent,
    tap: Tap | None = None,
) -> Encoded:
    """Write the arrays of a data set into ``target``.

    Args:
        settings: fields, tasks, split. sources: the atomic files. target, scratch: empty folders.
        log: gets a message, with file and line, for each value that stock RecBole would misread.
        meter: gets the number of encoded fields. tap: gets the bytes of the files as they are read, in a thread.

    Raises:
        DataError: for faulty files, a label that is missing or not binary, an empty split, a task without positives.
    """
    tables = read_tables(settings, sources, scratch, log, tap)
    layout, how = assign_parts(settings, tables, scratch)
    return _Encoder(settings, tables, layout, target, meter, how).run()


class _Encoder:
    """The second pass of :func:`encode`: every array of the cache entry, several at a time."""

    def __init__(
        self, settings: Settings, tables: Tables, layout: SplitLayout, target: Path, meter: Meter, how: str
    ) -> None:
        self.settings, self.tables, self.layout, self.target = settings, tables, layout, target
        self.meter, self.how = meter, how
        self.stored = {"inter": StoredTable("inter", tables.raw["inter"], layout)}
        self.users = Counter(column for _, columns in self._work() for column in columns)
        self.lock = threading.Lock()
        self.fields_done = 0

    def run(self) -> Encoded:
        # Without an order, stored rows are in the order of the files and row numbers need no array.
        if self.layout.order is not None:
            self._write("row.npy", narrowest(self.layout.rows), lambda block: np.arange(block.start, block.stop))
        for kind in self.tables.pointers:
            self._pointers(kind)
        # The pointers come first: fields of side tables are counted by interaction (StoredTable.shown).
        work = self._work()
        with ThreadPoolExecutor(workers(len(work))) as pool:
            running = [pool.submit(self._do, task, columns) for task, columns in work]
            try:
                results = [each.result() for each in running]
            except BaseException:
                # Without the cancellation, leaving ``with`` would run all waiting tasks before the error is raised.
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        # In the order of `_work`.
        labels, domains, *fields = results
        names = [spec.name for spec in self.settings.fields]
        vocabularies: dict[str, Vocabulary] = {name: known for name, (known, _) in zip(names, fields, strict=True)}
        return Encoded(
            Vocabularies(vocabularies, domains, self.settings.domain_field),
            {name: stop - start for name, (start, stop) in zip(PARTS, self.layout.stretches(), strict=True)},
            {name: self.tables.sources.owner(name, wanted_by="fields") for name in names},
            {name: counts for name, (_, counts) in zip(names, fields, strict=True)},
            labels,
            self.how,
        )

    def _work(self) -> list[tuple[Callable[[], Any], set[str]]]:
        """Tasks with the columns that each reads: labels, then weights, groups and domains, then one task per field."""
        settings = self.settings
        work: list[tuple[Callable[[], Any], set[str]]] = [
            (
                lambda: write_labels(settings, self.tables, self.layout, self.target),
                {column for task in settings.tasks for column in task_columns(task)},
            ),
            (self._extras, {name for name in _extra_columns(settings) if name is not None}),
        ]
        for position, spec in enumerate(settings.fields):
            columns = {spec.name} if spec.weights is None else {spec.name, spec.weights}
            work.append((lambda position=position: self._field(position), columns))  # type: ignore[misc]
        return work

    def _do(self, task: Callable[[], Any], columns: Iterable[str]) -> Any:
        """Run a task, then delete the scratch files of columns that no other task needs."""
        result = task()
        with self.lock:
            for name in columns:
                # Scratch files are about as large as the data: each is removed when its last reader is done.
                self.users[name] -= 1
                if not self.users[name]:
                    self.tables.column(name).remove()
        return result

    def _field(self, position: int) -> tuple[Vocabulary, dict[str, Any]]:
        spec, total = self.settings.fields[position], len(self.settings.fields)
        table = self.stored[self.tables.sources.owner(spec.name, wanted_by="fields")]
        made = write_field(position, spec, table, self.settings.min_count, self.target)
        with self.lock:
            self.fields_done += 1
            self.meter("encoding fields", self.fields_done, total)
        return made

    def _write(self, name: str, dtype: npt.DTypeLike, values: Callable[[RowBlock], Array]) -> None:
        """Write an array over the interactions in the order of the splits; ``values`` gives those of a block."""
        with ArrayWriter(self.target / name, dtype, (self.layout.rows,), self.layout.ends[:-1]) as out:
            for block in self.layout.blocks():
                found = values(block)
                for part, chosen in block.pieces:
                    out.write(part, found[chosen])

    def _pointers(self, kind: str) -> None:
        """Write the pointers to a side table in the order of the splits, and count them per split and row."""
        raw, scratch = self.tables.raw[kind], self.tables.pointers[kind]
        # One count per row of the side table, and a last one for interactions without a row there.
        shown = [np.zeros(raw.rows + 1, np.int64) for _ in PARTS]
        path, dtype = self.target / f"pointer.{kind}.npy", narrowest(raw.rows)
        with ArrayWriter(path, dtype, (self.layout.rows,), self.layout.ends[:-1]) as out:
            for block in self.layout.blocks():
                pointers = scratch.read(block.start, block.stop)
                for part, chosen in block.pieces:
                    found = pointers[chosen]
                    out.write(part, found)
                    # bincount ends at the largest pointer of the block, mostly before the end of the side table.
                    counts = np.bincount(found)
                    shown[part][: len(counts)] += counts
        # A side table is stored in the order of its file: one stretch, whatever the split of its interactions.
        self.stored[kind] = StoredTable(kind, raw, SplitLayout((0, raw.rows)), shown)

    # ---- columns beside the fields --------------------------------------------------------------------------------

    def _extras(self) -> tuple[str, ...]:
        """Sample weights, groups and domains; returns the domains' tokens."""
        settings = self.settings
        if settings.weight_field is not None:
            name = settings.weight_field
            self._write("weight.npy", np.float32, lambda block: self._sample_weights(name, block))
            self._refuse_weightless(name)
        if settings.group_field is not None:
            self._numbered("group.npy", settings.group_field)
        if settings.domain_field is None:
            return ()
        return tuple(self._numbered("domain.npy", settings.domain_field, complete=True))

    def _numbered(self, file: str, column: str, *, complete: bool = False) -> list[str]:
        """Number the values of a column in the order of their bytes, over all splits; missing ones come last.

        Raises:
            DataError: for a column without tokens, and a missing value where the column has to be ``complete``.
        """
        raw = self.tables.column(column)
        space = None if isinstance(raw, RawFloats | RawSequences) else raw.space
        if space is None:
            folder = self.tables.sources.folder
            raise DataError(f"{folder}: column {column!r} must be of type token to number its values")
        tokens = space.tokens()
        # Sorted by bytes, so that the numbers do not depend on the order of the rows.
        present = np.flatnonzero(~space.missing)
        order = present[tokens.gather(present).arg_sort().to_numpy()]
        # numbers[code]: its rank among the present tokens. Code -1 finds the last element, the number of "missing".
        numbers = np.full(len(tokens) + 1, len(order), np.int64)
        numbers[order] = np.arange(len(order))

        def of(block: RowBlock) -> Array:
            found = numbers[self.tables.codes(column, block.start, block.stop)]
            missing = np.flatnonzero(found == len(order))
            if complete and len(missing):
                where = self.tables.raw["inter"].where(block.start + int(missing[0]))
                raise DataError(f"{where}: domain_field {column!r} is missing")
            return found

        self._write(file, narrowest(len(order)), of)
        return tokens.gather(order).to_list()

    def _refuse_weightless(self, column: str) -> None:
        """Refuse a split whose rows all have the weight 0.

        Raises:
            DataError: naming split and column.
        """
        weights = np.load(self.target / "weight.npy", mmap_mode="r")
        for part, (start, stop) in zip(PARTS, self.layout.stretches(), strict=True):
            if not (weights[start:stop] > 0).any():
                raise DataError(
                    f"{self.tables.sources.folder}: weight_field {column!r} is 0 in all {stop - start:,} rows of the "
                    f"{part} split, so that none counts: correct the weights, or leave weight_field out"
                )

    def _sample_weights(self, column: str, block: RowBlock) -> Array:
        weights = self.tables.numbers(column, block.start, block.stop)
        wrong = ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any():
            row = block.start + int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{self.tables.raw['inter'].where(row)}: weight_field {column!r}: expected a number from 0 up, found "
                f"{weights[wrong][0]}"
            )
        return weights


def _extra_columns(settings: Settings) -> tuple[str | None, ...]:
    return settings.weight_field, settings.group_field, settings.domain_field
