"""Score the rows of files with a finished run, in memory that does not grow with the rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recbole_dtn.config.formula import Formula, parse_formula
from recbole_dtn.data.ahead import ahead
from recbole_dtn.data.escape import unescape
from recbole_dtn.data.features import Features
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.errors import DataError, UsageError, nearest
from recbole_dtn.metric.tasks import Found
from recbole_dtn.model.base import ModelOutput
from recbole_dtn.schema import ABSENT, FIRST_TOKEN, UNKNOWN, DataSchema
from recbole_dtn.serving.labels import LabelReader
from recbole_dtn.serving.load import LoadedRun, probabilities
from recbole_dtn.serving.output import check_output, open_output
from recbole_dtn.serving.tables import ALL, Reading, Rows, Table, joined, numbers_of, open_input, open_sides, read_spec

__all__ = ["Encoder", "FieldCounts", "Scored", "evaluate_dataset", "needed_columns", "plain_column", "score_files"]

BATCH_ROWS = 8192
AHEAD = 2
"""Batches that are encoded while one is scored."""
ENCODED_CELLS = 1 << 21
"""Rows times fields that are encoded at a time, several batches of few fields: the hash table of a large vocabulary is
then read from memory once for all of their rows."""


@dataclass
class FieldCounts:
    """What was seen of a field: rows without a value; values (of a list, each one), and how many were unknown."""

    missing: int = 0
    values: int = 0
    unknown: int = 0


@dataclass
class Scored:
    """What :func:`score_files` did.

    Attributes:
        rows: scored. fields: counts by field. seconds: of reading, scoring and writing.
        pairs: of a user and a candidate, where these are what is scored; the rows are then users.
        metrics, factors: of the labels, where there were some. notes: sentences about what was left out.
    """

    rows: int = 0
    fields: dict[str, FieldCounts] = field(default_factory=dict)
    seconds: float = 0.0
    pairs: int = 0
    metrics: Found | None = None
    factors: Found = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        found: dict[str, Any] = {
            "rows": self.rows,
            **({"pairs": self.pairs} if self.pairs else {}),
            "seconds": round(self.seconds, 3),
            "fields": {name: vars(counts) for name, counts in self.fields.items()},
        }
        if self.metrics is not None:
            found["metrics"] = self.metrics
        if self.factors:
            found["factors"] = self.factors
        return {**found, **({"notes": self.notes} if self.notes else {})}


def needed_columns(run: LoadedRun, schema: DataSchema) -> dict[str, str]:
    """The columns that the fields of a schema are read from, each with what it is for."""
    wanted: dict[str, str] = {}
    for spec in schema.fields:
        kind = {"token": "token", "token_seq": "list of tokens", "float": "number"}[spec.kind]
        wanted[spec.name] = f"field of the run, a {kind}"
        if spec.weights is not None:
            wanted[spec.weights] = f"weights of field {spec.name!r}"
    return wanted


def plain_column(column: pl.Series, *, escaped: bool) -> pl.Series:
    """A column as the user had it, without the escapes of an atomic file (``escaped``)."""
    if not escaped or column.dtype != pl.String:
        return column
    hostile = column.filter(column.str.contains("%", literal=True).fill_null(False)).unique()
    if not len(hostile):
        return column
    return column.replace(hostile, pl.Series([unescape(text) for text in hostile], dtype=pl.String))


class Encoder:
    """Rows as batches, and counts of what their fields hold.

    Args:
        run: whose vocabularies are used. schema: of the fields to be read. reading: how columns are read.
        escaped: whether tokens are spelled as in atomic files.
    """

    def __init__(self, run: LoadedRun, schema: DataSchema, reading: Reading, *, escaped: bool) -> None:
        self.vocabularies, self.schema, self.reading, self.escaped = run.vocabularies, schema, reading, escaped
        self.counts = {spec.name: FieldCounts() for spec in schema.fields}
        # Rows of the joint table below a field's own tokens are those of absent and unknown; -2 where there is no id.
        offsets = [spec.offset if spec.single_id else -2 - FIRST_TOKEN for spec in schema.fields]
        self.offsets = np.array(offsets, np.int64)

    def __call__(self, rows: Rows) -> Features:
        """A batch without labels.

        Raises:
            DataError: for a number that is none, by its row; and a column of another kind.
        """
        frame = rows.frame
        changed = []
        for spec in self.schema.fields:
            if spec.kind == "float":
                numbers = numbers_of(rows, spec.name, "a number field")
                fill = self.reading.fill.get(spec.name)
                changed.append(numbers if fill is None else numbers.fill_null(fill))
                continue
            for name in (spec.name, spec.weights):
                separator = self.reading.separators.get(name or "", " ")
                if name is not None and separator != " " and frame[name].dtype == pl.String:
                    changed.append(frame[name].str.split(separator))
        try:
            features = self.vocabularies.encode(frame.with_columns(changed), self.schema, escaped=self.escaped)
        except UsageError as error:
            raise DataError(f"{rows.name(0)} and the {len(frame):,} rows from there: {error}") from None
        self._count(features)
        return features

    def _count(self, features: Features) -> None:
        rows, ids = len(features), features.ids.numpy()
        # Few ids are low: only these are looked at one by one.
        low = np.flatnonzero(ids < self.offsets + FIRST_TOKEN)
        field = low % max(ids.shape[1], 1)
        local = ids.ravel()[low] - self.offsets[field]
        absent = np.bincount(field[local == ABSENT], minlength=ids.shape[1]).tolist()
        unknown = np.bincount(field[local == UNKNOWN], minlength=ids.shape[1]).tolist()
        for position, spec in enumerate(self.schema.fields):
            counts = self.counts[spec.name]
            many = features.multi.get(position)
            if many is not None:
                counts.missing += int((many.offsets[1:] == many.offsets[:-1]).sum())
                counts.values += len(many.values)
                counts.unknown += int((many.values == spec.offset + UNKNOWN).sum())
            elif spec.continuous:
                gone = int(features.dense[:, self.schema.dense_fields.index(position)].isnan().sum())
                counts.missing += gone
                counts.values += rows - gone
            else:
                counts.missing += absent[position]
                counts.values += rows - absent[position]
                counts.unknown += 0 if spec.kind == "float" else unknown[position]


def _parts(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows.slice(start, size) for start in range(0, rows.frame.height, size))


def _evenly(blocks: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The same rows, ``size`` at a time (the last ones aside): small blocks are joined, large ones cut."""
    held: list[Rows] = []
    missing = size
    for block in blocks:
        start = 0
        while start < block.frame.height:
            part = block.slice(start, missing)
            held.append(part)
            start, missing = start + part.frame.height, missing - part.frame.height
            if not missing:
                yield joined(held)
                held, missing = [], size
    if held:
        yield joined(held)


