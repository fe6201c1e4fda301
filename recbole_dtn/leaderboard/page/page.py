"""The page of a leaderboard as text: a table to sort and filter, plots, and each row's settings and runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from recbole_dtn.leaderboard.labels import row_labels
from recbole_dtn.leaderboard.page.content import across_content, board_content, tunings_of
from recbole_dtn.leaderboard.page.planned import planned_content
from recbole_dtn.leaderboard.page.tuning import history_plot
from recbole_dtn.leaderboard.planned import planned
from recbole_dtn.leaderboard.statistics import BoardRow
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.text import shown_in

__all__ = ["board_page", "script_json"]


def board_page(
    groups: Sequence[Sequence[BoardRow]],
    records: Sequence[RunRecord],
    title: str,
    *,
    version: str = "",
    stored: Stored | None = None,
) -> str:
    """The page as text; the same rows and records give the same text.

    Args:
        groups: the rows of each data set. records: of their runs. title: of the leaderboard.
        version: of a page that is served, which asks its server for a newer one; none for a file.
        stored: failures of cells, and the machine of the serial pass.
    """
    from recbole_dtn.leaderboard.planned_plots import planned_plots  # loads matplotlib, as does the next
    from recbole_dtn.report.page import render

    content = shown_in(board_content(groups, records, stored or Stored()))
    data = Markup(script_json(content))
    found = (history_plot(f"tuning-{place}", tunings_of(rows, row_labels(rows))) for place, rows in enumerate(groups))
    every_row = [row for rows in groups for row in rows]
    compared = planned(every_row)
    plots = [*(plot for plot in found if plot is not None), *(planned_plots(compared) if compared is not None else ())]
    return render(
        "recbole_dtn.leaderboard.page",
        "page.html.j2",
        plots,
        title=title,
        boards=content,
        data=data,
        version=version,
        together=across_content(every_row),
        planned=planned_content(compared),
    )


def script_json(value: Any) -> str:
    r"""JSON that may stand inside a script element: no text in it ends the element or begins a comment.

    >>> script_json({"name": "</script><!--"})
    '{"name":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
