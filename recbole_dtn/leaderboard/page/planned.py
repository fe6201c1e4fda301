"""The section of planned comparisons of a page: names of its drawings, and the table."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from recbole_dtn.leaderboard.planned import Planned, planned_table

__all__ = ["planned_content"]


def planned_content(found: Planned | None) -> dict[str, Any] | None:
    """What the template reads: names of the drawings, and the table; None without comparisons."""
    if found is None:
        return None
    table = planned_table(found, lambda value: Markup("<b>{}</b>").format(value) if value.significant else str(value))
    return {
        "title": found.title,
        "plots": [f"planned-{place}" for place in range(len({line.metric for line in found.lines}))],
        "columns": table.columns,
        "cells": table.cells,
        "note": found.note,
    }
