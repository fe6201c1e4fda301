"""Names of a leaderboard's rows and metrics."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_dtn.leaderboard.statistics import BoardRow, Metric, usual_source

__all__ = ["MARK", "SHOWN", "WORSE", "metric_title", "row_labels", "sampled"]

MARK = "†"
"""Behind the name of a row whose numbers were selected on the test set."""
WORSE = "‡"
"""Behind the name of a row with runs whose log loss is above that of a constant."""
SHOWN = {"reach": "reach", "auc": "AUC", "logloss": "log loss", "rmse": "RMSE", "mae": "MAE"}
"""Titles of the metrics in the table of results."""


def metric_title(row: BoardRow, metric: Metric) -> str:
    """A task and one of the metrics in the table of results: ``click AUC``."""
    return f"{row.title_of(metric.task)} {SHOWN[metric.name]}"


def sampled(row: BoardRow) -> str:
    """What standard errors of a row's AUC are over: ``users`` (groups of rows) or ``rows``."""
    return "users" if row.settings.get("group_field") else "rows"


def row_labels(rows: Sequence[BoardRow], *, marked: bool = True) -> list[str]:
    """A name per row, with a digest where rows of one name on one data set differ. If ``marked``, marks of selection on
    the test set and of runs that are worse than a constant, and the data of a row that is on others than most."""
    named = []
    for row in rows:
        # A digest is shown only where a name alone would be ambiguous.
        together = [other for other in rows if other.dataset == row.dataset]
        same = [other for other in together if other.name == row.name]
        parts = []
        if len({other.settings_digest for other in same}) > 1:
            parts.append(row.settings_digest[:6])
        elsewhere = marked and row.source_fingerprint != usual_source(together)
        if elsewhere or len({other.source_fingerprint for other in same}) > 1:
            parts.append(f"data {row.source_fingerprint[:6]}")
        name = f"{row.name} ({', '.join(parts)})" if parts else row.name
        marks = MARK * row.selected_on_test + WORSE * bool(row.worse)
        named.append(f"{name} {marks}" if marks and marked else name)
    return named
