"""Checks of fields and tasks that need no data, and the columns that tasks read."""

from __future__ import annotations

from collections.abc import Iterable

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.preprocess import outcome_columns
from recbole_dtn.config.settings import FieldSettings, Settings, TaskSettings
from recbole_dtn.config.splits import check_split
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import LOSSES
from recbole_dtn.schema import topological_order

__all__ = ["check_fields_and_tasks", "label_columns", "task_columns"]


def task_columns(task: TaskSettings) -> frozenset[str]:
    """Every column that a task's label, condition or ``observed_when`` reads."""
    found = {task.label} if task.condition is None else parse_condition(task.condition).columns() | {task.label}
    if task.observed_when is not None:
        found = found | parse_condition(task.observed_when).columns()
    return frozenset(found)


def label_columns(settings: Settings) -> dict[str, str]:
    """Columns that may not be inputs, each with the reason in words."""
    found: dict[str, str] = {}
    for task in settings.tasks:
        for column in sorted(task_columns(task)):
            found.setdefault(column, f"task {task.name!r} is made from it")
    if settings.weight_field is not None:
        found.setdefault(settings.weight_field, "it is the weight_field")
    if settings.split_field is not None:
        found.setdefault(settings.split_field, "it is the split_field")
    for column in outcome_columns(settings.preprocessor):
        found.setdefault(column, "it is known only after the row was shown")
    return found


def check_fields_and_tasks(settings: Settings) -> None:
    """Refuse what can be known to be wrong before any data is read.

    Raises:
        UsageError: no fields or tasks, a duplicate, an unknown ``after`` or a cycle, a condition that does not parse,
            an option on a field type that has none, a split that lacks a setting or has one that it cannot use, and a
            label column among the inputs.
    """
    where = f"dataset {settings.dataset!r}"
    if not settings.fields:
        raise UsageError(f"{where}: fields is empty; list the input columns, such as fields: [{{name: user_id}}]")
    if not settings.tasks:
        raise UsageError(f"{where}: tasks is empty; name at least one, such as tasks: [{{name: click, label: click}}]")
    _refuse_duplicates("fields", [spec.name for spec in settings.fields])
    _refuse_duplicates("tasks", [task.name for task in settings.tasks])
    for task in settings.tasks:
        try:
            task_columns(task)
        except UsageError as error:
            raise UsageError(f"task {task.name!r}: {error}") from None
        if task.kind == "regression" and task.pos_weight != 1.0:
            raise UsageError(
                f"task {task.name!r}: a regression has no positive rows; leave pos_weight out (weight is for the task)"
            )
        if task.kind == "regression" and task.condition is not None:
            raise UsageError(
                f"task {task.name!r}: a regression has no condition; its label is the column {task.label!r}"
            )
        if task.kind == "regression" and task.negative_rate != 1.0:
            raise UsageError(f"task {task.name!r}: a regression has no negative rows; leave negative_rate out")
        if task.kind == "binary" and not task.standardise:
            raise UsageError(f"task {task.name!r}: standardise is for the labels of a regression; leave it out")
        kind = task.kind if task.loss is None else LOSSES.attributes(task.loss.name).get("task_kind")
        if task.loss is not None and kind != task.kind:
            raise UsageError(
                f"task {task.name!r}: loss {task.loss.name!r} is for {kind} tasks; this one is {task.kind}"
            )
    topological_order({task.name: tuple(task.after) for task in settings.tasks})
    _check_field_options(settings)
    check_split(settings)
    forbidden = label_columns(settings)
    inputs = [spec.name for spec in settings.fields] + [spec.weights for spec in settings.fields if spec.weights]
    for name in inputs:
        if name in forbidden:
            raise UsageError(f"field {name!r} cannot be an input: {forbidden[name]}; remove it from fields")


def _refuse_duplicates(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{key}: {name!r} is listed twice; keep one")
        if not name or any(character in name for character in ":\t\r\n"):
            raise UsageError(f"{key}: {name!r} is not a name (empty, or it holds a colon, tab or line break)")
        seen.add(name)


# Values that a resolved settings.yaml writes for every field, so that they are not an error for a token; the first ones
# are those of earlier versions.
_ENCODINGS = ("standardise", FieldSettings.model_fields["encoding"].default)
_BINS = (10, FieldSettings.model_fields["bins"].default)
_CLIP = FieldSettings.model_fields["clip"].default


def _check_field_options(settings: Settings) -> None:
    for spec in settings.fields:
        if spec.type != "float" and (spec.encoding not in _ENCODINGS or spec.bins not in _BINS or spec.clip != _CLIP):
            raise UsageError(f"field {spec.name!r}: encoding, bins and clip are for type float, not {spec.type}")
        if spec.encoding == "bins" and spec.clip != _CLIP:
            raise UsageError(f"field {spec.name!r}: clip needs encoding: standardise, log1p or auto")
        if spec.type == "float" and spec.encoding not in ("bins", "auto") and spec.bins not in _BINS:
            raise UsageError(f"field {spec.name!r}: bins needs encoding: bins or auto")
        if spec.type == "float" and spec.min_count is not None:
            raise UsageError(f"field {spec.name!r}: min_count is for tokens, not for type float")
        if spec.type != "token_seq" and (spec.pooling is not None or spec.weights is not None):
            raise UsageError(f"field {spec.name!r}: pooling and weights are for type token_seq, not {spec.type}")
