"""The program's name in help texts, and the folding of their lines."""

from __future__ import annotations

import shutil
import sys
import textwrap

__all__ = ["PROGRAM", "aligned", "help_width", "wrapped"]

PROGRAM = "python run_recbole_dtn.py"
"""How help texts and hints call the program."""


def help_width() -> int:
    """Columns that a help may fill: the terminal's, from 80 to 110; 100 if the output is not a terminal."""
    if not sys.stdout.isatty():
        return 100
    return min(max(shutil.get_terminal_size().columns, 80), 110)


def wrapped(text: str, indent: int = 0) -> list[str]:
    """The lines of a paragraph, folded between words to :func:`help_width`."""
    return textwrap.wrap(
        text,
        help_width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def aligned(head: str, text: str, column: int = 34) -> list[str]:
    """A name, and its meaning from a fixed column on; a name that is too long has its line for itself.

    >>> aligned("  --seed=0", "seed of everything", column=14)
    ['  --seed=0    seed of everything']
    """
    lines = wrapped(text, column) or [""]
    if len(head) + 2 > column:
        return [head, *lines]
    return [f"{head:<{column}}{lines[0].lstrip()}".rstrip(), *lines[1:]]
