"""How often a model ranks a task above one that it comes after."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_dtn.metric.base import gather_on_cpu
from recbole_dtn.schema import TaskSpec

__all__ = ["ChainBreaks"]


class ChainBreaks:
    """Counts rows with ``P(later) > P(earlier)``, for every task and each task that it comes after.

    Labels of a chain are nested (a purchase is a click too), so that no probability may exceed its predecessor's. Only
    pairs of binary tasks that are observed on the same rows count: with ``observed_when: click == 1`` the later
    probability is conditional, and may exceed it.

    Args:
        tasks: the T tasks, in the order of the columns.

    >>> tasks = (TaskSpec("click", "binary", "c"), TaskSpec("buy", "binary", "b", after=("click",)))
    >>> breaks = ChainBreaks(tasks)
    >>> breaks.update(torch.tensor([[0.5, 0.4], [-1.0, -0.9], [2.0, 2.0]]))
    >>> breaks.compute()
    {'buy': {'click': (1, 3)}}
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        by_name = {task.name: (position, task) for position, task in enumerate(tasks)}
        self.pairs: dict[tuple[str, str], tuple[int, int]] = {}
        for position, task in enumerate(tasks):
            for name in task.after:
                place, before = by_name[name]
                same_rows = task.observed_when == before.observed_when
                if same_rows and task.kind == before.kind == "binary":
                    self.pairs[task.name, name] = position, place
        self.counts = torch.zeros(len(self.pairs) + 1, dtype=torch.int64)  # the last: rows

    def update(self, logits: Tensor) -> None:
        """Add a batch of logits (B, T)."""
        if self.pairs:
            # Logits, not probabilities: in float32 the sigmoids of 17 and 18 are both 1.
            broken = [(logits[:, later] > logits[:, before]).sum() for later, before in self.pairs.values()]
            rows = torch.full_like(broken[0], logits.shape[0])
            self.counts += torch.stack([*broken, rows]).cpu()

    def compute(self) -> dict[str, dict[str, tuple[int, int]]]:
        """``{later: {earlier: (rows that break the chain, rows)}}`` over all processes."""
        counts = self.counts
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            counts = torch.stack(gather_on_cpu(counts)).sum(0)
        *broken, rows = counts.tolist()
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for (later, before), count in zip(self.pairs, broken, strict=True):
            if rows:
                found.setdefault(later, {})[before] = (count, rows)
        return found
