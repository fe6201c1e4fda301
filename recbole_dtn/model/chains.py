"""Chains of tasks: each task's one predecessor, and the order in which tasks are computed."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_dtn.config.models import chain_faults
from recbole_dtn.errors import UsageError
from recbole_dtn.schema import DataSchema, topological_order

__all__ = ["TaskChain"]


@dataclass(frozen=True)
class TaskChain:
    """The tasks of a schema, each after at most one other (``after``): a chain, or a tree of chains.

    Attributes:
        before: each task's predecessor, by position; None without one.
        order: the tasks, every predecessor before its successors.

    >>> from recbole_dtn.schema import TaskSpec
    >>> tasks = (TaskSpec("buy", "binary", "b", after=("click",)), TaskSpec("click", "binary", "c"))
    >>> TaskChain.of(DataSchema((), tasks), "ESMM")
    TaskChain(before=(1, None), order=(1, 0))
    """

    before: tuple[int | None, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, schema: DataSchema, model: str, *, same_rows: bool = True) -> TaskChain:
        """The chain that the tasks' ``after`` gives.

        Args:
            schema: has the tasks. model: its name, for messages.
            same_rows: whether the model compares a task with its predecessor row by row, so that both have to be
                observed in the same rows.

        Raises:
            UsageError: without a chain, for a task after several others, or (with ``same_rows``) for a label that is
                observed in other rows than that of the task before.
        """
        for message in chain_faults(model, schema.tasks, same_rows=same_rows):
            raise UsageError(f"tasks: {message}")
        names = schema.task_names
        order = topological_order({task.name: task.after for task in schema.tasks})
        return cls(
            before=tuple(names.index(task.after[0]) if task.after else None for task in schema.tasks),
            order=tuple(names.index(name) for name in order),
        )

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        """``(task, its predecessor)`` of every task that has one, in order."""
        return tuple((task, before) for task in self.order if (before := self.before[task]) is not None)
