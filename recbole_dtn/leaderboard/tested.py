"""Differences between rows with the uncertainty of the test sample, from the test scores of a board's cells.

They are computed once, at the end of a run of the board, and kept in ``<board>.statistics.json``, each under a digest
of the runs that it is of, so that tables and pages are made from records and that file alone. Those whose runs have no
scores any more stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
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

__all__ = ["FolderOf", "statistics_of", "with_statistics"]

FolderOf = Callable[[RunRecord], Path | None]
"""The folder of a run, None where it is not known."""
SEED = 2020
DRAWS_EACH = 100
"""Draws for each difference: the least p, 2 / draws, must stay below .05 after Holm's correction."""
DIGITS = 8
NO_SCORES = "no test scores are stored (older records, or a large test split)"
OTHER_SCORES = "the stored test scores do not give the recorded metric"
OTHER_RUNS = "the stored statistics are of other runs"
OTHER_DATA = "its data are not those of the other rows"
ABOUT = ("drawn", "units", "test_rows")


class _MissingError(Exception):
    """Why a row has no statistics."""


@dataclass(frozen=True)
class _Wanted:
    """What is computed of the rows of one data set: pairs of rows, and of each row its rescored metrics.

    Attributes:
        rows: on the data that most of them are on. best: the comparator. pairs: differences to the comparator and
            contrasts, each once; none over several splits, whose test rows differ. runs: of a row, by ``id``.
        several: whether there are several splits.
    """

    rows: Sequence[BoardRow]
    best: BoardRow | None
    pairs: Sequence[tuple[BoardRow, BoardRow]]
    runs: Mapping[int, Runs]
    several: bool

    @classmethod
    def of(cls, rows: Sequence[BoardRow], runs: Sequence[Runs]) -> _Wanted:
        """What there is to compute of rows."""
        used, of_rows = of_one_source(rows), {id(row): of for row, of in zip(rows, runs, strict=True)}
        if any(len(row.splits) > 1 for row in used):
            return cls(used, None, [], of_rows, True)
        best, by_name = comparator(used), {row.name: row for row in used}
        pairs = [(row, best) for row in used if best is not None and row is not best]
        pairs += [(row, by_name[name]) for row in used for _, _, name in row.contrasts if name in by_name]
        once = {(id(row), id(other)): (row, other) for row, other in pairs}
        return cls(used, best, list(once.values()), of_rows, False)

    def key(self, *rows: BoardRow) -> str:
        """A digest of the runs of rows."""
        content = [
            [row.settings_digest, row.source_fingerprint, [
                [split.title, seed, run.run_id, run.data_fingerprint, run.test, run.valid_value]
                for (split, seed), run in self.runs[id(row)].items()
            ]]
            for row in rows
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def family(self) -> int:
        """Differences that are corrected together, at most."""
        tasks = max(len(row.tasks) for row in self.rows)
        return max(len(self.rows) - 1, sum(len(row.contrasts) for row in self.rows)) * tasks


def statistics_of(
    rows: Sequence[BoardRow], runs: Sequence[Runs], folder_of: FolderOf, known: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The statistics of one data set, as JSON has them; None where there are none.

    Args:
        rows: of one data set. runs: of each row. folder_of: where the test scores of a run are.
        known: earlier statistics, of which those of the same runs and number of draws are not computed again.
    """
    wanted = _Wanted.of(rows, runs)
    pairs, of_rows = _by_key(known, "pairs", "differences"), _by_key(known, "rows", "ece")
    reader = _Reader(folder_of, wanted)
    found_rows, found_pairs = [], []
    for row in wanted.rows:
        key = wanted.key(row)
        line = of_rows.get(key, {})
        if "chain" not in line:  # new, or of an earlier version, which stays where there are no scores
            again = reader.rescored(row)
            line = {**_named(row), "key": key, **again} if again or not line else line
        found_rows.append(line)
        for first, second in wanted.pairs:
            if first is row:
                line = pairs.get(wanted.key(first, second), {})
                if line.get("draws") != reader.number:  # new, or of another number of rows
                    again = _pair(first, second, wanted, reader)
                    line = again if "missing" not in again or not line else line
                found_pairs.append(line)
        reader.forget(row)
    if not wanted.pairs and not any("ece" in line for line in found_rows):
        return None
    source = reader.about or known or {}
    about = {name: source[name] for name in ABOUT if name in source}
    best = wanted.best
    named = {} if best is None else {"comparator": {**_named(best), "valid_metric": best.valid_metric}}
    # What is of other runs stays where these have no scores: records may come back.
    missing = {(line["settings_digest"], line["against"]) for line in found_pairs if "missing" in line}
    stay = [line for line in pairs.values() if (line["settings_digest"], line["against"]) in missing]
    unscored = {line["settings_digest"] for line in found_rows if "ece" not in line}
    rescored = [line for line in of_rows.values() if line["settings_digest"] in unscored]
    return {**named, "seed": SEED, **about, "rows": [*found_rows, *rescored], "pairs": [*found_pairs, *stay]}


def _by_key(known: Mapping[str, Any] | None, name: str, needed: str) -> dict[str, dict[str, Any]]:
    """The lines of earlier statistics that have a result, by the runs that they are of."""
    return {line["key"]: line for line in (known or {}).get(name, ()) if needed in line and "key" in line}


def _joined(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Maps of equal keys as one, the lists that they have inside behind each other.

    >>> _joined([{"a": {"b": [1]}}, {"a": {"b": [2]}}])
    {'a': {'b': [1, 2]}}
    """
    return {
        key: _joined([each[key] for each in found])
        if isinstance(first, Mapping)
        else [value for each in found for value in each[key]]
        for key, first in found[0].items()
    }


def _pair(row: BoardRow, other: BoardRow, wanted: _Wanted, reader: _Reader) -> dict[str, Any]:
    line = {**_named(row), "against": other.name, "key": wanted.key(row, other)}
    try:
        differences = _differences(row, reader.read(row), other, reader.read(other), reader)
    except _MissingError as reason:
        return {**line, "missing": str(reason)}
    return {**line, "draws": reader.number, "differences": differences}


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

    def __init__(self, folder_of: FolderOf, wanted: _Wanted) -> None:
        self.folder_of, self.wanted = folder_of, wanted
        self.number = max(LEAST_DRAWS, DRAWS_EACH * wanted.family)
        self.about: dict[str, Any] = {}
        self.test: TestRows | None = None
        self.draws: Draws | None = None
        self.units: Any = None
        self.scores: dict[int, Any] = {}
        self.drawn: dict[int, dict[Metric, _OfMetric]] = {}
        self.again = Counter(id(other) for _, other in wanted.pairs)
        """How often a row is still the second of a pair."""

    def forget(self, row: BoardRow) -> None:
        """The differences of a row to others are done; what no other needs is dropped."""
        for first, other in self.wanted.pairs:
            if first is row:
                self.again[id(other)] -= 1
        for known in [id(each) for each in self.wanted.rows]:
            if self.again[known] <= 0:
                self.scores.pop(known, None)
                self.drawn.pop(known, None)

    def rescored(self, row: BoardRow) -> dict[str, Any]:
        """The metrics of a row that are computed from its scores alone, by run; empty without scores."""
        if self.wanted.several:
            return self._rescored_by_run(row)
        try:
            scores, tasks = self._checked(row), row.settings.get("tasks", ())
        except _MissingError:
            return {}
        assert self.test is not None
        return {
            "ece": calibration_errors(tasks, scores, self.test),
            "chain": conditional_aucs(tasks, scores, self.test),
        }

    def _rescored_by_run(self, row: BoardRow) -> dict[str, Any]:
        """The same of runs that have test rows of their own."""
        tasks = row.settings.get("tasks", ())
        found: list[dict[str, Any]] = []
        for run in self.wanted.runs[id(row)].values():
            folder = self.folder_of(run)
            scores = None if folder is None else read_scores(folder, run.data_fingerprint)
            test = None if folder is None or scores is None else read_rows(folder, run.data_fingerprint)
            if scores is None or test is None or len(test.labels) != len(scores):
                return {}
            each = {"ece": calibration_errors(tasks, scores[None], test)}
            found.append({**each, "chain": conditional_aucs(tasks, scores[None], test)})
        return _joined(found)

    def _checked(self, row: BoardRow) -> Any:
        """The (S, N, T) scores of a row, which give its recorded metrics on all test rows.

        Raises:
            _MissingError: as :meth:`read`.
        """
        self.read(row)
        return self._scores(row)

    def _scores(self, row: BoardRow) -> Any:
        if id(row) not in self.scores:
            scores = []
            for run in self.wanted.runs[id(row)].values():
                folder = self.folder_of(run)
                found = None if folder is None else read_scores(folder, run.data_fingerprint)
                if folder is None or found is None or not self._labels(folder, run.data_fingerprint, len(found)):
                    raise _MissingError(NO_SCORES)
                scores.append(found)
            self.scores[id(row)] = np.stack(scores)
        return self.scores[id(row)]

    def read(self, row: BoardRow) -> dict[Metric, _OfMetric]:
        """The drawn metrics of a row.

        Raises:
            _MissingError: where a run has no scores, or others than those that were evaluated.
        """
        if id(row) not in self.drawn:
            try:
                self.drawn[id(row)] = self._read(row)
            except _MissingError as reason:
                raise _MissingError(f"{row.name}: {reason}") from None
        return self.drawn[id(row)]

    def _read(self, row: BoardRow) -> dict[Metric, _OfMetric]:
        scores, runs = self._scores(row), self.wanted.runs[id(row)]
        places = {unit: place for place, unit in enumerate(runs)}
        of_task = {}
        for place, task in enumerate(row.tasks):
            metric = compared_metric(row, task)
            if metric is not None and metric.name in DRAWABLE:
                lines, known = scores[:, :, place], row.values[metric]
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
    wanted = _Wanted.of(rows, runs)
    pairs = {line["key"]: line for line in (found or {}).get("pairs", ()) if "key" in line}
    of_rows = {line["key"]: line for line in (found or {}).get("rows", ()) if "key" in line}
    about = {name: found[name] for name in ABOUT if name in found} if found else {}
    used, none = {id(row) for row in wanted.rows}, NO_SCORES if found is None else OTHER_RUNS
    done = []
    for row in rows:
        if id(row) not in used:
            done.append(row if wanted.several else replace(row, untested=OTHER_DATA))
            continue
        lines = {id(other): pairs.get(wanted.key(row, other), {"missing": none})
                 for first, other in wanted.pairs if first is row}  # fmt: skip
        by_name = {other.name: lines[id(other)] for first, other in wanted.pairs if first is row}
        mine = lines.get(id(wanted.best), {})
        rescored = of_rows.get(wanted.key(row), {})
        of_runs = wanted.runs[id(row)]
        values = {**row.values, **_calibration(rescored, of_runs)}
        values |= {
            metric: found for metric, found in _of_chain(rescored, of_runs, "auc").items() if metric not in values
        }
        errors = {metric: summary(of.values()).mean for metric, of in _of_chain(rescored, of_runs, "error").items()}
        done.append(
            replace(
                row,
                tested=_tested(mine),
                untested=mine.get("missing", ""),
                tested_against={name: _tested(line) for name, line in by_name.items()},
                untested_against={name: line["missing"] for name, line in by_name.items() if "missing" in line},
                tested_on={**about, "draws": max(line.get("draws", 0) for line in lines.values())} if lines else about,
                values=values,
                errors={**errors, **row.errors},
                metrics={metric: row.metrics.get(metric) or summary(of.values()) for metric, of in values.items()},
            )
        )
    return done


def _calibration(line: Mapping[str, Any], runs: Runs) -> dict[Metric, dict[UnitKey, float | None]]:
    """The expected calibration errors that were computed from test scores, by run."""
    return {
        Metric("test", task, "ece"): dict(zip(runs, values, strict=True))
        for task, values in line.get("ece", {}).items()
    }


def _of_chain(line: Mapping[str, Any], runs: Runs, what: str) -> dict[Metric, dict[UnitKey, float | None]]:
    """The AUC after the task before or its error, by run, such as that of ``buy@click (ratio)``."""
    return {
        Metric("test", f"{name} ({way})", "auc"): dict(zip(runs, values[what], strict=True))
        for name, ways in line.get("chain", {}).items()
        for way, values in ways.items()
    }


def _tested(line: Mapping[str, Any]) -> dict[Metric, Tested]:
    """The differences of a stored line."""
    return {
        Metric("test", each["task"], each["metric"]): Tested(
            **{f"sample_{name}": each["sample"][name] for name in ("method", "error", "low", "high")},
            **{name: each["both"][name] for name in ("error", "low", "high", "p")},
        )
        for each in line.get("differences", [])
    }
