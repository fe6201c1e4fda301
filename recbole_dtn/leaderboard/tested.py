"""Differences to the comparator with the uncertainty of the test sample, from the test scores of a board's cells.

They are computed once, at the end of a run of the board, and kept in ``<board>.statistics.json`` under a digest of the
records that they are of, so that tables and pages are made from records and that file alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recbole_dtn.leaderboard.compare import comparator, compared_metric, of_every_seed, of_one_source
from recbole_dtn.leaderboard.rescored import calibration_errors, conditional_aucs
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, Runs, Tested, UnitKey, summary
from recbole_dtn.metric.crossed import DRAWABLE, Draws, Sample, drawn_values, of_sample, over_both, sample_error
from recbole_dtn.metric.paired import LEAST_DRAWS, Paired
from recbole_dtn.record.record import RunRecord
from recbole_dtn.record.scores import TestRows, read_rows, read_scores

__all__ = ["FolderOf", "statistics_key", "tested_rows", "with_statistics"]

FolderOf = Callable[[RunRecord], Path | None]
"""The folder of a run, None where it is not known."""
SEED = 2020
DRAWS_EACH = 100
"""Draws for each difference: the least p, 2 / draws, must stay below .05 after Holm's correction."""
DIGITS = 8
NO_SCORES = "no test scores are stored (older records, or a large test split)"
OTHER_SCORES = "the stored test scores do not give the recorded metric"


class _MissingError(Exception):
    """Why a row has no statistics."""


def statistics_key(rows: Sequence[BoardRow], runs: Sequence[Runs]) -> str:
    """A digest of all that the statistics of one data set depend on: its runs, and which row is compared with."""
    best = comparator(of_one_source(rows))
    content = [
        [row.settings_digest, row.source_fingerprint, [
            [split.title, seed, run.run_id, run.data_fingerprint, run.test, run.valid_value]
            for (split, seed), run in of_row.items()
        ]]
        for row, of_row in zip(rows, runs, strict=True)
    ]  # fmt: skip
    described: dict[str, Any] = {"compared_with": best and best.settings_digest, "rows": content}
    planned = [[row.name, *pair] for row in rows for pair in row.contrasts]
    if planned:
        described["contrasts"] = planned
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def tested_rows(rows: Sequence[BoardRow], runs: Sequence[Runs], folder_of: FolderOf) -> dict[str, Any] | None:
    """The statistics of one data set, as JSON has them; None where there is nothing to compare on one split.

    Args:
        rows: of one data set. runs: of each row. folder_of: where the test scores of a run are.
    """
    of_row = {id(row): of for row, of in zip(rows, runs, strict=True)}
    used = of_one_source(rows)
    best = comparator(used)
    if best is None or any(len(row.splits) > 1 for row in used):
        return None
    found: dict[str, Any] = {
        "key": statistics_key(rows, runs),
        "comparator": {"name": best.name, "settings_digest": best.settings_digest, "valid_metric": best.valid_metric},
    }
    others = [row for row in used if row is not best]
    reader = _Reader(folder_of, len(others) * len(best.tasks))
    try:
        theirs = reader.read(best, of_row[id(best)])
    except _MissingError as reason:
        return {**found, "rows": [{**_named(row), "missing": f"{best.name}: {reason}"} for row in others]}
    lines, planned = [], _Planned(used)
    planned.keep(best, theirs)
    for row in others:
        try:
            mine = reader.read(row, of_row[id(row)])
            lines.append({**_named(row), "differences": _differences(row, mine, best, theirs, reader)})
            planned.keep(row, mine)
        except _MissingError as reason:
            lines.append({**_named(row), "missing": str(reason)})
    contrasts = planned.lines(reader)
    known: dict[str, Any] = {"contrasts": contrasts} if contrasts else {}
    known |= {name: values for name, values in reader.rescored.items() if values}
    return {**found, "draws": reader.number, "seed": SEED, **reader.about, "rows": lines, **known}


