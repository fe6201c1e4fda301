"""The best candidates of each user: every pair is scored, in blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.config.formula import Formula, parse_formula
from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.store import ragged_positions
from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.schema import DataSchema
from recbole_dtn.serving.load import LoadedRun, probabilities
from recbole_dtn.serving.output import check_output, open_output
from recbole_dtn.serving.predict import BATCH_ROWS, Encoder, Scored, needed_columns, plain_column
from recbole_dtn.serving.tables import Reading, Rows, Table, numbers_of, open_input, read_spec

__all__ = ["best_candidates"]

Floats = NDArray[np.float64]
USERS, CANDIDATES = "users", "candidates"


class _Side:
    """One of the two tables, and the fields that it has.

    Attributes:
        positions: of its fields in the run's schema. schema: those fields alone, with the rows of the joint table that
            they have in the run's.
    """

    def __init__(self, run: LoadedRun, option: str, table: Table, reading: Reading) -> None:
        self.option, self.table = option, table
        schema = run.model.schema
        self.positions = [place for place, spec in enumerate(schema.fields) if spec.name in table.names]
        self.schema = replace(schema, fields=tuple(schema.fields[place] for place in self.positions))
        self.encoder = Encoder(run, self.schema, reading, escaped=table.escaped)
        self.wanted = needed_columns(run, self.schema)
        table.check(self.wanted)
        domain = run.vocabularies.domain_field
        if domain is not None and domain in table.names:
            self.wanted.setdefault(domain, "domain_field of the run")
        self.keep: list[str] = []
        self.read: list[str] = []
        """Columns that the formula reads."""

    def blocks(self, meter: Meter) -> Iterator[Rows]:
        """Rows with the columns that are needed."""
        return self.table.blocks(list(dict.fromkeys([*self.wanted, *self.keep, *self.read])), meter)

    def numbers(self, rows: Rows) -> dict[str, Floats]:
        """What the formula reads of some rows."""
        return {name: np.array(numbers_of(rows, name, "read by --score").to_numpy(), np.float64) for name in self.read}

    def kept(self, rows: Rows) -> list[pl.Series]:
        """The columns that are passed on."""
        return [plain_column(rows.frame[name], escaped=self.table.escaped) for name in self.keep]


@dataclass(frozen=True)
class _Held:
    """All candidates: as a batch, what the formula reads of them, what is passed on, and the names of their rows."""

    features: Features
    numbers: dict[str, Floats]
    kept: pl.DataFrame
    blocks: list[tuple[int, Callable[[int], str]]]
    """Rows of each block, and what names them."""

    def name(self, row: int) -> str:
        """The name of a candidate for messages."""
        for rows, name in self.blocks:
            if row < rows:
                return name(row)
            row -= rows
        raise IndexError(row)


class _Ranker:
    """Scores users against all candidates.

    Args:
        run: the model. users, candidates: the sides. formula: of the score. k: how many are kept of each user.
        batch_rows: pairs scored at a time. seen: places of the candidates that are left out, by the key of a user.
    """

    def __init__(
        self, run: LoadedRun, users: _Side, candidates: _Side, formula: Formula, k: int, batch_rows: int, meter: Meter
    ) -> None:
        self.run, self.users, self.candidates, self.formula = run, users, candidates, formula
        self.batch_rows, self.meter = batch_rows, meter
        self.schema = run.model.schema
        self.held = self._hold()
        self.count = len(self.held.features)
        if not self.count:
            raise DataError(f"{candidates.table.label}: holds no candidates")
        self.k = min(k, self.count)
        self.seen: Mapping[str, NDArray[np.int64]] = {}
        self.key: str | None = None
        self.rows = self.pairs = 0

    def _hold(self) -> _Held:
        side, batches = self.candidates, list[Features]()
        blocks: list[tuple[int, Callable[[int], str]]] = []
        numbers: dict[str, list[Floats]] = {name: [] for name in side.read}
        kept: list[pl.DataFrame] = []
        for block in side.blocks(self.meter):
            batches.append(side.encoder(block))
            for name, values in side.numbers(block).items():
                numbers[name].append(values)
            kept.append(pl.DataFrame(side.kept(block)))
            blocks.append((block.frame.height, block.name))
        if not batches:
            raise DataError(f"{side.table.label}: holds no candidates")
        joined = {name: np.concatenate(parts) for name, parts in numbers.items()}
        return _Held(_concatenated(batches), joined, pl.concat(kept), blocks)

    def leave_out(self, table: Table) -> None:
        """Leave out the pairs of a table, which has a column of the users and one of the candidates.

        Raises:
            UsageError: for a table without them.
        """
        sides = (self.users, self.candidates)
        keys = [next((name for name in side.keep if name in table.names), None) for side in sides]
        for side, key in zip(sides, keys, strict=True):
            if key is None:
                raise UsageError(
                    f"--exclude: {table.label} has none of the columns that are kept of the {side.option} "
                    f"({', '.join(side.keep)}); its columns: {', '.join(table.names)}"
                )
        user, item = (str(key) for key in keys)
        places = self.held.kept.select(pl.col(item).cast(pl.String).alias("item")).with_row_index("place")
        parts = []
        for rows in table.blocks([user, item]):
            pairs = rows.frame.select(
                pl.col(user).cast(pl.String).alias("user"), pl.col(item).cast(pl.String).alias("item")
            )
            parts.append(pairs.join(places, on="item").select("user", pl.col("place").cast(pl.Int64)))
        pairs = pl.concat(parts).unique() if parts else pl.DataFrame(schema={"user": pl.String, "place": pl.Int64})
        grouped = pairs.group_by("user").agg("place")
        self.seen = {name: np.array(each) for name, each in grouped.iter_rows() if name is not None}
        self.key = user

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows that are written, a frame for some users; at least one, which may be empty."""
        size = max(1, self.batch_rows // self.count)
        empty = True
        for block in self.users.blocks(self.meter):
            for start in range(0, block.frame.height, size):
                empty = False
                yield self._ranked(block.slice(start, size))
        if empty:
            columns = self.users.keep + self.candidates.keep
            made = dict.fromkeys([*self.schema.task_names, "score"], pl.Float64())
            kept = dict.fromkeys(columns, pl.String())
            yield pl.DataFrame(schema={**kept, "rank": pl.Int64(), **made})

    def _ranked(self, users: Rows) -> pl.DataFrame:
        """The best candidates of some users, one user after another."""
        batch, numbers = self.users.encoder(users), self.users.numbers(users)
        total, tasks = len(batch), self.schema.num_tasks
        best = np.full((total, self.k), -np.inf)
        place = np.zeros((total, self.k), np.int64)
        scores = np.zeros((total, self.k, tasks))
        step = max(1, self.batch_rows // total)
        for start in range(0, self.count, step):
            stop = min(start + step, self.count)
            found = self._scores(users, batch, start, stop)
            values = self._values(users, numbers, found, start, stop)
            self._leave_out(users, values, start, stop)
            # A stable sort of what was best and what is new: of equal scores, the first candidate comes first.
            merged = np.concatenate([best, values], 1)
            order = np.argsort(-merged, axis=1, kind="stable")[:, : self.k]
            best = np.take_along_axis(merged, order, 1)
            places = np.broadcast_to(np.arange(start, stop), values.shape)
            place = np.take_along_axis(np.concatenate([place, places], 1), order, 1)
            scores = np.take_along_axis(np.concatenate([scores, found], 1), order[:, :, None], 1)
        self.rows += total
        self.pairs += total * self.count
        # Places without a candidate (all others are left out) have the score -inf.
        rows, ranks = np.nonzero(best > -np.inf)
        chosen = place[rows, ranks]
        kept = [column.gather(rows) for column in self.users.kept(users)]
        kept += [self.held.kept[name].gather(chosen) for name in self.candidates.keep]
        made = [pl.Series(name, scores[rows, ranks, task]) for task, name in enumerate(self.schema.task_names)]
        return pl.DataFrame([*kept, pl.Series("rank", ranks + 1), *made, pl.Series("score", best[rows, ranks])])

    def _scores(self, users: Rows, batch: Features, start: int, stop: int) -> Floats:
        """(U, C, T) scores of users and the candidates from ``start`` to ``stop``."""
        pairs = _pairs(self.schema, (self.users, batch), (self.candidates, self.held.features), start, stop)
        logits = self.run.output(pairs).logits
        if not bool(torch.isfinite(logits).all()):
            user, item = divmod(int((~torch.isfinite(logits).all(1)).nonzero()[0]), stop - start)
            raise DataError(
                f"{users.name(user)}, with {self.held.name(start + item)}: a logit is not finite: a number of these "
                "rows is too large, or the model's weights are not finite (`test --run` tells)"
            )
        return probabilities(logits, self.schema.tasks).numpy().reshape(len(batch), stop - start, -1)

    def _values(self, users: Rows, numbers: Mapping[str, Floats], found: Floats, start: int, stop: int) -> Floats:
        """(U, C) values of the formula."""
        known: dict[str, Any] = {name: found[:, :, task] for task, name in enumerate(self.schema.task_names)}
        known |= {name: np.broadcast_to(values[:, None], found.shape[:2]) for name, values in numbers.items()}
        for name, values in self.held.numbers.items():
            known[name] = np.broadcast_to(values[start:stop], found.shape[:2])
        made = self.formula(known)
        wrong = np.argwhere(~np.isfinite(made))
        if len(wrong):
            user, item = (int(number) for number in wrong[0])
            shown = ", ".join(f"{name} = {known[name][user, item]:g}" for name in self.formula.names)
            raise DataError(
                f"{users.name(user)}, with {self.held.name(start + item)}: --score={self.formula.source} is "
                f"{made[user, item]} there ({shown})"
            )
        return made

    def _leave_out(self, users: Rows, values: Floats, start: int, stop: int) -> None:
        if self.key is None:
            return
        for row, name in enumerate(users.frame[self.key].cast(pl.String).to_list()):
            places = self.seen.get(name)
            if places is not None:
                values[row, places[(places >= start) & (places < stop)] - start] = -np.inf


# ---- pairs ----------------------------------------------------------------------------------------------------------


def _pairs(
    schema: DataSchema, users: tuple[_Side, Features], candidates: tuple[_Side, Features], start: int, stop: int
) -> Features:
    """A batch of every user with every candidate from ``start`` to ``stop``, the candidates of a user together."""
    rows, count = len(users[1]), stop - start
    ids = np.empty((rows, count, schema.num_fields), np.int64)
    dense = np.empty((rows, count, len(schema.dense_fields)), np.float32)
    multi: dict[int, MultiValued] = {}
    domain: Tensor | None = None
    order = {position: column for column, position in enumerate(schema.dense_fields)}
    # Rows of each side by pair.
    indices = np.repeat(np.arange(rows), count), np.tile(np.arange(start, stop), rows)
    for (side, batch), index in zip((users, candidates), indices, strict=True):
        first = side is users[0]
        cut = slice(None) if first else slice(start, stop)

        def spread(values: Tensor, cut: slice = cut, first: bool = first) -> NDArray[Any]:
            found: NDArray[Any] = values[cut].numpy()
            return found[:, None] if first else found[None]

        ids[:, :, side.positions] = spread(batch.ids)
        columns = [order[side.positions[local]] for local in side.schema.dense_fields]
        dense[:, :, columns] = spread(batch.dense)
        for local, many in batch.multi.items():
            multi[side.positions[local]] = _gathered(many, index)
        if batch.domain is not None:
            domain = batch.domain[torch.from_numpy(index)]
    return Features(
        ids=torch.from_numpy(ids.reshape(rows * count, -1)),
        multi=multi,
        dense=torch.from_numpy(dense.reshape(rows * count, -1)),
        domain=domain,
    )


def _gathered(many: MultiValued, rows: NDArray[np.int64]) -> MultiValued:
    """The values of some rows, in their order."""
    offsets = many.offsets.numpy()
    lengths = offsets[rows + 1] - offsets[rows]
    places = torch.from_numpy(ragged_positions(offsets[rows], lengths))
    made = torch.from_numpy(np.append(0, np.cumsum(lengths)))
    return MultiValued(many.values[places], made, None if many.weights is None else many.weights[places])


def _concatenated(batches: Sequence[Features]) -> Features:
    """Batches of one schema, one after another."""
    first = batches[0]
    multi = {}
    for position, many in first.multi.items():
        parts = [batch.multi[position] for batch in batches]
        lengths = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        weights = (
            None if many.weights is None else torch.cat([part.weights for part in parts if part.weights is not None])
        )
        multi[position] = MultiValued(torch.cat([part.values for part in parts]), offsets, weights)
    domains = [batch.domain for batch in batches if batch.domain is not None]
    return Features(
        ids=torch.cat([batch.ids for batch in batches]),
        multi=multi,
        dense=torch.cat([batch.dense for batch in batches]),
        domain=torch.cat(domains) if domains else None,
    )


# ---- the command ----------------------------------------------------------------------------------------------------


def best_candidates(
    run: LoadedRun,
    users: str,
    candidates: str,
    output: str,
    *,
    k: int,
    score: str | None = None,
    keep: Sequence[str] = (),
    exclude: str | None = None,
    spec: Path | None = None,
    batch_rows: int = BATCH_ROWS,
    overwrite: bool = False,
    meter: Meter = silent,
) -> Scored:
    """Write the ``k`` best candidates of each user, by a formula over the tasks.

    Users are read in blocks; the candidates are held in memory, encoded. Each field of the run is a column of one of
    the two tables; what belongs to a request (a device, an hour) is a column of the users.

    Args:
        run: the model. users, candidates: files. output: the file. k: how many of each user.
        score: a formula over tasks and number columns of either table; None: the only task.
        keep: columns that are passed on; empty: the first of either table. exclude: files of pairs that are left out,
            with the kept column of either table. spec, batch_rows, overwrite, meter: as :func:`score_files`.

    Returns:
        Rows: the users; and what was missing or unknown in each field.

    Raises:
        UsageError: for a wrong option, and a field that is in none of the tables or in both. DataError: for a row that
            cannot be read, or scored.
    """
    for name, value in (("k", k), ("batch_size", batch_rows)):
        if value < 1:
            raise UsageError(f"--{name}: expected at least 1; found {value}")
    check_output("output", output, overwrite=overwrite)
    names = run.model.schema.task_names
    if score is None and len(names) > 1:
        raise UsageError(f"--score is needed: by what are candidates ranked? Such as --score='{' * '.join(names[:2])}'")
    formula = parse_formula(f"`{names[0]}`" if score is None else score)
    reading = Reading() if spec is None else read_spec(spec)
    start = time.perf_counter()
    tables = {USERS: open_input(USERS, users, reading), CANDIDATES: open_input(CANDIDATES, candidates, reading)}
    _refuse_fields(run, tables)
    sides = {option: _Side(run, option, table, reading) for option, table in tables.items()}
    _assign(run, sides, keep, formula)
    ranker = _Ranker(run, sides[USERS], sides[CANDIDATES], formula, k, batch_rows, meter)
    if exclude is not None:
        ranker.leave_out(open_input("exclude", exclude, reading))
    with open_output(output) as written:
        for frame in ranker.frames():
            written.write(frame)
    counts = {**sides[USERS].encoder.counts, **sides[CANDIDATES].encoder.counts}
    found = Scored(ranker.rows, {spec.name: counts[spec.name] for spec in run.model.schema.fields})
    found.pairs, found.seconds = ranker.pairs, time.perf_counter() - start
    return found


def _refuse_fields(run: LoadedRun, tables: Mapping[str, Table]) -> None:
    known = [name for table in tables.values() for name in table.names]
    domain = run.vocabularies.domain_field
    needed = [spec.name for spec in run.model.schema.fields]
    needed += [domain] if domain is not None and run.model.reads_domain and domain not in needed else []
    for name in needed:
        if name not in known:
            raise UsageError(
                f"field {name!r} of the run is in neither table; {nearest(name, known)}; what belongs to the request "
                "is a column of the users"
            )
        if known.count(name) > 1:
            raise UsageError(f"field {name!r} of the run is in both tables: leave it out of one of them")


def _assign(run: LoadedRun, sides: Mapping[str, _Side], keep: Sequence[str], formula: Formula) -> None:
    """Which columns of each table are passed on, and read by the formula."""
    known = [name for side in sides.values() for name in side.table.names]
    tasks = run.model.schema.task_names
    formula.check([*tasks, *known], "task and no column")
    firsts = [side.table.names[0] for side in sides.values()]
    for name in keep or firsts:
        if name not in known:
            raise UsageError(f"--keep: neither table has a column {name!r}; {nearest(name, known)}")
        if known.count(name) > 1:
            raise UsageError(f"--keep: column {name!r} is in both tables: rename it in one of them, or leave it out")
        if name in (*tasks, "rank", "score"):
            raise UsageError(f"--keep: column {name!r} has the name of a column that is written; rename it")
    for side in sides.values():
        side.keep = [name for name in dict.fromkeys(keep or firsts) if name in side.table.names]
        side.read = [name for name in formula.names if name not in tasks and name in side.table.names]
    for name in formula.names:
        if name not in tasks and known.count(name) > 1:
            raise UsageError(f"--score: column {name!r} is in both tables: rename it in one of them")
