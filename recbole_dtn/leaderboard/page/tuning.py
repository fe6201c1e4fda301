"""The section Tuning of a page: what the trials of each row found, and what mattered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from recbole_dtn.leaderboard.plan import RowTuning
from recbole_dtn.tuning.trial import Trial, best_so_far

__all__ = ["changed", "history_plot", "state_words", "tuning_content", "tuning_page"]

Tunings = Sequence[tuple[str, RowTuning]]
"""Rows that were tuned, under the names that tables give them."""


def tuning_content(tunings: Tunings) -> dict[str, Any] | None:
    """What the template reads: the trials of every row with the best value so far, and importances."""
    if not tunings:
        return None
    return {"metric": tunings[0][1].metric, "rows": [_row(name, tuning) for name, tuning in tunings]}


def _row(name: str, tuning: RowTuning) -> dict[str, Any]:
    best = best_so_far(tuning.trials, higher=tuning.higher)
    found = tuning.best_trial
    return {
        "name": name,
        "count": len(tuning.trials),
        "wanted": tuning.wanted,
        "best": None
        if found is None
        else {"number": found.number, "value": found.value, "settings": changed(tuning, found)},
        "seconds": sum(trial.seconds or 0.0 for trial in tuning.trials),
        "importances": [{"key": key, "share": value} for key, value in tuning.importances.items()],
        "trials": [
            {
                "number": trial.number,
                "state": state_words(trial),
                "value": trial.value,
                "best": so_far,
                "seconds": trial.seconds,
                "settings": changed(tuning, trial),
            }
            for trial, so_far in zip(tuning.trials, best, strict=True)
        ],
    }


def changed(tuning: RowTuning, trial: Trial) -> str:
    """The settings of a trial that differ from trial 0, in a line."""
    defaults = tuning.trials[0].params
    told = [f"{key}={value}" for key, value in trial.params.items() if value != defaults.get(key)]
    return ", ".join(told) or "the defaults"


def state_words(trial: Trial) -> str:
    """How a trial ended.

    >>> state_words(Trial(number=1, state="failed", reason="the loss is nan"))
    'failed: the loss is nan'
    """
    return f"{trial.state}: {trial.reason}" if trial.reason else trial.state


def history_plot(name: str, tunings: Tunings) -> Any:
    """The best value so far against trials and against time; None without a value.

    Args:
        name: of the drawing in its page. tunings: the rows; one line each.
    """
    from recbole_dtn.report.plots import MARKS, legend, new_figure, style, svg  # loads matplotlib

    known = [(row, tuning) for row, tuning in tunings if tuning.best is not None]
    if not known:
        return None
    metric = known[0][1].metric
    with style():
        figure, (left, right) = new_figure(max(2.6, 0.6 + 0.18 * len(known)), 2, sharey=True)
        for place, (row, tuning) in enumerate(known):
            best = best_so_far(tuning.trials, higher=tuning.higher)
            at = [(number, value) for number, value in enumerate(best, 1) if value is not None]
            minutes = [seconds / 60 for seconds in accumulate(trial.seconds or 0.0 for trial in tuning.trials)]
            look: dict[str, Any] = {
                "color": f"C{place % 10}", "marker": MARKS[place // 10 % len(MARKS)], "markersize": 3,
                "drawstyle": "steps-post", "linewidth": 1.2,
            }  # fmt: skip
            values = [value for _, value in at]
            left.plot([number for number, _ in at], values, **look)
            right.plot([minutes[number - 1] for number, _ in at], values, label=row, **look)
        left.set_xlabel("trials")
        left.set_ylabel(f"best {metric} so far")
        left.xaxis.get_major_locator().set_params(integer=True)
        right.set_xlabel("minutes of training")
        legend(right)
        words = f"best {metric} of the complete trials so far, for {', '.join(row for row, _ in known)}"
        return svg(name, "Best on validation so far", words, figure)


def tuning_page(title: str, tunings: Tunings, notes: Sequence[str] = (), *, reload: int | None = None) -> str:
    """A page of the section alone.

    Args:
        title: of the page. tunings: the rows. notes: sentences above it. reload: seconds until it is loaded again.
    """
    from recbole_dtn.report.page import render

    plot = history_plot("tuning-0", tunings)
    return render(
        "recbole_dtn.leaderboard.page", "tune.html.j2", [plot] if plot else [], title=title,
        tuning=tuning_content(tunings), notes=notes, reload=reload,
    )  # fmt: skip
