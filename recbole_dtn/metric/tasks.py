"""All metrics of all tasks of a split, and of the factors that a model gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_dtn.config.metric_names import metric_name
from recbole_dtn.config.metrics import by_default, calibrated, error_name, is_error
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.metric.base import TaskMetric, gather_on_cpu, value_or_none
from recbole_dtn.metric.finite import check_logits
from recbole_dtn.metric.parts import metric_class
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskSpec

if TYPE_CHECKING:
    from recbole_dtn.model.base import Factor, ModelOutput

__all__ = ["Details", "MultiTaskMetrics", "new_metrics", "with_domain_names"]

ORDER = ("auc", "gauc", "logloss", "ne", "calibration", "rmse", "mae")
"""Order of the built-in metrics in tables and records; those of plug-ins follow by name."""
JOINT = " (joint)"
Found = dict[str, dict[str, float | None]]
Details = dict[str, dict[str, dict[str, Any]]]


class ColumnMetrics:
    """The metrics of one task or factor.

    Args:
        task: the task whose labels are read. metrics: name and options of each metric; those for the other kind of
            task are left out. calibrated: whether predictions are probabilities of the data.
    """

    def __init__(self, task: TaskSpec, metrics: Mapping[str, Mapping[str, Any]], *, calibrated: bool) -> None:
        self.calibrated = calibrated
        self.found: dict[str, TaskMetric] = {
            name: kind(**{**metric_name(name).options, **options})
            for name, options in metrics.items()
            # Before the metric is built: options of the others need not fit this task.
            if (kind := _metric_class(name)).task_kind == task.kind
        }

    def update(self, *rows: Any) -> None:
        """Add rows, as :meth:`TaskMetric.update` takes them."""
        for metric in self.found.values():
            metric.update(*rows)

    def compute(self) -> dict[str, float | None]:
        """Value by metric, each followed by its standard error (``auc_se``) if it has one; None where undefined."""
        values = {}
        for name, metric in self.found.items():
            # Computed in any case: it gathers, and processes must gather the same.
            value, error = metric.compute(), metric.standard_error()
            means_nothing = metric.needs_calibrated and not self.calibrated
            values[name] = None if means_nothing else value_or_none(value)
            if error is not None:
                values[error_name(name)] = None if means_nothing else value_or_none(error)
        return values

    def details(self) -> dict[str, dict[str, Any]]:
        """What metrics tell beside the last values that :meth:`compute` gave, by metric; only of those that do."""
        found = {name: metric.details() for name, metric in self.found.items()}
        return {name: details for name, details in found.items() if details is not None}

    def use_fits(self, details: Mapping[str, Mapping[str, Any]]) -> None:
        """Give each metric its :meth:`details` on the validation rows."""
        for name, metric in self.found.items():
            if name in details:
                metric.use_fit(details[name])

    def reset(self) -> None:
        """Forget all rows."""
        for metric in self.found.values():
            metric.reset()


class MultiTaskMetrics:
    """The metrics of every task, each over the rows where its task is observed.

    A metric that reads predictions as probabilities (``ne``, ``calibration``) is None for a task with ``pos_weight`` or
    a loss whose predictions are none (``focal``).
    Under several processes with any number of rows each, every row counts once.

    Each factor (``ModelOutput.factors``) has the metrics of the task whose label it predicts, on the rows where its
    condition holds: pCVR over the clicked rows where the purchase is observed. Its name in the results is
    ``<label>@<observed_by>`` (``buy@click``), whatever its key in ``factors``; a second factor with the same label and
    condition is named ``<key>@<observed_by>``. Where the task is predicted over all rows (pCTCVR), that prediction is
    evaluated on the same rows too, under ``buy@click (joint)``; what needs probabilities is null there.

    Args:
        tasks: the T tasks, in the order of the columns.
        metrics: options by name of the metrics to compute; None: every one that applies and is ``by_default``.
        grouped: whether rows come with a group. domains: whether they come with a domain.

    Raises:
        UsageError: for a registered metric that is not a :class:`TaskMetric`.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        metrics: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        grouped: bool = False,
        domains: bool = False,
    ) -> None:
        self.tasks = tuple(tasks)
        self.chosen = _all_metrics(grouped, domains) if metrics is None else dict(metrics)
        self.columns = [ColumnMetrics(task, self.chosen, calibrated=calibrated(task)) for task in self.tasks]
        self.factors: dict[str, ColumnMetrics] = {}
        self._factor_tasks: dict[str, tuple[int, int]] = {}
        self._fits: Details = {}

    @property
    def names(self) -> list[list[str]]:
        """The metrics of each task."""
        return [list(column.found) for column in self.columns]

    def add_batch(self, features: Features, output: ModelOutput) -> None:
        """Add a batch with what the model made of it.

        Raises:
            DataError: for a logit that is not finite.
        """
        self.update(
            output.logits,
            features.labels,
            features.observed,
            features.sample_weight,
            group=features.group,
            domain=features.domain,
            row=features.row,
        )
        # Per batch: the name depends on the order of the model's factors, which is the same in every batch.
        taken: set[str] = set()
        for name, factor in output.factors.items():
            key = f"{factor.label}@{factor.observed_by}"
            first = key not in taken
            key = key if first else f"{name}@{factor.observed_by}"
            taken.add(key)
            self._add_factor(key, factor, features)
            position = self._position(factor.label)
            if first and self.tasks[position].observed_when is None:
                self._add_factor(f"{key}{JOINT}", replace(factor, logit=output.logits[:, position]), features)

    def update(
        self,
        logits: Tensor,
        labels: Tensor,
        observed: Tensor,
        sample_weight: Tensor | None = None,
        *,
        group: Tensor | None = None,
        domain: Tensor | None = None,
        row: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            logits: (B, T). labels: (B, T). observed: (B, T) bool. sample_weight, group, domain: (B,) or None.
            row: (B,) number of each row in the data, for messages; None: its place in the batch.

        Raises:
            DataError: for a logit that is not finite.
        """
        # Moved once for all tasks; each task then takes its rows, so that no metric selects again.
        logits, labels, observed = logits.detach().cpu(), labels.cpu(), observed.cpu()
        check_logits(logits, [task.name for task in self.tasks], row)
        given = [None if part is None else part.cpu() for part in (sample_weight, group, domain)]
        for position, column in enumerate(self.columns):
            rows = observed[:, position]
            rest = [None if part is None else part[rows] for part in given]
            column.update(logits[rows, position], labels[rows, position], None, *rest)

    def _add_factor(self, name: str, factor: Factor, features: Features) -> None:
        position, condition = self._position(factor.label), self._position(factor.observed_by)
        self._new_factor(name, position, condition)
        check_logits(factor.logit.detach().unsqueeze(1), [name], features.row)
        # A factor is a conditional probability: it is about the rows where the condition has been seen to hold.
        happened = features.observed[:, condition] & (features.labels[:, condition] > 0.5)
        self.factors[name].update(
            factor.logit,
            features.labels[:, position],
            features.observed[:, position] & happened,
            features.sample_weight,
            features.group,
            features.domain,
        )

    def _position(self, task: str) -> int:
        return [each.name for each in self.tasks].index(task)

    def _new_factor(self, name: str, position: int, condition: int) -> None:
        if name not in self.factors:
            # A conditional probability is not corrected for down-sampled negatives.
            both = [self.tasks[task] for task in (position, condition)]
            # The joint probability is none of the conditional event.
            right = not name.endswith(JOINT) and all(calibrated(task) and task.negative_rate == 1.0 for task in both)
            self.factors[name] = ColumnMetrics(self.tasks[position], self.chosen, calibrated=right)
            self.factors[name].use_fits(self._fits.get(name, {}))
            self._factor_tasks[name] = position, condition

    def _agree_on_factors(self) -> None:
        """Register the same factors in the same order on all processes; a process without a batch has none yet."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # As bytes in a tensor, since tensors are what the backends gather.
            told = gather_on_cpu(torch.tensor(list(json.dumps(self._factor_tasks).encode()), dtype=torch.uint8))
            for text in told:
                for name, (position, condition) in json.loads(bytes(text.tolist())).items():
                    self._new_factor(name, position, condition)
                    self.factors[name] = self.factors.pop(name)  # to the end

    def compute(self) -> Found:
        """``{task: {metric: value}}`` over all processes; None where undefined.

        The standard error of a metric that reports one follows it under ``<metric>_se``.
        """
        return {task.name: column.compute() for task, column in zip(self.tasks, self.columns, strict=True)}

    def compute_factors(self) -> Found:
        """``{"buy@click": {metric: value}}`` over all processes, empty for a model without factors."""
        # Every compute gathers: all processes have to call the same metrics in the same order, or they wait for ever.
        self._agree_on_factors()
        return {name: column.compute() for name, column in self.factors.items()}

    def details(self) -> Details:
        """``{task or factor: {metric: plain values}}`` of the last :meth:`compute` and :meth:`compute_factors`."""
        columns = {task.name: column for task, column in zip(self.tasks, self.columns, strict=True)} | self.factors
        found = {name: column.details() for name, column in columns.items()}
        return {name: details for name, details in found.items() if details}

    def use_fits(self, details: Details) -> None:
        """Use what metrics fitted on validation rows, their :meth:`details` there, for the rows that follow."""
        self._fits = details
        columns = {task.name: column for task, column in zip(self.tasks, self.columns, strict=True)} | self.factors
        for name, column in columns.items():
            column.use_fits(details.get(name, {}))

    def reset(self) -> None:
        """Forget all rows."""
        for column in (*self.columns, *self.factors.values()):
            column.reset()


def new_metrics(settings: Settings, tasks: Sequence[TaskSpec]) -> MultiTaskMetrics:
    """The metrics that the settings ask for."""
    chosen = None if settings.metrics is None else {choice.name: choice.options for choice in settings.metrics}
    return MultiTaskMetrics(
        tasks, chosen, grouped=settings.group_field is not None, domains=settings.domain_field is not None
    )


def with_domain_names(details: Details, domains: Sequence[str]) -> Details:
    """Details with the names of domains in place of their numbers.

    >>> found = {"click": {"auc/domain": {"domains": {"1": {"rows": 2.0, "value": None}}}}}
    >>> with_domain_names(found, ["fr", "us"])["click"]["auc/domain"]
    {'domains': {'us': {'rows': 2.0, 'value': None}}}
    """

    def named(told: dict[str, Any]) -> dict[str, Any]:
        if "domains" not in told:
            return told
        return {**told, "domains": {domains[int(number)]: found for number, found in told["domains"].items()}}

    return {task: {name: named(told) for name, told in found.items()} for task, found in details.items()}


def _all_metrics(grouped: bool, domains: bool) -> dict[str, Mapping[str, Any]]:
    names = sorted(
        filter(by_default, METRICS.names()),
        key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name),
    )
    kinds = {name: _metric_class(name) for name in names}
    return {
        name: {}
        for name, kind in kinds.items()
        if (grouped or not kind.needs_group) and (domains or not kind.needs_domain)
    }


def _metric_class(name: str) -> type[TaskMetric]:
    if is_error(name):
        raise UsageError(f"metric {name!r}: expected a name that does not end in _se, which marks a standard error")
    found = metric_class(name)
    if not (isinstance(found, type) and issubclass(found, TaskMetric)):
        raise UsageError(f"metric {name!r}: expected a subclass of recbole_dtn.metric.base.TaskMetric, found {found!r}")
    return found
