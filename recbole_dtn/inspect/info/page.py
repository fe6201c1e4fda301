"""The page of ``data info``: one HTML file that needs no network."""

from __future__ import annotations

from recbole_dtn.inspect.info.plots import plots
from recbole_dtn.inspect.info.report import DataInfo, PairInfo, SingleFieldAuc
from recbole_dtn.report.page import render

__all__ = ["page"]

BEST = 10


def page(info: DataInfo) -> str:
    """The page as text."""
    return render(
        "recbole_dtn.inspect.info",
        "page.html.j2",
        plots(info).values(),
        info=info,
        total=sum(info.rows.values()),
        regressions=any(task.kind == "regression" for task in info.tasks),
        paired=_paired(info),
        chained=[pair for pair in info.pairs if pair.violations is not None],
        best=_best(info),
    )


def _paired(info: DataInfo) -> dict[str, dict[str, dict[str, PairInfo]]]:
    """By split, task and other task."""
    found: dict[str, dict[str, dict[str, PairInfo]]] = {}
    for pair in info.pairs:
        found.setdefault(pair.split, {}).setdefault(pair.task, {})[pair.other] = pair
    return found


def _best(info: DataInfo) -> dict[str, list[SingleFieldAuc]]:
    """By task, the fields that predict it best alone."""
    found: dict[str, list[SingleFieldAuc]] = {}
    for alone in info.single_field_auc or ():
        found.setdefault(alone.task, []).append(alone)
    return {task: sorted(alone, key=lambda one: -one.auc)[:BEST] for task, alone in found.items()}
