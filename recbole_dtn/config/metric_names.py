"""Names of metrics as settings write them: a registered name, with a depth or a part. Does not import torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from recbole_dtn.errors import UsageError
from recbole_dtn.registry import METRICS

__all__ = ["Mean", "MetricName", "is_metric", "metric_about", "metric_name"]

Mean = Literal["macro", "weighted", "worst"]
PART = "domain"
SUFFIXES: dict[str, Mean] = {PART: "macro", f"{PART}_weighted": "weighted", f"{PART}_worst": "worst"}
FORM = re.compile(r"(?P<base>[^@/]+)(@(?P<depth>[^@/]*))?(/(?P<suffix>[^@/]*))?")


@dataclass(frozen=True)
class MetricName:
    """``<base>[@<k>][/domain[_weighted|_worst]]``, taken apart.

    Attributes:
        base: the registered name. k: the option ``k`` of the metric; None: not in the name.
        mean: how the values of the domains become one; None: of all rows at once.
    """

    base: str
    k: int | None = None
    mean: Mean | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options that the name implies."""
        return {} if self.k is None else {"k": self.k}


def metric_name(name: str) -> MetricName:
    """The parts of a metric's name.

    ``ndcg@5`` is ``ndcg`` with the option ``k: 5``. ``auc/domain`` is the mean of the domains' AUC,
    ``auc/domain_weighted`` the mean weighted by their rows, and ``auc/domain_worst`` the worst of them.

    Raises:
        UsageError: for an unknown metric, a depth that is no number or that the metric has not, an unknown suffix, and
            the worst domain of a metric that is best at neither end.

    >>> metric_name("ndcg@5/domain_worst")
    MetricName(base='ndcg', k=5, mean='worst')
    """
    form = FORM.fullmatch(name)
    if form is None:
        raise UsageError(f"unknown metric {name!r}: expected <metric>, <metric>@<k> or <metric>/{PART}")
    base, depth, suffix = form["base"], form["depth"], form["suffix"]
    entry = METRICS.entry(base)
    if suffix is not None and suffix not in SUFFIXES:
        raise UsageError(f"metric {name!r}: expected {_listed(f'{base}/{known}' for known in SUFFIXES)}")
    mean = None if suffix is None else SUFFIXES[suffix]
    if mean == "worst" and METRICS.attributes(base).get("higher_is_better") is None:
        raise UsageError(f"metric {name!r}: {base} is best at neither end, so that no domain is worst; {base}/{PART}")
    if mean is not None and METRICS.attributes(base).get("needs_domain"):
        raise UsageError(f"metric {name!r}: {base} reads the domains itself; leave /{suffix} out")
    if depth is None:
        return MetricName(base, None, mean)
    if not depth.isascii() or not depth.isdigit() or int(depth) < 1:
        raise UsageError(f"metric {name!r}: expected a number of rows of at least 1 after the @; found {depth!r}")
    if entry.options is not None and "k" not in entry.options:
        deep = [known for known in METRICS.names() if "k" in (METRICS.entry(known).options or {})]
        raise UsageError(f"metric {name!r}: {base} has no depth k, as {_listed(deep)} have; leave @{depth} out")
    return MetricName(base, int(depth), mean)


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def is_metric(name: str) -> bool:
    """Whether settings may name this metric.

    >>> is_metric("auc/domain"), is_metric("auc/user"), is_metric("acu")
    (True, False, False)
    """
    try:
        metric_name(name)
    except UsageError:
        return False
    return True


def metric_about(name: str) -> dict[str, Any]:
    """The class attributes of a metric, as :meth:`Registry.attributes`; one by domain needs domains.

    Raises:
        UsageError: as :func:`metric_name`.
    """
    found = metric_name(name)
    about = METRICS.attributes(found.base)
    return about if found.mean is None else {**about, "needs_domain": True, "by_default": False}
