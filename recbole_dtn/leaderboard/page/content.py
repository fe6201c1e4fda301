"""What the page of a leaderboard shows, as plain values: made from rows and records and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_dtn.config.splits import SplitKey
from recbole_dtn.leaderboard.across import across, across_table, critical_groups
from recbole_dtn.leaderboard.compare import Compared, Comparison, compare
from recbole_dtn.leaderboard.costs import COSTS, cost_cells
from recbole_dtn.leaderboard.details import failure_table, warnings_of
from recbole_dtn.leaderboard.differences import ALL_TASKS, all_tasks_table, contrast_name, difference_notes, tables_of
from recbole_dtn.leaderboard.labels import SHOWN, metric_title, row_labels
from recbole_dtn.leaderboard.page.chosen import common_settings, own_settings
from recbole_dtn.leaderboard.page.tuning import tuning_content
from recbole_dtn.leaderboard.plan import RowTuning
from recbole_dtn.leaderboard.render import notes, shown_error, shown_tasks
from recbole_dtn.leaderboard.statistics import (
    BoardRow,
    Metric,
    Runs,
    UnitKey,
    corrected_t,
    more_is_better,
    paired_t,
    runs_of_rows,
    summary,
    unit_of,
)
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.record.record import RunRecord

__all__ = ["across_content", "board_content", "tunings_of"]

NORMAL = 1.959964
"""Half the width of a 95 % interval, in standard errors."""
TITLES = {**SHOWN, "gauc": "GAUC", "ne": "NE", "ece": "ECE", "pr_auc": "PR AUC", "rne": "RNE"}
SHOWN_COSTS = ("parameters_dense", "parameters_total", "samples_per_second")
"""Columns of costs that are shown at first."""
NOTHING = Stored()


def board_content(
    groups: Sequence[Sequence[BoardRow]], records: Sequence[RunRecord], stored: Stored = NOTHING
) -> list[dict[str, Any]]:
    """A map per data set: its tasks, metrics, rows with runs, settings, curves and gates, differences and notes.

    Args:
        groups: the rows of each data set. records: of their runs. stored: failures of cells and the serial pass.

    Numbers have six significant digits; what is undefined is null.
    """
    return [_dataset(rows, runs_of_rows(rows, records), stored) for rows in groups]


def _dataset(rows: Sequence[BoardRow], runs: Sequence[Runs], stored: Stored) -> dict[str, Any]:
    labels = row_labels(rows)
    found = compare(rows)
    common = common_settings([_first(of_row).settings for of_row in runs])
    metrics = _metrics(rows)
    return {
        "name": rows[0].dataset,
        "unit": unit_of(rows)[:-1],
        "tasks": list(shown_tasks(rows)),
        "task_titles": shown_tasks(rows),
        "metrics": metrics,
        "costs": [
            {"key": cost.key, "title": cost.title, "more": cost.more, "shown": cost.key in SHOWN_COSTS}
            for cost in COSTS
            if any(cost.of(row) for row in rows)
        ],
        "rows": [
            _row(row, label, of_row, metrics, common, found)
            for row, label, of_row in zip(rows, labels, runs, strict=True)
        ],
        "common": common,
        "differences": _differences(rows, labels),
        "tuning": tuning_content(tunings_of(rows, labels)),
        "notes": notes(rows),
        "warnings": warnings_of(rows, labels),
        "failures": failure_table(stored.failures_of(rows, rows[0].dataset)).cells,
        "measured_on": stored.measured_on,
        "versions": sorted({run.code_version for of_row in runs for run in of_row.values()}),
        "runs": sum(row.runs for row in rows),
    }


def across_content(rows: Sequence[BoardRow]) -> dict[str, Any] | None:
    """The rows over all data sets: the table, its notes, and what a plot of mean ranks needs; None where there is none.

    Args:
        rows: of all data sets.
    """
    found = across(rows)
    if found is None:
        return None
    table, told = across_table(found)
    ranks = sorted((each.rank, each.name) for each in found.standings if each.rank is not None)
    return {
        "columns": table.columns,
        "cells": table.cells,
        "notes": told,
        "ranks": ranks,
        "difference": found.difference,
        "groups": critical_groups(found) if ranks else [],
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
    tasks = shown_tasks(rows)
    known = dict.fromkeys(metric for row in rows for metric in row.metrics if metric.split == "test")
    found = [metric for task in tasks for metric in known if metric.task == task]
    return [
        {
            "key": _key(metric),
            "task": metric.task,
            "of": tasks[metric.task],
            "name": metric.name,
            "title": TITLES.get(metric.name, metric.name),
            "more": more_is_better(metric.name),
            "shown": metric.name in SHOWN,
        }
        for metric in found
    ]


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
        "proposed": row.proposed,
        "units": row.units,
        "valid": _short(valid),
        "valid_metric": row.valid_metric,
        "cost": {cost.key: _short(cost.of(row)) for cost in COSTS},
        "cost_text": dict(zip((cost.key for cost in COSTS), cost_cells(row, COSTS), strict=True)),
        "metrics": {_key(metric): _measured(row, metric) for metric in wanted if metric in row.metrics},
        "runs": [_run(row, key, record, metrics, several=several) for key, record in runs.items()],
        "gates": _gates(list(runs.values())),
        "settings": own_settings(row.model, _first(runs).settings, common),
        "warnings": list(dict.fromkeys(text for sentences in row.warnings for text in sentences)),
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
        "error": _short(shown_error(row, metric)),
    }


def _run(
    row: BoardRow, key: UnitKey, record: RunRecord, metrics: Sequence[Mapping[str, Any]], *, several: bool
) -> dict[str, Any]:
    split, seed = key
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
            metric["key"]: _short(row.values.get(Metric("test", metric["task"], metric["name"]), {}).get(key))
            for metric in metrics
        },
        "valid": _short(record.valid_value),
        "best_epoch": record.best_epoch,
        "epochs": record.epochs,
        "seconds": _short(record.wall_seconds.get("train")),
        "rate": _short(record.train_samples_per_second),
        "memory": record.peak_rss_bytes,
        "version": record.code_version,
        "at": [epoch.epoch for epoch in record.history],
        "curves": {name: [_short(value, 6) for value in values] for name, values in curves.items() if any(
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


def _differences(rows: Sequence[BoardRow], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The tables of differences: planned ones, and those to the comparator."""
    names = dict(zip(map(id, rows), labels, strict=True))
    return [_of_table(title, found, rows, names) for title, found in tables_of(rows)]


