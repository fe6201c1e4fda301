"""Names of a leaderboard's rows."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_dtn.leaderboard.statistics import BoardRow

__all__ = ["MARK", "WORSE", "row_labels"]

MARK = "†"
"""Behind the name of a row whose numbers were selected on the test set."""
WORSE = "‡"
"""Behind the name of a row with runs whose log loss is above that of a constant."""


def row_labels(rows: Sequence[BoardRow]) -> list[str]:
    """A name per row, with a digest where rows of one name on one data set differ, and marks (of selection on the test
    set, and of runs that are worse than a constant)."""
    named = []
    for row in rows:
        # A digest is shown only where a name alone would be ambiguous.
        same = [other for other in rows if (other.dataset, other.name) == (row.dataset, row.name)]
        parts = []
        if len({other.settings_digest for other in same}) > 1:
            parts.append(row.settings_digest[:6])
        if len({other.source_fingerprint for other in same}) > 1:
            parts.append(f"data {row.source_fingerprint[:6]}")
        name = f"{row.name} ({', '.join(parts)})" if parts else row.name
        marks = MARK * row.selected_on_test + WORSE * bool(row.worse)
        named.append(f"{name} {marks}" if marks else name)
    return named
