"""Whether a data set's tasks suit a model, from the class attributes that the index holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["chain_faults", "misfits"]


class ChainedTask(Protocol):
    """What a chain depends on; ``TaskSpec`` and ``TaskSettings`` both have it."""

    @property
    def name(self) -> str: ...
    @property
    def after(self) -> Sequence[str]: ...
    @property
    def observed_when(self) -> str | None: ...


def misfits(
    model: str, attributes: Mapping[str, Any], tasks: Mapping[str, str], *, has_domain: bool
) -> Iterator[tuple[str, str]]:
    """What keeps a model from working with a data set, as pairs of a setting and a message.

    Args:
        model: its name. attributes: ``task_kinds``, ``min_tasks``, ``max_tasks`` and ``needs_domain`` of its class;
            one that is missing asks for nothing. tasks: kind of each task by name. has_domain: whether rows have one.

    >>> list(misfits("ESMM", {"task_kinds": ["binary"]}, {"click": "binary"}, has_domain=False))
    []
    >>> list(misfits("PEPNet", {"needs_domain": True}, {"click": "binary"}, has_domain=False))
    [('domain_field', 'PEPNet reads the domain of every row; name the column that holds it')]
    """
    kinds = sorted(attributes.get("task_kinds", set(tasks.values())))
    for name, kind in tasks.items():
        if kind not in kinds:
            yield (
                "tasks",
                f"{name!r} is a {kind} task, and {model} takes {' and '.join(kinds)} tasks only: leave that task out, "
                "or choose another model",
            )
    least, most = attributes.get("min_tasks", 1), attributes.get("max_tasks")
    if len(tasks) < least or (most is not None and len(tasks) > most):
        wanted = f"{least} tasks or more" if most is None else f"{least} to {most} tasks"
        yield "tasks", f"{model} needs {wanted}; found {len(tasks)} ({', '.join(tasks)})"
    if attributes.get("needs_domain") and not has_domain:
        yield "domain_field", f"{model} reads the domain of every row; name the column that holds it"


def chain_faults(model: str, tasks: Sequence[ChainedTask], *, same_rows: bool) -> Iterator[str]:
    """What keeps the tasks from being a chain, or a tree of chains, each task after at most one other.

    Args:
        model: its name. tasks: the tasks. same_rows: whether the model compares a task with its predecessor row by row,
            so that both have to be observed in the same rows.

    >>> from recbole_dtn.schema import TaskSpec
    >>> list(chain_faults("AITM", [TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b", after=("a",))],
    ...                   same_rows=True))
    []
    """
    if not any(task.after for task in tasks):
        yield (f"{model} needs tasks in a chain, such as {{name: purchase, after: [click]}}; no task here has `after`")
    for task in tasks:
        if len(task.after) > 1:
            yield (
                f"{task.name!r} comes after {', '.join(task.after)}; in {model} a task comes after one other at most: "
                "name the last one before it"
            )
            continue
        before = next((other for other in tasks if other.name in task.after), None)
        if same_rows and before is not None and before.observed_when != task.observed_when:
            yield (
                f"{task.name!r} is observed when {task.observed_when or 'always'}, {before.name!r} when "
                f"{before.observed_when or 'always'}; {model} trains both over the same rows: remove observed_when and "
                f"give {task.name!r} the joint label (such as condition: click == 1 and buy == 1)"
            )
