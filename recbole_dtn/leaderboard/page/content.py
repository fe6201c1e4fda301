"""What the page of a leaderboard shows, as plain values: made from rows and records and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recbole_dtn.config.splits import SplitKey
from recbole_dtn.leaderboard.compare import CLAIMS_NEED, COMPARED, Comparison, compare
from recbole_dtn.leaderboard.details import warnings_of
from recbole_dtn.leaderboard.labels import row_labels
from recbole_dtn.leaderboard.page.chosen import common_settings, own_settings
from recbole_dtn.leaderboard.page.tuning import tuning_content
from recbole_dtn.leaderboard.plan import RowTuning
from recbole_dtn.leaderboard.render import PARTS, SHOWN, notes
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, UnitKey, corrected_t, paired_t, summary
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import METRICS

__all__ = ["Runs", "board_content", "runs_of_rows", "tunings_of"]

DIGITS = 6
NORMAL = 1.959964
"""Half the width of a 95 % interval, in standard errors."""
ROW_KEY = tuple[str, str, str, str]
Runs = Mapping[UnitKey, RunRecord]
"""The runs of one row by split and seed."""
TITLES = {**SHOWN, "gauc": "GAUC", "ne": "NE", "ece": "ECE", "pr_auc": "PR AUC", "rne": "RNE"}
COSTS = (
    ("total", "parameters", False),
    ("dense", "dense parameters", False),
    ("rate", "training samples/s", True),
    ("seconds", "seconds of training", False),
)
"""Key, title, and whether more is better."""


def runs_of_rows(rows: Sequence[BoardRow], records: Iterable[RunRecord]) -> list[Runs]:
    """The runs of each row, in order; of two records of one split and seed the later one, as in the table."""
    found: dict[ROW_KEY, dict[UnitKey, RunRecord]] = {}
    for record in records:
        source = record.source_fingerprint or record.data_fingerprint
        key = (record.dataset, record.model, record.settings_digest, source)
        found.setdefault(key, {})[SplitKey.of(record), record.seed] = record
    keys = [(row.dataset, row.model, row.settings_digest, row.source_fingerprint) for row in rows]
    return [dict(sorted(found[key].items(), key=lambda item: (item[0][0].order, item[0][1]))) for key in keys]


def board_content(groups: Sequence[Sequence[BoardRow]], records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """A map per data set: its tasks, metrics, rows with runs, settings, curves and gates, differences and notes.

    Args:
        groups: the rows of each data set. records: of their runs.

    Numbers have six significant digits; what is undefined is null.
    """
    return [_dataset(rows, runs_of_rows(rows, records)) for rows in groups]


def _dataset(rows: Sequence[BoardRow], runs: Sequence[Runs]) -> dict[str, Any]:
    labels = row_labels(rows)
    found = compare(rows)
    common = common_settings([_first(of_row).settings for of_row in runs])
    metrics = _metrics(rows)
    return {
        "name": rows[0].dataset,
        "unit": "split" if any(len(row.splits) > 1 for row in rows) else "seed",
        "tasks": list(dict.fromkeys(task for row in rows for task in row.tasks)),
        "metrics": metrics,
        "costs": [
            {"key": key, "title": title, "more": more}
            for key, title, more in COSTS
            if any(_costs(row, of_row)[key] for row, of_row in zip(rows, runs, strict=True))
        ],
        "rows": [
            _row(row, label, of_row, metrics, common, found)
            for row, label, of_row in zip(rows, labels, runs, strict=True)
        ],
        "common": common,
        "differences": _differences(found, rows, labels),
        "tuning": tuning_content(tunings_of(rows, labels)),
        "notes": notes(rows),
        "warnings": warnings_of(rows, labels),
        "versions": sorted({run.code_version for of_row in runs for run in of_row.values()}),
        "runs": sum(row.runs for row in rows),
    }


def tunings_of(rows: Sequence[BoardRow], labels: Sequence[str]) -> list[tuple[str, RowTuning]]:
    """The rows that were tuned, under their labels."""
    return [
        (label, row.chosen.tuning)
        for label, row in zip(labels, rows, strict=True)
        if row.chosen is not None and row.chosen.tuning is not None
    ]


def _metrics(rows: Sequence[BoardRow]) -> list[dict[str, Any]]:
    """The test metrics, by task, in the order of the records."""
    tasks = dict.fromkeys(task for row in rows for task in row.tasks)
    known = dict.fromkeys(metric for row in rows for metric in row.metrics if metric.split == "test")
    found = [metric for task in tasks for metric in known if metric.task == task]
    return [
        {
            "key": _key(metric),
            "task": metric.task,
            "name": metric.name,
            "title": TITLES.get(metric.name, metric.name),
            "more": _more_is_better(metric.name),
            "shown": metric.name in SHOWN,
        }
        for metric in found
    ]


def _more_is_better(name: str) -> bool | None:
    """As the metric declares; None where neither end is best, or the metric is one of a plug-in that is not loaded."""
    if name not in METRICS.names():
        return None
    found: bool | None = METRICS.attributes(name).get("higher_is_better")
    return found


def _row(
    row: BoardRow,
    label: str,
    runs: Runs,
    metrics: Sequence[Mapping[str, Any]],
    common: Sequence[tuple[str, str, str | None]],
    found: Comparison | None,
) -> dict[str, Any]:
    several = len(row.splits) > 1
    valid = statistics.fmean(row.valid_values.values()) if row.valid_values else None
    wanted = [Metric("test", metric["task"], metric["name"]) for metric in metrics]
    return {
        "label": label,
        "model": row.model,
        "digest": row.settings_digest,
        "best": found is not None and found.best is row,
        "units": row.units,
        "valid": _short(valid),
        "valid_metric": row.valid_metric,
        "parameters": {part: row.parameters.get(part) for part in PARTS},
        "cost": _costs(row, runs),
        "metrics": {_key(metric): _measured(row, metric) for metric in wanted if metric in row.metrics},
        "runs": [_run(key, record, metrics, several=several) for key, record in runs.items()],
        "gates": _gates(list(runs.values())),
        "settings": own_settings(row.model, _first(runs).settings, common),
        "warnings": list(dict.fromkeys(text for sentences in row.warnings for text in sentences)),
    }


def _costs(row: BoardRow, runs: Runs) -> dict[str, float | int | None]:
    seconds = [record.wall_seconds["train"] for record in runs.values() if record.wall_seconds.get("train")]
    return {
        "total": row.parameters.get("total"),
        "dense": row.parameters.get("dense"),
        "rate": _short(row.samples_per_second),
        "seconds": _short(statistics.median(seconds)) if seconds else None,
    }


def _measured(row: BoardRow, metric: Metric) -> dict[str, Any]:
    """Mean and spread over seeds or splits, the 95 % interval of the mean, and the standard error of the test rows."""
    values, several = row.values[metric], len(row.splits) > 1
    by_unit: dict[SplitKey | int, list[float | None]] = {}
    for (split, seed), value in values.items():
        by_unit.setdefault(split if several else seed, []).append(value)
    means = [mean for mean in (summary(of_unit).mean for of_unit in by_unit.values()) if mean is not None]
    corrected = several and row.test_is_drawn
    paired = corrected_t(means, row.train_rows, row.test_rows) if corrected else paired_t(means)
    found = row.metrics[metric]
    error = row.errors.get(metric)
    return {
        "mean": _short(found.mean),
        "sd": _short(found.sd),
        "n": found.n,
        "low": _short(paired.low),
        "high": _short(paired.high),
        "sample": _short(None if error is None else NORMAL * error),
    }


def _run(key: UnitKey, record: RunRecord, metrics: Sequence[Mapping[str, Any]], *, several: bool) -> dict[str, Any]:
    split, seed = key
    test = record.test or {}
    curves: dict[str, list[float | None]] = {
        "loss": [epoch.loss for epoch in record.history],
        "selected": [epoch.selected for epoch in record.history],
    }
    for metric in metrics:
        if metric["shown"]:
            per_epoch = [(epoch.valid or {}).get(metric["task"], {}).get(metric["name"]) for epoch in record.history]
            curves[metric["key"]] = per_epoch
    return {
        "title": f"{split.title}, seed {seed}" if several else f"seed {seed}",
        "id": record.run_id,
        "values": {
            metric["key"]: _short(test.get(metric["task"], {}).get(metric["name"])) for metric in metrics
        },
        "valid": _short(record.valid_value),
        "best_epoch": record.best_epoch,
        "epochs": record.epochs,
        "seconds": _short(record.wall_seconds.get("train")),
        "rate": _short(record.train_samples_per_second),
        "memory": record.peak_rss_bytes,
        "version": record.code_version,
        "at": [epoch.epoch for epoch in record.history],
        "curves": {name: [_short(value) for value in values] for name, values in curves.items() if any(
            value is not None for value in values)},
    }  # fmt: skip


def _gates(records: Sequence[RunRecord]) -> dict[str, dict[str, float | None]]:
    """Mean weight over the runs, by task and module."""
    found: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for task, weights in record.gate_weights.items():
            for module, weight in weights.items():
                found.setdefault(task, {}).setdefault(module, []).append(weight)
    return {
        task: {module: _short(statistics.fmean(values)) for module, values in weights.items()}
        for task, weights in found.items()
    }


def _differences(found: Comparison | None, rows: Sequence[BoardRow], labels: Sequence[str]) -> dict[str, Any] | None:
    if found is None:
        return None
    names = dict(zip(map(id, rows), labels, strict=True))
    lines = [
        {
            "row": names[id(each.row)],
            "task": each.metric.task,
            "metric": TITLES.get(each.metric.name, each.metric.name),
            "mean": _short(each.paired.mean),
            "low": _short(each.paired.low),
            "high": _short(each.paired.high),
            "p": _short(each.adjusted),
            "n": each.paired.n,
        }
        for each in found.differences
    ]
    return {
        "best": names[id(found.best)],
        "over": found.over,
        "claims": not found.descriptive,
        "needed": CLAIMS_NEED,
        "compared": list(COMPARED),
        "lines": lines,
    }


def _first(runs: Runs) -> RunRecord:
    return next(iter(runs.values()))


def _key(metric: Metric) -> str:
    return f"{metric.task}/{metric.name}"


def _short(value: float | None) -> float | None:
    """Six significant digits; None for what JSON has no number for.

    >>> _short(0.123456789), _short(float("nan")), _short(None)
    (0.123457, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")
