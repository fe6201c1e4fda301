"""The files of a leaderboard: Markdown, CSV, LaTeX, a page, a drawing and its records, from rows and records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.leaderboard.archive import write_archive
from recbole_dtn.leaderboard.design import NO_DESIGN, Design
from recbole_dtn.leaderboard.fairness import board_rows
from recbole_dtn.leaderboard.latex import latex
from recbole_dtn.leaderboard.page.page import board_page
from recbole_dtn.leaderboard.plan import BoardPlan
from recbole_dtn.leaderboard.planned import planned
from recbole_dtn.leaderboard.render import write_csv, write_markdown
from recbole_dtn.leaderboard.statistics import BoardRow, by_dataset
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.files import write_text

__all__ = ["FORMS", "parse_forms", "write_forms"]

FORMS = ("md", "csv", "latex", "html", "svg", "records")


def parse_forms(names: Sequence[str]) -> tuple[str, ...]:
    """The forms that are named, in the order of :data:`FORMS`.

    Raises:
        UsageError: for an unknown one, or none.

    >>> parse_forms(["html", "md"])
    ('md', 'html')
    """
    for name in names:
        if name not in FORMS:
            raise UsageError(f"--format: unknown form {name!r}; {nearest(name, FORMS)}")
    if not names:
        raise UsageError(f"--format: expected some of {', '.join(FORMS)}, separated by commas")
    return tuple(form for form in FORMS if form in names)


def write_forms(
    records: Sequence[RunRecord],
    names: Mapping[str, str],
    folder: Path,
    board: str,
    forms: Sequence[str] = FORMS,
    *,
    design: Design = NO_DESIGN,
    stored: Stored | None = None,
    plan: BoardPlan | None = None,
) -> list[Path]:
    """Write the files of a leaderboard, each whole or not at all. The same records give the same bytes.

    Args:
        records: of the runs, in the order of the rows. names: of rows, by the digest of their settings.
        folder: of the files. board: their name. forms: some of :data:`FORMS`.
        design: which rows are compared. stored: statistics, speed and failures; None: those in the
            folder. plan: what was chosen for the rows, where they were matched or tuned.

    Returns:
        The paths, in the order of ``forms``; those of the CSV without its table of differences. There is an SVG only
        where comparisons were planned.
    """
    stored = Stored.read(board, folder) if stored is None else stored
    rows = board_rows(records, names, design, stored, plan)
    groups = list(by_dataset(rows).values())
    written = []
    for form in forms:
        if form == "md":
            written.append(write_markdown(rows, folder, board, stored))
        elif form == "csv":
            written.append(write_csv(rows, folder, board))
        elif form == "latex":
            written.append(folder / f"{board}.tex")
            write_text(written[-1], latex(groups))
        elif form == "svg":
            written += _write_svg(rows, folder, board)
        elif form == "records":
            written.append(write_archive(records, names, folder, board, design))
        else:
            written.append(folder / f"{board}.html")
            write_text(written[-1], board_page(groups, records, board, stored=stored))
    return written


def _write_svg(rows: Sequence[BoardRow], folder: Path, board: str) -> list[Path]:
    """Draw the planned comparisons; without any, the drawing of an earlier board is removed."""
    path, found = folder / f"{board}.svg", planned(rows)
    if found is None:
        path.unlink(missing_ok=True)
        return []
    from recbole_dtn.leaderboard.planned_plots import planned_svg  # loads matplotlib

    write_text(path, planned_svg(found, board))
    return [path]
