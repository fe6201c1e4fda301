"""Where a command prints: rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["PROGRAM", "help_width", "make_console", "say", "show_table"]

PROGRAM = "python run_recbole_dtn.py"
"""How help texts and hints call the program."""


def help_width() -> int:
    """Columns that a help may fill: the terminal's, from 80 to 110; 100 where the output is no terminal."""
    if not sys.stdout.isatty():
        return 100
    return min(max(shutil.get_terminal_size().columns, 80), 110)


def make_console(*, quiet: bool = False) -> Console:
    """The console of one command; off a terminal it writes no control codes and breaks no line."""
    console = Console(quiet=quiet, highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(quiet=quiet, highlight=False, emoji=False, no_color=True, width=160)


def say(console: Console, text: str) -> None:
    """Print text as it is: no markup, no emoji codes, no line broken."""
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def show_table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, longest: int | None = None
) -> None:
    """A table. On a terminal long cells fold within its width; elsewhere two spaces part the columns, nothing is cut.

    Args:
        console: where to. columns: headings. rows: cells, as text.
        longest: characters that a cell may have before it folds on a terminal; elsewhere a longer cell pushes the rest
            of its own row aside, and no other row.
    """
    if console.is_terminal:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for position, column in enumerate(columns):
            width = max([len(column), *(len(row[position]) for row in rows)])
            names = position == 0 and 3 * width <= console.width  # names are read, and copied, whole
            table.add_column(Text(column), overflow="fold", no_wrap=names, max_width=longest)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    widths = [
        max(len(cell) for cell in column if longest is None or len(cell) <= longest)
        for column in zip(columns, *rows, strict=True)
    ]
    for row in (columns, *rows):
        say(console, "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
