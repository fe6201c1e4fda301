"""Any metric by domain: the mean of the domains' values, or the worst of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dtn.config.metric_names import Mean, metric_name
from recbole_dtn.metric.base import Rows, TaskMetric, undefined, value_or_none
from recbole_dtn.metric.kept import RowsMetric
from recbole_dtn.registry import METRICS

__all__ = ["DomainMetric", "by_domain", "metric_class"]


class DomainMetric(RowsMetric):
    """A metric of each domain's rows, made one number; :func:`by_domain` makes the class for a metric.

    ``macro``: the plain mean over the domains where it is defined; ``weighted``: their mean by rows (sample weights);
    ``worst``: the lowest or highest value, whichever end is worse. Undefined where it is undefined for every domain.

    ``details`` has, for every domain by its number, its ``rows``, ``positives`` (of a binary task) and ``value``; in a
    domain of one class an AUC is null. Keeps the rows (see :class:`RowsMetric`), and computes the metric of one domain
    after the other.
    """

    base: type[TaskMetric]
    mean: Mean
    needs_domain = True
    by_default = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._found: dict[int, dict[str, float | None]] = {}

    def compute(self) -> Tensor:
        self._found = dict(self._each(self.rows()))
        values, weights = (
            np.array([part[key] for part in self._found.values() if part["value"] is not None], np.float64)
            for key in ("value", "rows")
        )
        if not len(values):
            return undefined()
        if self.mean == "worst":
            found = values.min() if self.higher_is_better else values.max()
        else:
            found = np.average(values, weights=weights if self.mean == "weighted" else None)
        return torch.tensor(float(found), dtype=torch.float64)

    def _each(self, rows: Rows) -> Iterator[tuple[int, dict[str, float | None]]]:
        """Number and findings of each domain that has rows."""
        assert rows.domain is not None
        # Sorted once; a domain's rows are then a slice, whatever the number of domains.
        order = torch.argsort(rows.domain, stable=True)
        numbers, sizes = torch.unique_consecutive(rows.domain[order], return_counts=True)
        for number, places in zip(numbers.tolist(), torch.split(order, sizes.tolist()), strict=True):
            own = rows.take(places)
            metric = self.base(**self._options)
            metric.distributed_available_fn = _alone  # the rows of all processes are here already
            metric.update(own.logits, own.labels, None, own.weights, own.group, own.domain)
            about: dict[str, float | None] = {"rows": float(own.mass.sum())}
            if self.task_kind == "binary":
                about["positives"] = float((own.mass * own.labels.double()).sum())
            yield number, {**about, "value": value_or_none(metric.compute())}

    def details(self) -> dict[str, Any]:
        return {"domains": {str(number): dict(found) for number, found in self._found.items()}}


def _alone() -> bool:
    return False


@cache
def by_domain(base: type[TaskMetric], mean: Mean) -> type[DomainMetric]:
    """The class of ``base`` by domain, with the same options.

    >>> from recbole_dtn.metric.logloss import LogLoss
    >>> metric = by_domain(LogLoss, "worst")()
    >>> domain = torch.tensor([3, 3, 8])
    >>> metric.update(torch.zeros(3) + domain - 3, torch.tensor([1.0, 0.0, 0.0]), domain=domain)
    >>> metric.compute()  # log 2 in domain 3; softplus(5) in domain 8
    tensor(5.0067, dtype=torch.float64)
    """
    shared = ("task_kind", "higher_is_better", "needs_calibrated", "needs_group")
    attributes = {key: getattr(base, key) for key in shared}
    return type(f"{base.__name__}ByDomain", (DomainMetric,), {"base": base, "mean": mean, **attributes})


def metric_class(name: str) -> Any:
    """The class that a name of settings means; its options are those of the registered metric.

    >>> metric_class("auc/domain_worst").__name__
    'ExactAUCByDomain'
    """
    found = metric_name(name)
    kind = METRICS.load(found.base)
    return kind if found.mean is None else by_domain(kind, found.mean)
