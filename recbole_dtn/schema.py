"""Fields, tasks and the schema of an encoded data set: plain values that every package uses.

The three classes are frozen, hold plain Python values only (no tensor, no file handle), and turn into JSON and back,
so that a checkpoint or a cache can carry them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from recbole_dtn.errors import UsageError

__all__ = ["ABSENT", "FIRST_TOKEN", "UNKNOWN", "DataSchema", "FieldSpec", "TaskSpec", "topological_order"]

ABSENT = 0
"""Row of a field's block for a missing value (learned)."""
UNKNOWN = 1
"""Row of a field's block for a token that training did not show, or showed fewer than ``min_count`` times."""
FIRST_TOKEN = 2
"""Row of a field's block for its most frequent training token."""

FieldKind = Literal["token", "token_seq", "float"]
TaskKind = Literal["binary", "regression"]


@dataclass(frozen=True)
class FieldSpec:
    """One input field of an encoded data set.

    Attributes:
        name: column name in the atomic files.
        kind: ``token`` (one id), ``token_seq`` (many ids, pooled) or ``float`` (one number).
        size: rows that the field owns in the joint embedding table: 2 + vocabulary for ids; 2 for a continuous
            float (row 0 absent, row 1 the learned direction that the value scales).
        offset: first of those rows.
        pooling: how a ``token_seq`` field is pooled, ``sum`` or ``mean``.
        weights: name of the ``float_seq`` column whose values weight a ``token_seq`` field, if any.
        bins: for a ``float`` field the edges when it is binned (then it is an id field); empty if continuous.
        mean, std: for a continuous float, the training split's statistics; the value is ``(raw - mean) / std``.
        clip: largest magnitude of that value; None: no limit.
        log1p: whether ``raw`` first becomes ``sign(raw) log(1 + |raw|)``, of which ``mean`` and ``std`` are then taken.
    """

    name: str
    kind: FieldKind
    size: int
    offset: int
    pooling: Literal["sum", "mean"] = "sum"
    weights: str | None = None
    bins: tuple[float, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    clip: float | None = None
    log1p: bool = False

    @property
    def single_id(self) -> bool:
        """Whether the field has exactly one id per row (a token, or a binned float)."""
        return self.kind == "token" or bool(self.bins)

    @property
    def continuous(self) -> bool:
        """Whether the field is a number that scales a learned vector."""
        return self.kind == "float" and not self.bins


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Attributes:
        name: short name, shown in tables (``click``).
        kind: ``binary`` (logit, masked BCE) or ``regression`` (identity, masked squared error).
        label: column of the atomic file that holds the label.
        condition: expression that gives the label, such as ``rating >= 4``; None when ``label`` already is it.
        after: tasks that come before this one in the funnel (direct predecessors).
        weight: loss weight. pos_weight: weight of positive rows inside the loss.
        observed_when: expression; rows where it is false carry no label and count in neither loss nor metrics.
        loss: name and options of the loss (``{"name": "bce"}``); None: ``bce`` (binary) or ``mse`` (regression).
        rate: share of positives among the observed training rows of a binary task; None: not known.
        negative_rate: share of the negatives that were kept when the rows were made; predictions are those of all rows.
        pairwise: weight of the in-batch ranking loss that is added to the task's.
        standardise: whether a regression learns its label in units of the training rows.
        mean, std: of the observed training labels of a regression that is standardised; None: it is not.
    """

    name: str
    kind: TaskKind
    label: str
    condition: str | None = None
    after: tuple[str, ...] = ()
    weight: float = 1.0
    pos_weight: float = 1.0
    observed_when: str | None = None
    loss: Mapping[str, Any] | None = field(default=None, hash=False)  # a map has no hash
    rate: float | None = field(default=None, compare=False)
    negative_rate: float = 1.0
    pairwise: float = 0.0
    standardise: bool = True
    mean: float | None = field(default=None, compare=False)
    std: float | None = field(default=None, compare=False)


def topological_order(after: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Task names with every predecessor before its successors; ties keep the order given.

    Raises:
        UsageError: for an unknown predecessor or a cycle.

    >>> topological_order({"buy": ("click",), "click": ()})
    ('click', 'buy')
    """
    for name, predecessors in after.items():
        for predecessor in predecessors:
            if predecessor not in after:
                raise UsageError(f"task {name!r}: 'after' names {predecessor!r}; the tasks are {', '.join(after)}")
    ordered: list[str] = []
    waiting = list(after)
    while waiting:
        ready = next((name for name in waiting if all(p in ordered for p in after[name])), None)
        if ready is None:
            raise UsageError(f"task chain: a cycle among {', '.join(waiting)}; a task cannot come after itself")
        waiting.remove(ready)
        ordered.append(ready)
    return tuple(ordered)


@dataclass(frozen=True)
class DataSchema:
    """Fields in their order, tasks in theirs, and the sizes that models are built from."""

    fields: tuple[FieldSpec, ...]
    tasks: tuple[TaskSpec, ...]
    num_domains: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def num_fields(self) -> int:
        return len(self.fields)

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def num_rows(self) -> int:
        """Rows of the joint embedding table over all fields."""
        return sum(spec.size for spec in self.fields)

    @cached_property
    def id_fields(self) -> tuple[int, ...]:
        """Positions of the fields with exactly one id per row."""
        return tuple(i for i, spec in enumerate(self.fields) if spec.single_id)

    @cached_property
    def multi_fields(self) -> tuple[int, ...]:
        """Positions of the multi-valued fields."""
        return tuple(i for i, spec in enumerate(self.fields) if spec.kind == "token_seq")

    @cached_property
    def dense_fields(self) -> tuple[int, ...]:
        """Positions of the continuous fields; column n of ``Features.dense`` is field ``dense_fields[n]``."""
        return tuple(i for i, spec in enumerate(self.fields) if spec.continuous)

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def select(self, positions: Iterable[int]) -> DataSchema:
        """The schema of some of the fields alone, in their order, with rows numbered anew from 0.

        >>> fields = (FieldSpec("a", "token", 4, 0), FieldSpec("b", "token", 3, 4), FieldSpec("c", "token", 5, 7))
        >>> [(spec.name, spec.offset) for spec in DataSchema(fields, ()).select([2, 1]).fields]
        [('b', 0), ('c', 3)]
        """
        kept = sorted(set(positions))
        fields: list[FieldSpec] = []
        for position in kept:
            offset = fields[-1].offset + fields[-1].size if fields else 0
            fields.append(replace(self.fields[position], offset=offset))
        zero = [kept.index(position) for position in self.extra.get("zero_unknown", ()) if position in kept]
        return replace(self, fields=tuple(fields), extra={**self.extra, "zero_unknown": zero})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or a checkpoint; :meth:`from_dict` is the inverse.

        >>> schema = DataSchema((FieldSpec("a", "token", 4, 0),), (TaskSpec("t", "binary", "y"),))
        >>> DataSchema.from_dict(schema.to_dict()) == schema
        True
        """
        return {
            "fields": [asdict(spec) for spec in self.fields],
            "tasks": [asdict(task) for task in self.tasks],
            "num_domains": self.num_domains,
            "extra": dict(self.extra),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DataSchema:
        """Rebuild a schema written by :meth:`to_dict`."""
        return cls(
            fields=tuple(FieldSpec(**{**spec, "bins": tuple(spec["bins"])}) for spec in data["fields"]),
            tasks=tuple(TaskSpec(**{**task, "after": tuple(task["after"])}) for task in data["tasks"]),
            num_domains=data["num_domains"],
            extra=dict(data["extra"]),
        )
