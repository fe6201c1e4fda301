"""The plots of the benchmarks, in one style: ours in colour, others in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OURS, OTHER, LIGHT = "#1f6f8b", "#b0b7bd", "#d8dde1"
COLOURS = ("#1f6f8b", "#d1603d", "#6a994e", "#7d5ba6", "#c9a227", "#4a4e69", "#b5446e", "#5fa8d3")


def new(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, without the frame's right and upper line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained", **options)
    for each in np.atleast_1d(axes):
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def write(figure: Any, path: Path) -> None:
    """As PNG."""
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"plot: {path}")


def bars(
    axes: Any, values: Mapping[str, Sequence[float]], label: str, *, more_is_better: bool = True, digits: int = 0
) -> None:
    """A bar per side, the best on top: the median of its values, and a line from the least to the largest."""
    names = sorted(values, key=lambda name: float(np.median(values[name])), reverse=not more_is_better)
    middles = [float(np.median(values[name])) for name in names]
    spread = [
        [middle - min(values[name]) for name, middle in zip(names, middles, strict=True)],
        [max(values[name]) - middle for name, middle in zip(names, middles, strict=True)],
    ]
    colours = [OURS if is_ours(name) else OTHER for name in names]
    axes.barh(names, middles, xerr=spread, color=colours, error_kw={"ecolor": "#444", "elinewidth": 1})
    for place, name in enumerate(names):
        axes.annotate(
            f"{middles[place]:,.{digits}f}", (max(values[name]), place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8, color="#333",
        )  # fmt: skip
    axes.set_xlabel(label)
    axes.margins(x=0.14, y=0.02)


def is_ours(name: str) -> bool:
    """Whether a side is the product, by its name."""
    return name.startswith(("ours", "full", "fused", "exact_auc", "ExactAUC"))
