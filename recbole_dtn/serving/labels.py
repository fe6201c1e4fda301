"""Labels, groups, weights and domains of rows that are scored, as training reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.settings import Settings, TaskSettings
from recbole_dtn.config.tasks import task_columns
from recbole_dtn.data.condition import to_expression
from recbole_dtn.data.features import Features
from recbole_dtn.data.raw import Texts
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.tables import Rows, numbers_of

__all__ = ["LabelReader"]


@dataclass(frozen=True)
class _Rule:
    """Where the label of a task comes from.

    ``ready``: the column holds the label itself, and null where it is not observed.
    """

    task: TaskSettings
    ready: bool

    @property
    def columns(self) -> frozenset[str]:
        if self.ready:
            return frozenset({self.task.name})
        # A condition's own column of the label need not be there.
        columns = task_columns(self.task)
        return columns if self.task.condition is None else columns - ({self.task.label} - _read(self.task))


def _read(task: TaskSettings) -> frozenset[str]:
    texts = [text for text in (task.condition, task.observed_when) if text is not None]
    return frozenset[str]().union(*(parse_condition(text).columns() for text in texts))


class LabelReader:
    """Reads what the metrics of a run need beside its inputs.

    The label of a task is, in this order: what the spec's task of its name says (its condition over the table's own
    columns); what the run's task says, where its columns are there; a column with the name of the task, null where it
    is not observed.

    Args:
        settings: of the run. tasks: of its model. names: the columns that are there. spec: tasks of a spec, by name.

    Raises:
        UsageError: where there is no label of a task, or a column that the run's metrics need is missing.
    """

    def __init__(
        self,
        settings: Settings,
        tasks: Sequence[TaskSpec],
        names: Sequence[str],
        spec: Mapping[str, TaskSettings],
    ) -> None:
        self.settings, self.tasks = settings, tuple(tasks)
        self.rules = [self._rule(task, names, spec.get(task.name)) for task in settings.tasks]
        self.weight = settings.weight_field
        if self.weight is not None and self.weight not in names:
            raise UsageError(
                f"--labels: the run weights its rows by the column {self.weight!r} (weight_field), which is missing; "
                "add it, with 1 in every row for metrics without weights"
            )
        self.group = settings.group_field if settings.group_field in names else None
        self.domain = settings.domain_field if settings.domain_field in names else None
        self._refuse_needed()
        self.groups = Texts()

    def _rule(self, task: TaskSettings, names: Sequence[str], spec: TaskSettings | None) -> _Rule:
        rules = [_Rule(each, ready=False) for each in (spec, task) if each is not None]
        rules.append(_Rule(task, ready=True))
        for rule in rules:
            if rule.columns <= set(names):
                return rule
        missing = sorted(rules[-2].columns - set(names))
        raise UsageError(
            f"--labels: task {task.name!r} needs the columns {', '.join(sorted(rules[-2].columns))}, of which "
            f"{', '.join(missing)} is not there; or a column {task.name!r} with the label, empty where it is not "
            "observed"
        )

    def _refuse_needed(self) -> None:
        for choice in self.settings.metrics or ():
            about = METRICS.attributes(choice.name)
            for part, column in (("group", self.group), ("domain", self.domain)):
                named = getattr(self.settings, f"{part}_field")
                if about.get(f"needs_{part}") and column is None:
                    raise UsageError(f"--labels: metric {choice.name!r} needs the column {named!r}, which is missing")

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are read, each with what it is for."""
        found = {column: f"label of task {rule.task.name!r}" for rule in self.rules for column in sorted(rule.columns)}
        for key in ("weight", "group", "domain"):
            column = getattr(self, key)
            if column is not None:
                found.setdefault(column, f"{key}_field")
        return found

    def metrics(self) -> MultiTaskMetrics:
        """The metrics of the run; those by group or domain where the column is there."""
        chosen = self.settings.metrics
        return MultiTaskMetrics(
            self.tasks,
            None if chosen is None else {choice.name: choice.options for choice in chosen},
            grouped=self.group is not None,
            domains=self.domain is not None,
        )

    def left_out(self) -> list[str]:
        """What is not computed, in sentences."""
        return [
            f"{part}_field {named!r} is not in the table: metrics by {part} are left out"
            for part in ("group", "domain")
            if (named := getattr(self.settings, f"{part}_field")) is not None and getattr(self, part) is None
        ]

    def add(self, rows: Rows, features: Features) -> Features:
        """The batch with labels, groups and weights.

        Raises:
            DataError: for a label that is missing or not binary where it is observed, or a wrong weight, by its row.
        """
        found = [self._label(rule, rows) for rule in self.rules]
        group = weight = None
        if self.group is not None:
            column = rows.frame.select(pl.col(self.group).cast(pl.String).alias("group"))
            codes = self.groups.codes(column.select(self.groups.coded(pl.col("group"))).to_series())
            # All rows without a group are one group, as in training.
            group = torch.from_numpy(codes.astype(np.int64) + 1)
        if self.weight is not None:
            weight = torch.from_numpy(self._weights(rows, self.weight))
        return replace(
            features,
            labels=torch.from_numpy(np.stack([labels for labels, _ in found], 1).astype(np.float32)),
            observed=torch.from_numpy(np.stack([seen for _, seen in found], 1)),
            group=group,
            sample_weight=weight,
        )

    def _label(self, rule: _Rule, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        task, frame = rule.task, rows.frame
        seen = np.ones(frame.height, np.bool_)
        what = f"the label of task {task.name!r}"
        if rule.ready:
            found = _array(numbers_of(rows, task.name, what, words=True))
            seen = ~np.isnan(found)
        else:
            if task.observed_when is not None:
                # An undecided condition (a missing value) counts as not observed.
                seen = _evaluated(task.observed_when, frame).fill_null(False).to_numpy()
            if task.condition is not None:
                found = _array(_evaluated(task.condition, frame).cast(pl.Float64))
            else:
                found = _array(_where(seen, rows, task.label, what))
        right = (found == 0) | (found == 1) if task.kind == "binary" else np.isfinite(found)
        wrong = np.flatnonzero(seen & ~right)
        if len(wrong):
            row = int(wrong[0])
            expected = "0 or 1" if task.kind == "binary" else "a finite number"
            shown = ", ".join(f"{name} = {frame[name][row]!r}" for name in sorted(rule.columns))
            raise DataError(f"{rows.name(row)}: {what}: expected {expected}; found {shown}")
        return np.where(seen, found, 0), seen

    def _weights(self, rows: Rows, column: str) -> NDArray[np.float32]:
        weights = _array(numbers_of(rows, column, "weight_field"))
        wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if len(wrong):
            row = int(wrong[0])
            found = rows.frame[column][row]
            raise DataError(f"{rows.name(row)}: weight_field {column!r}: expected a number from 0 up; found {found!r}")
        return weights.astype(np.float32)


def _where(seen: NDArray[np.bool_], rows: Rows, column: str, what: str) -> pl.Series:
    """The numbers of a label; texts where it is not observed do not matter."""
    values = rows.frame[column].set(pl.Series(~seen), None)
    return numbers_of(Rows(values.to_frame(), rows.name), column, what, words=True)


def _evaluated(source: str, frame: pl.DataFrame) -> pl.Series:
    return frame.select(found=to_expression(parse_condition(source), frame.schema)).to_series()


def _array(numbers: pl.Series) -> NDArray[np.float64]:
    # A copy: null becomes NaN, and the array may be written to.
    return np.array(numbers.to_numpy(), np.float64)