def _of_table(title: str, found: Compared, rows: Sequence[BoardRow], names: Mapping[int, str]) -> dict[str, Any]:
    lines = [
        {
            "row": contrast_name(each, names),
            "metric": metric_title(each.row, each.metric),
            "mean": _short(each.paired.mean),
            "told": found.significant(each),
            "relative": _short(each.relative),
            "training": _short(each.paired.error),
            "p_t": _short(each.paired.p),
            "p_wilcoxon": _short(each.wilcoxon),
            "sample": _short(None if each.tested is None else each.tested.sample_error),
            "low": _short(whole.low if (whole := each.whole(found.over)) else None),
            "high": _short(whole.high if whole else None),
            "p": _short(each.adjusted),
            "n": each.paired.n,
        }
        for each in found.differences
    ]
    together = None
    if isinstance(found, Comparison) and found.all_tasks:
        together = {"columns": ALL_TASKS, "lines": all_tasks_table(found, rows)}
    return {
        "title": title,
        "planned": not isinstance(found, Comparison),
        "over": found.over,
        "notes": difference_notes(found),
        "lines": lines,
        "all_tasks": together,
    }


def _first(runs: Runs) -> RunRecord:
    return next(iter(runs.values()))


def _key(metric: Metric) -> str:
    return f"{metric.task}/{metric.name}"


def _short(value: float | None, digits: int = 9) -> float | None:
    """A number with few digits, to keep the page small; nine, as a page shows four or five and rounds once more.

    >>> _short(0.1234567890123), _short(0.123456789, 6), _short(float("nan")), _short(None)
    (0.123456789, 0.123457, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")
