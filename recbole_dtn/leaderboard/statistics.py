"""Mean and spread over seeds or splits, and paired differences, from run records and nothing else."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from recbole_dtn.config.metrics import error_name
from recbole_dtn.config.splits import TEST_IS_DRAWN, SplitKey
from recbole_dtn.leaderboard.design import NO_DESIGN, Design
from recbole_dtn.leaderboard.plan import ChosenRow
from recbole_dtn.record.constant import worse_than_constant
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import METRICS

__all__ = [
    "REACH",
    "BoardRow",
    "Metric",
    "Paired",
    "Runs",
    "Summary",
    "Tested",
    "UnitKey",
    "by_dataset",
    "corrected_t",
    "more_is_better",
    "paired_t",
    "pos_weights",
    "row_keys",
    "runs_of_rows",
    "summarise",
    "summary",
    "unit_of",
    "usual_source",
    "wilcoxon_p",
    "with_reach",
]

UnitKey = tuple[SplitKey, int]
"""Split and seed of a run: what pairs the runs of two models."""
Runs = Mapping[UnitKey, RunRecord]
"""The runs of one row by split and seed."""
CONFIDENCE = 0.95
REACH = "reach"
"""The metric of :func:`with_reach`."""


@dataclass(frozen=True, order=True)
class Metric:
    """One measured number: ``split`` is ``valid`` or ``test``."""

    split: str
    task: str
    name: str


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) over ``n`` seeds or splits whose value is defined; else null."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class Tested:
    """What the sample of test rows tells of a difference to the comparator; null where undefined.

    Attributes:
        sample_error, sample_low, sample_high: standard error and 95 % interval over the test sample alone, by
            ``sample_method``: ``bootstrap`` of users, or ``DeLong`` where there are none.
        error, low, high, p: of a bootstrap over seeds x users.
    """

    __test__ = False  # no class of tests

    sample_method: str
    sample_error: float | None
    sample_low: float | None
    sample_high: float | None
    error: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class BoardRow:
    """One line of a leaderboard: a model with one choice of settings on one data set, over its seeds and splits.

    Attributes:
        data_fingerprint: of the encoded data; over several splits that of the files and settings that they share.
        seeds: in ascending order, each once.
        metrics: a summary per measured number, in the tasks' order.
        parameters: embedding, codebook, dense and their total.
        samples_per_second: median over the seeds, of runs with the most frequent threads, compile mode and devices in
            the leaderboard; those beside which others ran do not count. train_seconds: likewise.
        spent_seconds: of all runs together, whatever ran beside them.
        pos_weights: the tasks whose pos_weight is not 1.
        selected_on_test: whether the validation rows were rows of the test set.
        source_fingerprint: equal for rows of one data set, whatever their splits.
        splits: in order. runs: number of runs.
        values: every measured number by split and seed. valid_values: of ``valid_metric``, which selected the epoch.
        train_rows, test_rows: their means over the runs; 0 where the records do not say.
        test_is_drawn: whether the splits have test rows of their own.
        errors: mean over the seeds of the standard error that the sample of rows gives a measured number; those of
            metrics that report one. It is beside the spread over seeds, not in it.
        best_epochs, epochs: of each seed: the best epoch on validation, and how many there were.
        positives: of each split of the data, part -> task -> (positive rows, observed rows); of those whose records
            have them.
        warnings: the sentences of each run.
        name: of the row; the model's where the leaderboard gives none.
        worse: tasks whose log loss is above that of a constant, by split and seed, of the runs that have any.
        proposed: whether it is one that is to be compared with the baselines, and no baseline itself.
        contrasts: planned comparisons of this row: place in the file, title, and the row that it is compared with.
            exploratory: whether they were chosen after results were known. codes: states of the code that made the
            runs; an empty one for runs whose records do not say.
        tested: the uncertainty of the test sample of differences to the comparator; tested_against: of those to the
            other rows of contrasts, by their names. untested, untested_against: why there is none.
        tested_on: ``draws``, what is ``drawn`` (users or rows), their number ``units``, and ``test_rows``.
        speed: of a serial pass, by column; see :mod:`~recbole_dtn.leaderboard.speed`.
        trials: of tuning, where it is known.
        spaces: of each task the task on whose positive rows alone it is observed; empty where none is.
        factors: conditional probabilities that the model predicts beside its tasks, such as ``buy@click``.
        settings: of its first run. chosen: its matched widths and its tuning, where the leaderboard has a plan.
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
    source_fingerprint: str = ""
    splits: tuple[SplitKey, ...] = ()
    runs: int = 0
    values: Mapping[Metric, Mapping[UnitKey, float | None]] = field(default_factory=dict)
    valid_metric: str = ""
    valid_values: Mapping[UnitKey, float] = field(default_factory=dict)
    train_rows: float = 0.0
    test_rows: float = 0.0
    test_is_drawn: bool = False
    errors: Mapping[Metric, float | None] = field(default_factory=dict)
    best_epochs: tuple[int | None, ...] = ()
    epochs: tuple[int, ...] = ()
    positives: tuple[Mapping[str, Mapping[str, tuple[int, int]]], ...] = ()
    warnings: tuple[tuple[str, ...], ...] = ()
    name: str = ""
    worse: Mapping[UnitKey, tuple[str, ...]] = field(default_factory=dict)
    proposed: bool = False
    contrasts: tuple[tuple[int, str, str], ...] = ()
    exploratory: bool = False
    codes: tuple[str, ...] = ()
    tested: Mapping[Metric, Tested] = field(default_factory=dict)
    tested_against: Mapping[str, Mapping[Metric, Tested]] = field(default_factory=dict)
    untested_against: Mapping[str, str] = field(default_factory=dict)
    untested: str = ""
    tested_on: Mapping[str, Any] = field(default_factory=dict)
    speed: Mapping[str, float | None] = field(default_factory=dict)
    train_seconds: float | None = None
    spent_seconds: float = 0.0
    trials: int | None = None
    spaces: Mapping[str, str] = field(default_factory=dict)
    factors: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    chosen: ChosenRow | None = None

    def title_of(self, task: str) -> str:
        """A task with the rows that it is about, where these differ: ``buy@click``, ``click@all``."""
        return f"{task}@{self.spaces.get(task, 'all')}" if self.spaces and task in self.tasks else task

    @property
    def runs_at(self) -> set[UnitKey]:
        """Split and seed of every run."""
        return {key for values in self.values.values() for key in values}

    @property
    def train_rate(self) -> float | None:
        """Training samples per second: of the serial pass, or of the cells where it has not run."""
        measured = self.speed.get("train_samples_per_second")
        return self.samples_per_second if measured is None else measured

    @property
    def units(self) -> int:
        """The number of splits, or of seeds where there is one split: what means and spreads are over."""
        return len(self.splits) if len(self.splits) > 1 else len(self.seeds)

    @property
    def unit(self) -> str:
        """What means and spreads are over: ``seeds``, ``splits``, or ``draws`` (the folders of a block)."""
        if any(split.draw for split in self.splits):
            return "draws"
        return "splits" if len(self.splits) > 1 else "seeds"

    @property
    def run_unit(self) -> str:
        """What one run is: a seed, a split, or one of several runs of each split."""
        if len(self.splits) < 2:
            return "seeds"
        return self.unit if self.runs == len(self.splits) else "runs"


