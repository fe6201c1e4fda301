"""Where a command prints: rich on a terminal, plain text elsewhere."""

from __future__ import annotations

from rich.console import Console

from recbole_dtn.report.text import shown

__all__ = ["make_console", "say"]

WIDE = 160
"""Columns of an output that is not a terminal, where lines are not folded to the width of a screen."""


def make_console(*, quiet: bool = False, stderr: bool = False) -> Console:
    """A console without coloured words; if its output is not a terminal, it writes no control codes and folds no lines.

    Args:
        quiet: print nothing. stderr: write to the standard error instead of the standard output.
    """
    console = Console(quiet=quiet, stderr=stderr, highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(quiet=quiet, stderr=stderr, highlight=False, emoji=False, no_color=True, width=WIDE)


def say(console: Console, text: str, *, end: str = "\n") -> None:
    """Print text as it is: rich would take ``[gdcn]`` for markup and ``:train:`` for an emoji, and fold long lines.

    Control and direction characters, which ids and file names may hold, are shown escaped.
    """
    console.print(shown(text), end=end, markup=False, highlight=False, emoji=False, soft_wrap=True)
