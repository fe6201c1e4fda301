"""Mean gate weights by the groups of modules that one softmax chooses from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recbole_dtn.report.text import NONE, decimal

__all__ = ["GateGroup", "gate_groups", "gate_rows"]

EXACT = 1e-3
"""Largest distance of a sum of means from 1; they are means of float32 weights."""
Weights = Mapping[str, float]


@dataclass(frozen=True)
class GateGroup:
    """Modules whose mean weights sum to 1. ``name`` is empty where a task has one group alone."""

    name: str
    weights: Weights


def gate_groups(task: str, weights: Weights) -> tuple[GateGroup, ...]:
    """The groups of a task's gate columns, told from their sums.

    DTN has two softmaxes per task, over its own modules and over those of the others (model/dtn.py); MMoE, PLE and
    STEM have one over all.

    Args:
        task: its name. weights: mean weight by ``owner/module``.

    Returns:
        The groups; none where the weights sum to anything else (gates of a plug-in that are no softmax).

    >>> [group.name for group in gate_groups("buy", {"buy/gdcn": 1.0, "click/gdcn": 0.4, "shared/gdcn": 0.6})]
    ['own', 'others and shared']
    >>> [group.name for group in gate_groups("buy", {"buy/expert0": 0.5, "shared/expert0": 0.5})]
    ['']
    """
    own = {name: weight for name, weight in weights.items() if name.split("/")[0] == task}
    rest = {name: weight for name, weight in weights.items() if name not in own}
    if own and rest and _whole(own) and _whole(rest):
        owners = {name.split("/")[0] for name in rest}
        others = ["others"] if owners - {"shared"} else []
        shared = ["shared"] if "shared" in owners else []
        return GateGroup("own", own), GateGroup(" and ".join([*others, *shared]), rest)
    return (GateGroup("", weights),) if weights and _whole(weights) else ()


def _whole(weights: Weights) -> bool:
    return abs(sum(weights.values()) - 1) < EXACT


def gate_rows(weights: Mapping[str, Weights]) -> tuple[str, list[list[str]]]:
    """A title and rows: a row per module and a column per task, under a heading per group where there are several.

    A task's own modules are in one row with the own modules of the other tasks.

    >>> title, rows = gate_rows({"a": {"a/m": 1.0, "b/m": 1.0}, "b": {"b/m": 1.0, "a/m": 1.0}})
    >>> for row in rows: print(row)
    ['own (sum to 1)', '', '']
    ['  m', '1.000', '1.000']
    ['others (sum to 1)', '', '']
    ['  b/m', '1.000', '–']
    ['  a/m', '–', '1.000']
    """
    title = "mean gate weights over the test rows"
    groups = {task: gate_groups(task, columns) for task, columns in weights.items()}
    headings = list(dict.fromkeys(group.name for found in groups.values() for group in found))
    if not all(groups.values()) or headings == [""]:
        names = list(dict.fromkeys(name for columns in weights.values() for name in columns))
        rows = [[name, *(_shown(columns.get(name)) for columns in weights.values())] for name in names]
        return (f"{title} (each task's sum to 1)" if all(groups.values()) else title), rows
    rows = []
    for heading in headings:
        columns = [
            next(({_module(name, heading): w for name, w in g.weights.items()} for g in found if g.name == heading), {})
            for found in groups.values()
        ]
        rows.append([f"{heading or 'all'} (sum to 1)", *("" for _ in weights)])
        for name in dict.fromkeys(name for column in columns for name in column):
            rows.append([f"  {name}", *(_shown(column.get(name)) for column in columns)])
    return title, rows


def _module(name: str, heading: str) -> str:
    return name.split("/", 1)[1] if heading == "own" else name


def _shown(weight: float | None) -> str:
    return NONE if weight is None else decimal(weight, 3)