@dataclass(frozen=True)
class Paired:
    """The mean of ``n`` paired differences with its standard error, 95 % interval and two-sided p; null for n < 2."""

    mean: float | None
    error: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def paired_t(differences: Sequence[float]) -> Paired:
    """Student's paired t-test: ``t = mean / sqrt(s^2 / n)`` with n - 1 degrees of freedom, ``s^2`` over n - 1.

    >>> found = paired_t([1.0, 2.0, 3.0])
    >>> found.mean, round(found.error, 4), round(found.p, 4)
    (2.0, 0.5774, 0.0742)
    """
    return _t_test(differences, 1 / max(len(differences), 1))


def corrected_t(differences: Sequence[float], train_rows: float, test_rows: float) -> Paired:
    """The corrected resampled t-test (Nadeau and Bengio, Machine Learning 52, 2003, section 4.2).

    Random splits of one data set share training rows, so their differences are correlated, and ``s^2 / n`` understates
    the variance of their mean. It is estimated by ``s^2 (1 / n + test_rows / train_rows)`` instead, with n - 1 degrees
    of freedom. The same serves cross-validation, repeated or not (Bouckaert and Frank, PAKDD 2004).

    Args:
        differences: one per split. train_rows, test_rows: of a split; null results where they are 0 or less.

    >>> round(corrected_t([1.0, 2.0, 3.0], train_rows=90, test_rows=10).error, 4)  # sqrt(1/3 + 1/9)
    0.6667
    """
    if train_rows <= 0 or test_rows <= 0:
        return Paired(statistics.fmean(differences) if differences else None, None, None, None, None, len(differences))
    return _t_test(differences, 1 / max(len(differences), 1) + test_rows / train_rows)


