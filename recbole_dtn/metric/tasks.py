"""All metrics of all tasks of a split."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.metric.base import TaskMetric, value_or_none
from recbole_dtn.registry import METRICS
from recbole_dtn.schema import TaskSpec

__all__ = ["MultiTaskMetrics"]

ORDER = ("auc", "logloss", "ne", "calibration", "rmse", "mae")
"""Order of the built-in metrics in tables and records; those of plug-ins follow by name."""


class MultiTaskMetrics(nn.Module):
    """Every registered metric of every task, each over the rows where its task is observed.

    A binary task has ``auc``, ``logloss``, ``ne``, ``calibration``; a regression task ``rmse``, ``mae``; plug-ins add
    to the kind that they name. Under several processes with any number of rows each, every row counts once.

    Args:
        tasks: the T tasks, in the order of the columns.

    Raises:
        UsageError: for a registered metric that is not a :class:`TaskMetric`.
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        names = sorted(METRICS.names(), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
        classes = {name: _metric_class(name) for name in names}
        # A list, because a task may have a name that a ModuleDict refuses.
        self.names = [[name for name in names if classes[name].task_kind == task.kind] for task in self.tasks]
        self.metrics = nn.ModuleList(nn.ModuleList(classes[name]() for name in names) for names in self.names)

    def _of_task(self, position: int) -> list[tuple[str, TaskMetric]]:
        modules = self.metrics[position]
        assert isinstance(modules, nn.ModuleList)
        found: list[tuple[str, TaskMetric]] = []
        for name, module in zip(self.names[position], modules, strict=True):
            assert isinstance(module, TaskMetric)
            found.append((name, module))
        return found

    def update(self, logits: Tensor, labels: Tensor, observed: Tensor, sample_weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: (B, T). labels: (B, T). observed: (B, T) bool. sample_weight: (B,) or None.
        """
        logits, labels, observed = logits.detach().cpu(), labels.cpu(), observed.cpu()
        weights = None if sample_weight is None else sample_weight.cpu()
        for position in range(len(self.tasks)):
            rows = observed[:, position]
            scores, truth = logits[rows, position], labels[rows, position]
            mass = None if weights is None else weights[rows]
            for _, metric in self._of_task(position):
                metric.update(scores, truth, sample_weight=mass)

    def compute(self) -> dict[str, dict[str, float | None]]:
        """``{task: {metric: value}}`` over all processes; None where undefined.

        ``ne`` and ``calibration`` are None for a task with ``pos_weight``: its predictions are no probabilities.
        """
        found: dict[str, dict[str, float | None]] = {}
        for position, task in enumerate(self.tasks):
            values = {name: value_or_none(metric.compute()) for name, metric in self._of_task(position)}
            if task.pos_weight != 1.0:
                values.update({name: None for name, metric in self._of_task(position) if metric.needs_calibrated})
            found[task.name] = values
        return found

    def reset(self) -> None:
        """Forget all rows."""
        for position in range(len(self.tasks)):
            for _, metric in self._of_task(position):
                metric.reset()


def _metric_class(name: str) -> type[TaskMetric]:
    found = METRICS.load(name)
    if not (isinstance(found, type) and issubclass(found, TaskMetric)):
        raise UsageError(f"metric {name!r}: expected a subclass of recbole_dtn.metric.base.TaskMetric, found {found!r}")
    return found
