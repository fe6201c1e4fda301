"""Parts of every plot: one style, figures as SVG that takes the colour of the text around it, legends and ticks."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from recbole_dtn.report.text import cell, shown

__all__ = [
    "COLOURS",
    "MARKS",
    "NAME",
    "TEXT",
    "Plot",
    "few_ticks",
    "legend",
    "named_rows",
    "new_figure",
    "standalone",
    "style",
    "svg",
]

TEXT = "#010203"
"""The colour of lines and letters while a figure is drawn; :func:`svg` puts ``currentColor`` in its place, so that one
drawing suits a light and a dark page."""
COLOURS = ("#3d85c6", "#e0822f", "#2f9e78")
MARKS = ("o", "s", "^", "D", "v", "P")
NAME = 26
"""Characters of a name beside an axis."""
WIDTH = 7.2
FEW_POWERS = 300
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recbole_dtn",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a name is a $
}


@dataclass(frozen=True)
class Plot:
    """One drawing: its place in the page, its title, what it shows in words, and the SVG."""

    name: str
    title: str
    words: str
    svg: str


@contextmanager
def style() -> Iterator[None]:
    """``with style():`` figures are drawn in the style of our pages."""
    with matplotlib.rc_context(STYLE):
        yield


def new_figure(height: float, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure as wide as a page, ``height`` inches high, and its axes (those of one row, where there are several)."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots(1, columns, **options)


def svg(name: str, title: str, words: str, figure: Figure) -> Plot:
    """Draw a figure as SVG for the inside of a page.

    Args:
        name: prefix of every id in the drawing, since the drawings of a page share one set of ids.
        title: heading. words: what the drawing shows, for those who cannot see it. figure: what to draw.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    # Labels are ids and names of tasks; a zero-width space keeps one that begins with "_" from being hidden.
    text = shown(buffer.getvalue().replace("\u200b", ""))
    text = text[text.index("<svg") :].replace(TEXT, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", text)
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-words"'
    labels = (
        f'<title id="{name}-title">{escape(shown(title))}</title><desc id="{name}-words">{escape(shown(words))}</desc>'
    )
    text = re.sub(r"<svg([^>]*)>", lambda match: f"{head}{match[1]}>{labels}", text, count=1)
    return Plot(name, title, words, text)


def standalone(plot: Plot) -> str:
    """A drawing as a file of its own, with dark lines on a light ground, or the reverse where a reader prefers that.

    Args:
        plot: a drawing of :func:`svg`.
    """
    ground = (
        "svg{color:#1f2328;background:#fff}@media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}"
    )
    text = re.sub(r"(<svg[^>]*>)", lambda match: f"{match[1]}<style>{ground}</style>", plot.svg, count=1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def legend(axes: Axes) -> None:
    """A legend to the right of the axes, each label once."""
    handles, labels = axes.get_legend_handles_labels()
    first = dict(zip(labels, handles, strict=True))
    if first:
        axes.legend(list(first.values()), list(first), loc="center left", bbox_to_anchor=(1, 0.5))


def few_ticks(axis: Axis) -> None:
    """On a logarithmic axis number the powers of ten alone; 2 and 5 too where it spans few of them."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < FEW_POWERS * low else (1,), numticks=8))
    axis.set_minor_formatter(NullFormatter())


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row per name along the y axis, the first on top."""
    axes.set_yticks(range(len(names)), [cell(name, NAME) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
