"""HTML pages in one file that needs no network: a shell with the style, into which a package's own template goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup

from recbole_dtn.report.plots import Plot
from recbole_dtn.report.text import clipped, count, decimal, number, p_value, share, shown

__all__ = ["render"]


def render(package: str, template: str, plots: Iterable[Plot] = (), **values: Any) -> str:
    """A page as text.

    The template begins with ``{% extends "report/shell.html.j2" %}`` and fills the blocks ``title`` and ``body``;
    ``{{ figure(name) }}`` puts a plot in its place, or nothing where there is no such plot. Filters: ``share``,
    ``number``, ``decimal``, ``grouped`` (a whole number) and ``clipped``.

    Args:
        package: where the template is. template: its file name. plots: drawings by their names. values: what else the
            template reads; an unknown name in it is an error.
    """
    loader = PrefixLoader({"report": PackageLoader("recbole_dtn.report", ""), "page": PackageLoader(package, "")})
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Control characters are not valid in HTML, and direction characters reorder what is beside them.
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.filters |= {
        "share": share,
        "number": number,
        "grouped": count,
        "clipped": clipped,
        "decimal": decimal,
        "p_value": p_value,
    }
    drawn = {plot.name: (plot.title, Markup(plot.svg)) for plot in plots}
    return environment.get_template(f"page/{template}").render(plots=drawn, **values)
