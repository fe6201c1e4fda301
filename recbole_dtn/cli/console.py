"""Where a command prints: rich on a terminal, plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["make_console", "say", "show_table"]


def make_console(*, quiet: bool = False) -> Console:
    """The console of one command; off a terminal it writes no control codes and breaks no line."""
    console = Console(quiet=quiet, highlight=False)
    return console if console.is_terminal else Console(quiet=quiet, highlight=False, no_color=True, width=160)


def say(console: Console, text: str) -> None:
    """Print text as it is: no markup, no line broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; off a terminal, columns set apart by two spaces, with nothing cut."""
    if console.is_terminal:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(_escaped(cell) for cell in row))
        console.print(table)
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        say(console, "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _escaped(cell: str) -> str:
    return cell.replace("[", r"\[")
