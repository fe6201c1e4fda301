"""The page of ``data info``: one HTML file that needs no network."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from recbole_dtn.inspect.info.plots import plots
from recbole_dtn.inspect.info.report import DataInfo, PairInfo, SingleFieldAuc
from recbole_dtn.inspect.info.text import clipped, count, decimal, number, share

__all__ = ["page"]

TEMPLATE = "page.html.j2"
BEST = 10


def page(info: DataInfo) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"share": share, "number": number, "grouped": count, "clipped": clipped, "decimal": decimal}
    template = environment.from_string((files("recbole_dtn.inspect.info") / TEMPLATE).read_text(encoding="utf-8"))
    drawn = {name: (plot.title, Markup(plot.svg)) for name, plot in plots(info).items()}
    return template.render(
        info=info,
        total=sum(info.rows.values()),
        plots=drawn,
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
    """By task, the fields that tell it apart best alone."""
    found: dict[str, list[SingleFieldAuc]] = {}
    for alone in info.single_field_auc or ():
        found.setdefault(alone.task, []).append(alone)
    return {task: sorted(alone, key=lambda one: -one.auc)[:BEST] for task, alone in found.items()}
