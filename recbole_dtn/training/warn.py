"""Warnings about a run: about its data before it starts, about its gates when it has ended."""

from __future__ import annotations

import numpy as np

from recbole_dtn.config.settings import Settings, TaskSettings
from recbole_dtn.preprocess.prepare import Split
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import BALANCERS

__all__ = ["failure_signs", "large_targets", "unread_weights"]

COLLAPSED = 0.95
UNIFORM = 0.005
LARGE = 25.0
"""Loss of a regression task at its start, times its weight, above which it outweighs a binary one (at most ln 2)."""
LOOKED_AT = 1 << 20


def unread_weights(settings: Settings) -> list[str]:
    """A sentence about weights of tasks that the chosen balancer does not read."""
    weighted = [task.name for task in settings.tasks if task.weight != 1.0]
    if not weighted or BALANCERS.attributes(settings.balancer.name).get("reads_weights"):
        return []
    return [
        f"the balancer {settings.balancer.name} does not read the weight of {', '.join(weighted)}: it weighs the tasks "
        "by itself (fixed reads them)"
    ]


def large_targets(tasks: list[TaskSettings], train: Split) -> list[str]:
    """Sentences about regression tasks whose squared error would outweigh the other tasks' losses.

    Args:
        tasks: of the data set. train: its training rows; at most the first 2^20 of them are looked at.
    """
    # Labels of all splits lie in one memory-mapped array; only the pages of these rows are read.
    rows = slice(train.start, train.start + min(train.rows, LOOKED_AT))
    labels, observed = train.store.labels[rows], train.store.observed[rows]
    found = []
    for position, task in enumerate(tasks):
        values = labels[:, position][observed[:, position]].astype(np.float64)
        # The loss of a model that predicts 0, which a fresh one nearly does.
        square = float(np.mean(values**2)) if len(values) else 0.0
        if task.kind == "regression" and task.weight * square > LARGE and len(tasks) > 1:
            found.append(
                f"task {task.name!r}: its targets are large (mean square {square:.3g}), so its loss would outweigh "
                f"the others': give it a weight of about {1 / square:.1g} in tasks, or write the target in other units"
            )
    return found


def failure_signs(record: RunRecord) -> list[str]:
    """Sentences about gates that collapsed or stayed uniform, and a best epoch so early that the model overfits."""
    signs = []
    interactions = record.settings.get("interactions", [])
    names = [entry if isinstance(entry, str) else entry["name"] for entry in interactions]
    if record.best_epoch is not None and record.best_epoch <= 2 < record.epochs and "memonet" in names:
        signs.append(
            f"the best epoch is {record.best_epoch}: MemoNet memorises small data at once; try a larger codebook_l2 or "
            "embedding_l2, fewer codes, or --interactions='[gdcn, masknet]'"
        )
    for task, weights in record.gate_weights.items():
        if len(weights) < 2:
            continue
        name, largest = max(weights.items(), key=lambda item: item[1])
        if largest > COLLAPSED:
            signs.append(f"the gate of {task} has collapsed: {name} has a mean weight of {largest:.3f}")
    flat = [
        task
        for task, weights in record.gate_weights.items()
        if len(weights) > 1 and max(weights.values()) - min(weights.values()) < UNIFORM
    ]
    if flat:
        signs.append(f"the gates of {', '.join(flat)} stayed uniform: the modules were averaged, not selected")
    return signs