def _t_test(differences: Sequence[float], factor: float) -> Paired:
    """A two-sided t-test of mean 0 where the variance of the mean is ``factor`` times that of a difference."""
    n = len(differences)
    mean = statistics.fmean(differences) if differences else None
    if mean is None or n < 2:
        return Paired(mean, None, None, None, None, n)
    from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

    error = math.sqrt(statistics.variance(differences) * factor)
    reach = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    # Equal differences have no spread: any mean but 0 is then certain.
    p = 2 * float(stdtr(n - 1, -abs(mean) / error)) if error > 0 else float(mean == 0)
    return Paired(mean, error, mean - reach, mean + reach, p, n)


def wilcoxon_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test; null for fewer than two differences. Of n seeds at least 2 / 2**n.

    >>> wilcoxon_p([0.1, 0.3, 0.2, 0.5, 0.4])
    0.0625
    """
    if len(differences) < 2:
        return None
    return _wilcoxon(tuple(differences)) if any(differences) else 1.0


@lru_cache(maxsize=10_000)  # every form of a board asks again, and with ties each answer takes .1 s
def _wilcoxon(differences: tuple[float, ...]) -> float:
    from scipy.stats import wilcoxon  # takes a second to import

    return float(wilcoxon(differences).pvalue)


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


def summarise(
    records: Iterable[RunRecord], names: Mapping[str, str] | None = None, design: Design = NO_DESIGN
) -> list[BoardRow]:
    """Rows of a leaderboard, in the order in which data sets, and within them the rows' names, first appear.

    Runs are put together only when model, settings and data agree, whatever their split; two records of one split and
    seed are one run made twice, and the later one counts.

    Args:
        records: of runs. names: of rows, by the digest of their settings; those of their models by default.
        design: which rows are no baselines, and planned comparisons.
    """
    groups: dict[tuple[str, str, str, str], dict[UnitKey, RunRecord]] = {}
    records = list(records)
    for row, record in zip(row_keys(records), records, strict=True):
        # A later record of the same split and seed replaces the earlier one.
        groups.setdefault(row, {})[SplitKey.of(record), record.seed] = record
    # Speeds compare only between runs of equal threads, devices and compilation: those of the majority.
    usual = Counter(_ran_as(run) for runs in groups.values() for run in runs.values()).most_common(1)
    ran_as = usual[0][0] if usual else ()
    rows = [
        _row([runs[key] for key in sorted(runs, key=_in_order)], source, ran_as, names or {})
        for (_, _, _, source), runs in groups.items()
    ]
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    rows = [
        replace(
            row,
            proposed=row.name in design.proposed,
            contrasts=tuple(
                (place, title, b) for place, (title, (a, b)) in enumerate(design.contrasts.items()) if a == row.name
            ),
            exploratory=design.exploratory,
        )
        for row in rows
    ]
    order = list(dict.fromkeys(row.name for row in rows))
    return sorted(rows, key=lambda row: (datasets.index(row.dataset), order.index(row.name)))


def by_dataset(rows: Iterable[BoardRow]) -> dict[str, list[BoardRow]]:
    """The rows of each data set, in their order."""
    found: dict[str, list[BoardRow]] = {}
    for row in rows:
        found.setdefault(row.dataset, []).append(row)
    return found


def usual_source(rows: Iterable[BoardRow]) -> str:
    """The fingerprint of the data that most rows are on, empty without rows."""
    counts = Counter(row.source_fingerprint for row in rows)
    return counts.most_common(1)[0][0] if counts else ""


def unit_of(rows: Sequence[BoardRow]) -> str:
    """What the rows of one data set are over: ``seeds``, ``splits`` or ``draws``."""
    found = {row.unit for row in rows}
    return next((unit for unit in ("draws", "splits") if unit in found), "seeds")


def runs_of_rows(rows: Sequence[BoardRow], records: Iterable[RunRecord]) -> list[Runs]:
    """The runs of each row, in order; of two records of one split and seed the later one, as in the table."""
    found: dict[tuple[str, str, str, str], dict[UnitKey, RunRecord]] = {}
    records = list(records)
    for key, record in zip(row_keys(records), records, strict=True):
        found.setdefault(key, {})[SplitKey.of(record), record.seed] = with_reach(record)
    keys = [(row.dataset, row.model, row.settings_digest, row.source_fingerprint) for row in rows]
    return [dict(sorted(found[key].items(), key=lambda item: _in_order(item[0]))) for key in keys]


def row_keys(records: Sequence[RunRecord]) -> list[tuple[str, str, str, str]]:
    """Of each record what its row has in common: data set, model, digest of the settings, and data.

    The data is that of the files whatever the split; for records that lack it, that of one split. The folders of a
    block have data of their own and are one row. Where runs on one of them disagree on its data, those on other data
    than most are not in that row.
    """
    drawn: dict[tuple[str | None, str], Counter[str]] = {}
    for run in records:
        drawn.setdefault((run.block, run.draw), Counter())[run.source_fingerprint or run.data_fingerprint] += 1
    found = []
    for run in records:
        source = run.source_fingerprint or run.data_fingerprint
        usual = drawn[run.block, run.draw].most_common(1)[0][0]
        if run.block is not None and source == usual:
            source = f"block {run.block}"
        found.append((run.shown_dataset, run.model, run.settings_digest, source))
    return found


def _in_order(key: UnitKey) -> tuple[tuple[int, str, int, int, int], int]:
    split, seed = key
    return split.order, seed


def _ran_as(run: RunRecord) -> tuple[Any, ...]:
    """The settings that change a run's speed but not its result."""
    return tuple(str(run.settings.get(name)) for name in ("accelerator", "devices", "threads", "compile", "profile"))