class _Planned:
    """The rows of contrasts, kept while the others are read."""

    def __init__(self, rows: Sequence[BoardRow]) -> None:
        self.rows = rows
        self.names = {name for row in rows for _, other in row.contrasts for name in (row.name, other)}
        self.read: dict[str, tuple[BoardRow, dict[Metric, _OfMetric]]] = {}

    def keep(self, row: BoardRow, drawn: dict[Metric, _OfMetric]) -> None:
        if row.name in self.names:
            self.read[row.name] = row, drawn

    def lines(self, reader: _Reader) -> list[dict[str, Any]]:
        """A line for each contrast whose rows have scores."""
        return [
            {**_named(row), "against": other,
             "differences": _differences(row, self.read[row.name][1], *self.read[other], reader)}
            for row in self.rows
            for other in dict.fromkeys(other for _, other in row.contrasts)
            if row.name in self.read and other in self.read
        ]  # fmt: skip


def _named(row: BoardRow) -> dict[str, Any]:
    return {"name": row.name, "settings_digest": row.settings_digest}


@dataclass(frozen=True)
class _OfMetric:
    """One row and task: the place of each run among S, scores (S, N), values on the rows and every draw (S, 1 + draws),
    and the rows."""

    places: Mapping[UnitKey, int]
    scores: Any
    values: Any
    sample: Sample


class _Reader:
    """Reads the scores of rows, and computes their metrics on draws that all rows share."""

    def __init__(self, folder_of: FolderOf, comparisons: int) -> None:
        self.folder_of = folder_of
        self.number = max(LEAST_DRAWS, DRAWS_EACH * comparisons)
        self.about: dict[str, Any] = {}
        self.test: TestRows | None = None
        self.draws: Draws | None = None
        self.units: Any = None
        self.rescored: dict[str, dict[str, Any]] = {"conditional": {}, "ece": {}}
        """Values by run of each row, by the digest of its settings."""

    def read(self, row: BoardRow, runs: Runs) -> dict[Metric, _OfMetric]:
        """The drawn metrics of a row.

        Raises:
            _MissingError: where a run has no scores, or others than those that were evaluated.
        """
        scores = []
        for run in runs.values():
            folder = self.folder_of(run)
            found = None if folder is None else read_scores(folder, run.data_fingerprint)
            if folder is None or found is None or not self._labels(folder, run.data_fingerprint, len(found)):
                raise _MissingError(NO_SCORES)
            scores.append(found)
        places = {unit: place for place, unit in enumerate(runs)}
        assert self.test is not None
        for name, compute in (("conditional", conditional_aucs), ("ece", calibration_errors)):
            values = compute(row.settings.get("tasks", ()), np.stack(scores), self.test)
            if values:
                self.rescored[name][row.settings_digest] = values
        of_task = {}
        for place, task in enumerate(row.tasks):
            metric = compared_metric(row, task)
            if metric is not None and metric.name in DRAWABLE:
                lines, known = np.stack([found[:, place] for found in scores]), row.values[metric]
                of_task[metric] = self._drawn(metric, lines, place, places, [known.get(unit) for unit in runs])
        return of_task

    def _labels(self, folder: Path, fingerprint: str, rows: int) -> bool:
        """Whether the labels of the rows are there; they are read once."""
        if self.test is None:
            self.test = read_rows(folder, fingerprint)
            if self.test is None:
                return False
            group = self.test.group
            count = len(self.test.labels)
            self.units = np.arange(count) if group is None else np.unique(group, return_inverse=True)[1]
            number = int(self.units.max(initial=-1)) + 1
            self.draws = Draws(number, self.number, SEED)
            self.about = {"test_rows": count, "drawn": "users" if group is not None else "rows", "units": number}
        return len(self.test.labels) == rows

    def _drawn(
        self, metric: Metric, scores: Any, task: int, places: Mapping[UnitKey, int], recorded: Sequence[float | None]
    ) -> _OfMetric:
        assert self.test is not None
        assert self.draws is not None
        labels, weight = self.test.labels[:, task], self.test.weight
        seen = ~np.isnan(labels) if weight is None else ~np.isnan(labels) & (weight > 0)
        mass = None if weight is None else weight[seen].astype(np.float64)
        sample = Sample(labels[seen], self.units[seen], mass, grouped=self.test.group is not None)
        scores = scores[:, seen]
        values, drawn = drawn_values(metric.name, scores, sample, self.draws)
        for value, known in zip(values, recorded, strict=True):
            if known is not None and not abs(value - known) <= 1e-4 * max(1.0, abs(known)):
                raise _MissingError(OTHER_SCORES)
        return _OfMetric(places, scores, np.column_stack([values, drawn]), sample)


