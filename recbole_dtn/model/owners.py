"""Owners of experts and modules: every task, and one that all tasks share."""

from __future__ import annotations

from recbole_dtn.errors import UsageError
from recbole_dtn.schema import DataSchema

__all__ = ["SHARED", "owner_names"]

SHARED = "shared"
"""Name of the owner that all tasks share, in gate names such as ``shared/gdcn``."""


def owner_names(schema: DataSchema, *, shared: bool) -> tuple[str, ...]:
    """The tasks in schema order, then (if ``shared``) the shared owner.

    Raises:
        UsageError: where a task is named ``shared``.
    """
    if SHARED in schema.task_names:
        raise UsageError(f"tasks: {SHARED!r} is the name of what all tasks share; give that task another name")
    return (*schema.task_names, SHARED) if shared else schema.task_names