class _Scorer:
    """Batches of a table, scored one after another.

    Args:
        run: the model. table: the rows. keep: columns that are passed on. labels: whether metrics are computed.
        logits: whether logits are written. formula: of the column ``score``.
    """

    def __init__(
        self,
        run: LoadedRun,
        table: Table,
        reading: Reading,
        *,
        keep: Sequence[str] = (),
        labels: bool = False,
        logits: bool = False,
        formula: Formula | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.run, self.table, self.reading = run, table, reading
        self.schema = run.model.schema
        self.keep = list(table.names) if list(keep) == [ALL] else list(dict.fromkeys(keep))
        self.with_logits, self.formula, self.batch_rows = logits, formula, batch_rows
        self.labels = None
        wanted = needed_columns(run, self.schema)
        domain = run.vocabularies.domain_field
        if domain is not None and (run.model.reads_domain or domain in table.names):
            wanted.setdefault(domain, "domain_field of the run")
        for name in self.keep:
            if name not in table.names:
                raise UsageError(f"--keep: {table.label} has no column {name!r}; {nearest(name, table.names)}")
        names = self.schema.task_names
        if formula is not None:
            formula.check([*names, *table.names], "task and no column")
            wanted |= {name: "read by --score" for name in formula.names if name not in names}
        table.check(wanted)
        if labels:
            self.labels = LabelReader(run.settings, self.schema.tasks, table.names, reading.tasks)
            wanted |= self.labels.columns
        self._refuse_names()
        self.wanted = list(dict.fromkeys([*wanted, *self.keep]))
        self.encoder = Encoder(run, self.schema, reading, escaped=table.escaped)
        self.metrics = None if self.labels is None else self.labels.metrics()
        batches = ENCODED_CELLS // (max(self.schema.num_fields, 1) * batch_rows)
        self.encoded_rows = max(batches, 1) * batch_rows
        self.rows = 0

    def _refuse_names(self) -> None:
        made = [*self.schema.task_names]
        made += [f"{name}_logit" for name in made] if self.with_logits else []
        made += ["score"] if self.formula is not None else []
        for name in made:
            if name in self.keep or made.count(name) > 1:
                raise UsageError(
                    f"--keep: column {name!r} has the name of a column that is written; leave it out, or rename it"
                )

    def frames(self, meter: Meter) -> Iterator[pl.DataFrame]:
        """The rows that are written, a frame for each batch; at least one, which may be empty."""
        with closing(ahead(self._encoded(meter), AHEAD)) as batches:
            for rows, features in batches:
                output = self._output(rows, features)
                if self.metrics is not None:
                    self.metrics.add_batch(features, output)
                yield self._frame(rows, output.logits)
        if not self.rows:
            frame = pl.DataFrame(schema=dict.fromkeys(self.wanted, pl.String))
            empty = torch.empty(0, self.schema.num_tasks)
            yield self._frame(Rows(frame, lambda row: self.table.label), empty)

    def _encoded(self, meter: Meter) -> Iterator[tuple[Rows, Features]]:
        with closing(self.table.blocks(self.wanted, meter)) as blocks:  # type: ignore[type-var]
            for part in _evenly(blocks, self.encoded_rows):
                encoded = self.encoder(part)
                for start, rows in enumerate(_parts(part, self.batch_rows)):
                    features = encoded.rows(start * self.batch_rows, self.batch_rows)
                    yield rows, features if self.labels is None else self.labels.add(rows, features)

    def _output(self, rows: Rows, features: Features) -> ModelOutput:
        output = self.run.output(features)
        wrong = ~torch.isfinite(output.logits)
        if bool(wrong.any()):
            row, task = (int(number) for number in wrong.nonzero()[0])
            raise DataError(
                f"{rows.name(row)}: the logit of task {self.schema.task_names[task]!r} is "
                f"{float(output.logits[row, task])}: a number of that row is too large, or the model's weights are not "
                "finite (`test --run` tells)"
            )
        return output

    def _frame(self, rows: Rows, logits: Tensor) -> pl.DataFrame:
        self.rows += len(logits)
        scores = probabilities(logits, self.schema.tasks).numpy()
        values = {name: scores[:, place] for place, name in enumerate(self.schema.task_names)}
        made = [pl.Series(name, column) for name, column in values.items()]
        if self.with_logits:
            own = logits.double().numpy()
            made += [pl.Series(f"{name}_logit", own[:, place]) for place, name in enumerate(values)]
        if self.formula is not None:
            made.append(pl.Series("score", self._formula(self.formula, values, rows)))
        return pl.DataFrame(
            [*(plain_column(rows.frame[name], escaped=self.table.escaped) for name in self.keep), *made]
        )

    def _formula(self, formula: Formula, scores: Mapping[str, np.ndarray[Any, Any]], rows: Rows) -> Any:
        values = dict(scores)
        for name in formula.names:
            if name not in values:
                values[name] = np.array(numbers_of(rows, name, "read by --score").to_numpy(), np.float64)
        found = formula(values)
        wrong = np.flatnonzero(~np.isfinite(found))
        if len(wrong):
            row = int(wrong[0])
            shown = ", ".join(f"{name} = {values[name][row]:g}" for name in formula.names)
            raise DataError(f"{rows.name(row)}: --score={formula.source} is {found[row]} there ({shown})")
        return found

    def found(self) -> Scored:
        """What was seen so far."""
        made = Scored(self.rows, self.encoder.counts)
        if self.metrics is not None and self.labels is not None:
            made.metrics, made.factors = self.metrics.compute(), self.metrics.compute_factors()
            made.notes = self.labels.left_out()
        return made


def score_files(
    run: LoadedRun,
    input: str,
    output: str,
    *,
    keep: Sequence[str] = (),
    labels: bool = False,
    logits: bool = False,
    score: str | None = None,
    spec: Path | None = None,
    join: str | None = None,
    batch_rows: int = BATCH_ROWS,
    overwrite: bool = False,
    meter: Meter = silent,
) -> Scored:
    """Write a row of scores for every row of files, in their order.

    Args:
        run: the model. input: files or patterns with commas between, or ``-``. output: the file, or ``-``.
        keep: columns that are passed on; ``["*"]``: all. labels: compute the run's metrics from the rows' labels.
        logits: write logits beside the scores. score: a formula over the tasks, the column ``score``.
        spec: of ``preprocess table``; how text, lists and missing numbers are read. join: files of side tables.
        batch_rows: scored at a time. overwrite: replace the output. meter: gets the progress of reading.

    Returns:
        Rows, what was missing or unknown in each field, and the metrics.

    Raises:
        UsageError: for a wrong option or a missing column. DataError: for a row that cannot be read, or scored.
    """
    if batch_rows < 1:
        raise UsageError(f"--batch_size: expected at least 1; found {batch_rows}")
    check_output("output", output, overwrite=overwrite)
    formula = None if score is None else parse_formula(score)
    reading = Reading() if spec is None else read_spec(spec)
    start = time.perf_counter()
    table = open_sides(open_input("input", input, reading), join, reading)
    scorer = _Scorer(
        run, table, reading, keep=keep, labels=labels, logits=logits, formula=formula, batch_rows=batch_rows
    )
    with open_output(output) as written:
        for frame in scorer.frames(meter):
            written.write(frame)
    found = scorer.found()
    found.seconds = time.perf_counter() - start
    return found


def evaluate_dataset(run: LoadedRun, dataset: str, *, meter: Meter = silent) -> Scored:
    """Metrics of a run on all rows of another data set of the same layout (of files in parts, its test part).

    Raises:
        UsageError, DataError: for files that are not there, or lack columns.
    """
    start = time.perf_counter()
    folder = Path(run.settings.data_path) / dataset
    files = [folder / f"{folder.name}.inter", folder / f"{folder.name}.test.inter"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise DataError(f"--dataset={dataset}: expected {files[0]} or {files[1].name} there; neither is there")
    scorer = _Scorer(run, open_input("dataset", str(file), Reading()), Reading(), labels=True)
    for _ in scorer.frames(meter):
        pass
    found = scorer.found()
    found.seconds = time.perf_counter() - start
    return found
