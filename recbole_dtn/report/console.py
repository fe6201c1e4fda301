"""Where a command prints: rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from rich.console import Console

from recbole_dtn.errors import why
from recbole_dtn.report.text import shown

__all__ = ["make_console", "say"]

WIDE = 160
"""Columns of an output that is not a terminal, where lines are not folded to the width of a screen."""


class _Console(Console):
    """A console whose reader may go away, and whose file may be on a full disk.

    Args:
        lasting: go on without printing then, since what is printed is not what the work is for.
    """

    def __init__(self, *, lasting: bool = False, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)
        self.lasting = lasting

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            if not self.lasting:
                raise
            self.quiet = True
            told = f"standard output cannot be written {why(error)}; what is running goes on"
            with contextlib.suppress(OSError):  # both may have had one reader
                print(f"warning: nothing more is printed: {told}", file=sys.stderr, flush=True)

    def on_broken_pipe(self) -> None:
        raise  # rich would end the process here


def make_console(*, quiet: bool = False, stderr: bool = False, lasting: bool = False) -> Console:
    """A console without coloured words; if its output is not a terminal, it writes no control codes and folds no lines.

    Args:
        quiet: print nothing. stderr: write to the standard error instead of the standard output.
        lasting: when the output can no longer be written (a full disk, a reader that has gone), say so once on the
            standard error and print nothing more, instead of raising.
    """
    console = _Console(quiet=quiet, stderr=stderr, lasting=lasting)
    if console.is_terminal:
        return console
    return _Console(quiet=quiet, stderr=stderr, lasting=lasting, no_color=True, width=WIDE)


def say(console: Console, text: str, *, end: str = "\n") -> None:
    """Print text as it is: rich would take ``[gdcn]`` for markup and ``:train:`` for an emoji, and fold long lines.

    Control and direction characters, which ids and file names may hold, are shown escaped.
    """
    console.print(shown(text), end=end, markup=False, highlight=False, emoji=False, soft_wrap=True)
