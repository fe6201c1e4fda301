"""One table in four forms: on a terminal, as plain columns, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recbole_dtn.report.console import say
from recbole_dtn.report.text import LONGEST_CELL, cell, shown

__all__ = ["Marked", "csv_lines", "csv_text", "escaped", "markdown_table", "marked", "plain_lines", "show_table"]

GAP = 3
"""Spaces between two columns on a terminal."""
MARKUP = re.compile(
    r"[|$`~*]|<(?=[A-Za-z/!?])"
    r"|\](?=[(\[:])"  # of a link or an image; brackets alone are text
    r"|(?<![^\W_])_"  # within a word it is text
    r"|&(?=#?\w+;)"
    r"|\\(?=[!-/:-@\[-`{-~])"  # it would take the meaning of what stands behind it, such as the backslash put there
)
"""What is more than text in Markdown as GitHub has it."""
FORMULA = re.compile(r"'*([=@\t\n]|[+-](?!\d*\.?\d*(e[+-]?\d+)?\Z))")
"""How text begins that a spreadsheet takes for a formula, apostrophes left out; a number with its sign is none."""
Row = Sequence[str]


class Marked(str):
    """A cell that is Markdown already; every other is text."""

    __slots__ = ()


def show_table(
    console: Console, columns: Row, rows: Sequence[Row], *, numbers: bool = False, longest: int | None = None
) -> None:
    """Print a table. On a terminal long cells fold within its width; elsewhere nothing is folded.

    A table of numbers that is wider than the terminal is printed in parts, each with the first column: no number folds.

    Args:
        console: where to print. columns: headings. rows: cells, as text.
        numbers: whether all columns but the first are numbers, aligned to the right.
        longest: characters that a cell may have before it folds on a terminal; elsewhere a longer cell pushes the rest
            of its own row to the right, and no other row. None: cells are cut at ``LONGEST_CELL`` characters.
    """
    if not console.is_terminal:
        for line in plain_lines(columns, rows, numbers=numbers, longest=longest):
            say(console, line)
        return
    columns, rows = _cells(columns, longest), [_cells(row, longest) for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for part in _parts(widths, console.width) if numbers else [list(range(len(columns)))]:
        if part[1:2] > [1]:
            console.print()
        _show_part(console, [[line[place] for place in part] for line in (columns, *rows)], numbers, longest)


def _parts(widths: Sequence[int], most: int) -> list[list[int]]:
    """The places of the columns of each part of a table that is at most so wide, the first column in all of them.

    >>> _parts([5, 4, 4, 4], 26), _parts([5, 4, 4, 4], 25), _parts([30, 10], 20)
    ([[0, 1, 2, 3]], [[0, 1, 2], [0, 3]], [[0, 1]])
    """
    whole = sum(widths) + GAP * (len(widths) - 1)
    first = widths[0] if whole <= most else min(widths[0], most // 3)  # which folds
    found: list[list[int]] = [[0]]
    left = most - first
    for place, width in enumerate(widths[1:], 1):
        if left < width + GAP and len(found[-1]) > 1:
            found.append([0])
            left = most - first
        found[-1].append(place)
        left -= width + GAP
    return found


def _show_part(console: Console, lines: Sequence[Row], numbers: bool, longest: int | None) -> None:
    columns, *rows = lines
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for position, column in enumerate(columns):
        width = max([len(column), *(len(row[position]) for row in rows)])
        table.add_column(
            Text(column),
            justify="right" if numbers and position else "left",
            overflow="fold",
            no_wrap=position == 0 and 3 * width <= console.width,  # a short name stays in one piece, to be copied
            max_width=longest,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def plain_lines(columns: Row, rows: Sequence[Row], *, numbers: bool = False, longest: int | None = None) -> list[str]:
    """The lines of a table whose columns are separated by two spaces.

    Args:
        columns, rows, numbers, longest: as for :func:`show_table`.

    >>> plain_lines(["task", "AUC"], [["click", "0.7"], ["buy", "0.65"]], numbers=True)
    ['task    AUC', 'click   0.7', 'buy    0.65']
    """
    lines = [_cells(row, longest) for row in (columns, *rows)]
    widths = [
        max(len(text) for text in column if longest is None or len(text) <= longest)
        for column in zip(*lines, strict=True)
    ]
    return ["  ".join(_aligned(row, widths, numbers=numbers)).rstrip() for row in lines]


def _cells(row: Row, longest: int | None) -> list[str]:
    """Cells that are seen as they are; with ``longest``, which folds them, none is cut."""
    return [cell(text, LONGEST_CELL if longest is None else None) for text in row]


def _aligned(row: Row, widths: Sequence[int], *, numbers: bool) -> Iterable[str]:
    for position, (text, width) in enumerate(zip(row, widths, strict=True)):
        yield text.rjust(width) if numbers and position else text.ljust(width)


def markdown_table(columns: Row, rows: Sequence[Row]) -> list[str]:
    """The lines of a Markdown table; the columns after the first are aligned to the right.

    >>> markdown_table(["task", "AUC"], [["click", "0.7"]])
    ['| task | AUC |', '| --- | --: |', '| click | 0.7 |']
    """
    ruler = ["---"] + ["--:"] * (len(columns) - 1)
    return [
        f"| {' | '.join(text if isinstance(text, Marked) else escaped(cell(text)) for text in row)} |"
        for row in (columns, ruler, *rows)
    ]


def marked(text: str, mark: str) -> Marked:
    """A cell of text between two marks, such as ``**`` for bold.

    >>> marked("p|q", "**")
    '**p\\\\|q**'
    """
    return Marked(f"{mark}{escaped(cell(text))}{mark}")


def escaped(text: str) -> str:
    """Text on one line in which nothing ends a cell of a Markdown table, or is a link, an image, HTML or other markup.

    >>> print(escaped("a|b <b>c</b> $d$, p < .05"))
    a\\|b \\<b>c\\</b> \\$d\\$, p < .05
    >>> print(escaped("![x](y) [0.1] *z* long_view _w_"))
    ![x\\](y) [0.1] \\*z\\* long_view \\_w_
    """
    return MARKUP.sub(r"\\\g<0>", cell(text, None))


def csv_text(columns: Row, rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file as text: every digit of a number, an empty cell for None.

    Control characters are shown escaped, as in the other forms. Text that a spreadsheet would run as a formula has an
    apostrophe in front.

    >>> csv_text(["a", "b"], [[0.1, None]])
    'a,b\\n0.1,\\n'
    >>> csv_text(["=a", "b"], [["+.01", -0.01]])
    "'=a,b\\n+.01,-0.01\\n"
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(map(_csv_cell, row) for row in (columns, *rows))
    return text.getvalue()


def csv_lines(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of :func:`csv_text` by heading, with the number of each, as they were but for escaped characters.

    Raises:
        csv.Error: for text that is no CSV.

    >>> list(csv_lines(csv_text(["a"], [["=1"], ["'=1"], ["'x"]])))
    [(2, {'a': '=1'}), (3, {'a': "'=1"}), (4, {'a': "'x"})]
    """
    reader = csv.DictReader(io.StringIO(text), strict=True)
    for line in reader:
        yield (
            reader.line_num,
            {
                key: value[1:] if isinstance(value, str) and value[:1] == "'" and FORMULA.match(value) else value
                for key, value in line.items()
            },
        )


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = shown(value)  # csv would not quote a carriage return
    return f"'{text}" if FORMULA.match(text) else text