def _row(runs: Sequence[RunRecord], source: str, ran_as: tuple[Any, ...], names: Mapping[str, str]) -> BoardRow:
    first = runs[0]
    splits = tuple(dict.fromkeys(SplitKey.of(run) for run in runs))
    measured: dict[Metric, dict[UnitKey, float | None]] = {}
    for run in map(with_reach, runs):
        of_factors = [(split, run.factors.get(split)) for split in ("valid", "test")]
        for split, tasks in (("valid", run.valid), ("test", run.test), *of_factors):
            for task, values in (tasks or {}).items():
                for name, value in values.items():
                    measured.setdefault(Metric(split, task, name), {})[SplitKey.of(run), run.seed] = value
    timed = [run for run in runs if _ran_as(run) == ran_as and not run.beside_others]
    rates = [run.train_samples_per_second for run in timed if run.train_samples_per_second]
    seconds = [run.wall_seconds["train"] for run in timed if run.wall_seconds.get("train")]
    chosen = {(SplitKey.of(run), run.seed): run.valid_value for run in runs}
    # Not metrics, so not among those that are averaged, shown and compared.
    errors = {
        metric: summary(measured.pop(error).values()).mean
        for metric in list(measured)
        if (error := replace(metric, name=error_name(metric.name))) in measured
    }
    return BoardRow(
        dataset=first.shown_dataset,
        model=first.model,
        settings_digest=first.settings_digest,
        data_fingerprint=first.data_fingerprint if len(splits) == 1 else source,
        seeds=tuple(sorted({run.seed for run in runs})),
        tasks=tuple(task.name for task in first.tasks),
        metrics={metric: summary(_by_split(values, len(splits) > 1)) for metric, values in measured.items()},
        parameters={**first.parameters, "total": sum(first.parameters.values())},
        samples_per_second=statistics.median(rates) if rates else None,
        pos_weights=pos_weights(first),
        selected_on_test=any(run.selected_on_test for run in runs),
        source_fingerprint=source,
        splits=splits,
        runs=len(runs),
        values=measured,
        valid_metric=str(first.settings.get("valid_metric", "")),
        valid_values={key: value for key, value in chosen.items() if value is not None},
        train_rows=statistics.fmean(run.rows.get("train", 0) for run in runs),
        test_rows=statistics.fmean(run.rows.get("test", 0) for run in runs),
        # Folders of a block share no rows.
        test_is_drawn=first.block is None and first.settings.get("split") in TEST_IS_DRAWN,
        errors=errors,
        best_epochs=tuple(run.best_epoch for run in runs),
        epochs=tuple(run.epochs for run in runs),
        positives=tuple({SplitKey.of(run): run.positives for run in runs if run.positives}.values()),
        warnings=tuple(tuple(run.warnings) for run in runs),
        name=names.get(first.settings_digest, first.model),
        worse={
            (SplitKey.of(run), run.seed): worse
            for run in runs
            if (worse := tuple(dict.fromkeys(found.task for found in worse_than_constant(run))))
        },
        train_seconds=statistics.median(seconds) if seconds else None,
        spent_seconds=sum(sum(run.wall_seconds.values()) for run in runs),
        spaces=_spaces(first),
        codes=tuple(sorted({run.versions.get("code", "") for run in runs})),
        factors=tuple(dict.fromkeys(name for run in runs for name in run.factors.get("test", {}))),
        settings=first.settings,
    )


