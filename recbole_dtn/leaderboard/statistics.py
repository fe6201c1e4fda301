"""Mean and spread over seeds, from run records and nothing else."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recbole_dtn.config.metrics import error_name
from recbole_dtn.record.record import RunRecord

__all__ = ["BoardRow", "Metric", "Summary", "pos_weights", "summarise", "summary"]


@dataclass(frozen=True, order=True)
class Metric:
    """One measured number: ``split`` is ``valid`` or ``test``."""

    split: str
    task: str
    name: str


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) over ``n`` seeds whose value is defined; null where it is not."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class BoardRow:
    """One line of a leaderboard: a model with one choice of settings on one data set, over its seeds.

    Attributes:
        metrics: a summary per measured number, in the tasks' order.
        parameters: embedding, codebook, dense and their total.
        samples_per_second: median over the seeds, of runs with the most frequent threads, compile mode and devices in
            the leaderboard.
        pos_weights: the tasks whose pos_weight is not 1.
        selected_on_test: whether the validation rows were rows of the test set.
        errors: mean over the seeds of the standard error that the sample of rows gives a measured number; those of
            metrics that report one. It is beside the spread over seeds, not in it.
        best_epochs, epochs: of each seed: the best epoch on validation, and how many there were.
        positives: split -> task -> (positive rows, observed rows); empty where no record has them.
        warnings: the sentences of each seed's run.
    """

    dataset: str
    model: str
    settings_digest: str
    data_fingerprint: str
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    metrics: Mapping[Metric, Summary]
    parameters: Mapping[str, int]
    samples_per_second: float | None
    pos_weights: Mapping[str, float]
    selected_on_test: bool
    errors: Mapping[Metric, float | None] = field(default_factory=dict)
    best_epochs: tuple[int | None, ...] = ()
    epochs: tuple[int, ...] = ()
    positives: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    warnings: tuple[tuple[str, ...], ...] = ()


def summary(values: Iterable[float | None]) -> Summary:
    """Mean and standard deviation of the defined values; one value has no spread.

    >>> summary([1.0, 3.0, None])
    Summary(mean=2.0, sd=1.4142135623730951, n=2)
    >>> summary([0.5]), summary([None])
    (Summary(mean=0.5, sd=None, n=1), Summary(mean=None, sd=None, n=0))
    """
    defined = [value for value in values if value is not None]
    return Summary(
        mean=statistics.fmean(defined) if defined else None,
        sd=statistics.stdev(defined) if len(defined) > 1 else None,
        n=len(defined),
    )


def pos_weights(record: RunRecord) -> dict[str, float]:
    """The tasks of a run whose positive rows were weighted."""
    weights = {task["name"]: float(task.get("pos_weight", 1.0)) for task in record.settings.get("tasks", [])}
    return {name: weight for name, weight in weights.items() if weight != 1.0}


def summarise(records: Iterable[RunRecord]) -> list[BoardRow]:
    """Rows of a leaderboard, in the order in which data sets, and within them models, first appear.

    Runs are put together only when model, settings and data agree; two records of one seed are one run made twice,
    and the later one counts.
    """
    groups: dict[tuple[str, str, str, str], dict[int, RunRecord]] = {}
    for record in records:
        row = (record.dataset, record.model, record.settings_digest, record.data_fingerprint)
        # By seed: a later record of the same seed replaces the earlier one.
        groups.setdefault(row, {})[record.seed] = record
    # Speeds compare only between runs of equal threads, devices and compilation: those of the majority.
    usual = Counter(_ran_as(run) for seeds in groups.values() for run in seeds.values()).most_common(1)
    ran_as = usual[0][0] if usual else ()
    rows = [_row([seeds[seed] for seed in sorted(seeds)], ran_as) for seeds in groups.values()]
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    return sorted(rows, key=lambda row: (datasets.index(row.dataset), models.index(row.model)))


def _ran_as(run: RunRecord) -> tuple[Any, ...]:
    """The settings that change a run's speed but not its result."""
    return tuple(str(run.settings.get(name)) for name in ("accelerator", "devices", "threads", "compile", "profile"))


def _row(runs: Sequence[RunRecord], ran_as: tuple[Any, ...]) -> BoardRow:
    first = runs[0]
    measured: dict[Metric, list[float | None]] = {}
    for run in runs:
        for split, tasks in (("valid", run.valid), ("test", run.test)):
            for task, values in (tasks or {}).items():
                for name, value in values.items():
                    measured.setdefault(Metric(split, task, name), []).append(value)
    rates = [run.train_samples_per_second for run in runs if _ran_as(run) == ran_as and run.train_samples_per_second]
    # Not metrics, so not among those that are averaged, shown and compared.
    errors = {
        metric: summary(measured.pop(error)).mean
        for metric in list(measured)
        if (error := replace(metric, name=error_name(metric.name))) in measured
    }
    return BoardRow(
        dataset=first.dataset,
        model=first.model,
        settings_digest=first.settings_digest,
        data_fingerprint=first.data_fingerprint,
        seeds=tuple(run.seed for run in runs),
        tasks=tuple(task.name for task in first.tasks),
        metrics={metric: summary(values) for metric, values in measured.items()},
        parameters={**first.parameters, "total": sum(first.parameters.values())},
        samples_per_second=statistics.median(rates) if rates else None,
        pos_weights=pos_weights(first),
        selected_on_test=any(run.selected_on_test for run in runs),
        errors=errors,
        best_epochs=tuple(run.best_epoch for run in runs),
        epochs=tuple(run.epochs for run in runs),
        positives=next((run.positives for run in runs if run.positives), {}),
        warnings=tuple(tuple(run.warnings) for run in runs),
    )