def _differences(
    row: BoardRow,
    mine: Mapping[Metric, _OfMetric],
    best: BoardRow,
    theirs: Mapping[Metric, _OfMetric],
    reader: _Reader,
) -> list[dict[str, Any]]:
    found = []
    for metric, one in mine.items():
        two = theirs.get(metric)
        if two is None:
            continue
        # A deterministic model's one run is paired with every seed of the other.
        lines = [of_every_seed(who, of.places, (row, best)) for who, of in ((row, one), (best, two))]
        shared = [unit for unit in lines[0] if unit in lines[1]]
        if not shared:
            continue
        first, second = ([of[unit] for unit in shared] for of in lines)
        both = over_both(one.values[first], two.values[second], SEED)
        delong = metric.name == "auc" and not one.sample.grouped
        sample = (
            sample_error(one.scores[first], two.scores[second], one.sample)
            if delong
            else of_sample(one.values[first], two.values[second])
        )
        found.append(
            {
                "task": metric.task,
                "metric": metric.name,
                "n": len(shared),
                "sample": {"method": "DeLong" if delong else "bootstrap", **_numbers(sample)},
                "both": _numbers(both),
            }
        )
    return found


def _numbers(found: Paired) -> dict[str, float | None]:
    named = {"difference": found.difference, "error": found.standard_error, "low": found.low, "high": found.high,
             "p": found.p}  # fmt: skip
    return {name: float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for name, value in named.items()}


def with_statistics(rows: Sequence[BoardRow], runs: Sequence[Runs], found: Mapping[str, Any] | None) -> list[BoardRow]:
    """The rows of one data set with what the statistics tell of each; those of other runs are left out and said.

    Args:
        rows: of one data set. runs: of each row. found: their statistics as they are stored, or None.
    """
    if found is None:
        return [replace(row, untested=NO_SCORES) for row in rows]
    if found.get("key") != statistics_key(rows, runs):
        return [replace(row, untested="the stored statistics are of other runs") for row in rows]
    by_digest = {line["settings_digest"]: line for line in found["rows"]}
    against: dict[str, dict[str, Any]] = {}
    for line in found.get("contrasts", ()):
        against.setdefault(line["settings_digest"], {})[line["against"]] = _tested(line)
    about = {name: found[name] for name in ("draws", "drawn", "units", "test_rows") if name in found}
    done = []
    for row, of_row in zip(rows, runs, strict=True):
        line = by_digest.get(row.settings_digest, {})
        values = {**_calibration(found, row, of_row), **row.values}
        done.append(
            replace(
                row, tested=_tested(line), tested_against=against.get(row.settings_digest, {}),
                untested=line.get("missing", ""), tested_on=about,
                values=values,
                metrics={metric: row.metrics.get(metric) or summary(of.values()) for metric, of in values.items()},
                conditional={
                    f"{name} ({way})": summary(values)
                    for name, ways in found.get("conditional", {}).get(row.settings_digest, {}).items()
                    for way, values in ways.items()
                },
            )
        )  # fmt: skip
    return done


def _calibration(found: Mapping[str, Any], row: BoardRow, runs: Runs) -> dict[Metric, dict[UnitKey, float | None]]:
    """The expected calibration errors that were computed from test scores, by run."""
    of_row = found.get("ece", {}).get(row.settings_digest, {})
    return {Metric("test", task, "ece"): dict(zip(runs, values, strict=True)) for task, values in of_row.items()}


def _tested(line: Mapping[str, Any]) -> dict[Metric, Tested]:
    """The differences of a stored line."""
    return {
        Metric("test", each["task"], each["metric"]): Tested(
            **{f"sample_{name}": each["sample"][name] for name in ("method", "error", "low", "high")},
            **{name: each["both"][name] for name in ("error", "low", "high", "p")},
        )
        for each in line.get("differences", [])
    }