def more_is_better(name: str) -> bool | None:
    """Whether larger values of a metric of a board are better, as the metric declares.

    Returns:
        None where neither end is best, or the metric is one of a plug-in that is not loaded.

    >>> more_is_better(REACH), more_is_better("rmse"), more_is_better("calibration")
    (True, False, None)
    """
    if name == REACH:
        return True
    if name not in METRICS.names():
        return None
    found: bool | None = METRICS.attributes(name).get("higher_is_better")
    return found


def with_reach(run: RunRecord) -> RunRecord:
    """The run with ``reach = (AUC - .5) / (best AUC - .5)`` among the test metrics of tasks whose best AUC is known."""
    if not run.best_auc or run.test is None:
        return run
    test: dict[str, dict[str, float | None]] = {}
    for task, values in run.test.items():
        auc, best = values.get("auc"), run.best_auc.get(task)
        known = best is not None and best > 0.5
        reach = (auc - 0.5) / (best - 0.5) if auc is not None and best is not None and known else None
        test[task] = {**({REACH: reach} if known else {}), **values}
    return run.model_copy(update={"test": test})


def _spaces(run: RunRecord) -> dict[str, str]:
    """The condition of each task that is observed conditionally: ``click`` for ``click == 1``, else as it is."""
    found = {}
    for task in run.settings.get("tasks", []):
        condition = task.get("observed_when")
        if condition:
            name, _, value = (part.strip() for part in condition.partition("=="))
            found[task["name"]] = name if value in ("1", "1.0", "true") else condition
    return found


def _by_split(values: Mapping[UnitKey, float | None], several: bool) -> list[float | None]:
    """The values, or with ``several`` splits the mean over the seeds of each, so that every split counts once."""
    if not several:
        return list(values.values())
    means: dict[SplitKey, list[float | None]] = {}
    for (split, _), value in values.items():
        means.setdefault(split, []).append(value)
    return [summary(found).mean for found in means.values()]
