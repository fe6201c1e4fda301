"""Whether a data set's tasks suit a model, from the class attributes that the index holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["misfits"]


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
