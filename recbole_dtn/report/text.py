"""Texts and numbers as the tables and the page show them; what is undefined is a dash."""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = [
    "LONGEST_CELL",
    "NONE",
    "cell",
    "clipped",
    "count",
    "counted",
    "decimal",
    "number",
    "p_value",
    "share",
    "shown",
    "shown_in",
]

NONE = "–"
LARGE = 1e7
LONGEST_CELL = 200
"""Characters of a cell of a table, and of a name in a page; longer ones end in an ellipsis."""
HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode categories that move the cursor, change the direction or are not seen: control, format, half of a pair
(bytes of a file name that are not UTF-8), line and paragraph separators."""


class _Escapes(dict[int, str]):
    """What is shown for a code point; filled as they occur."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        hidden = unicodedata.category(character) in HIDDEN and character not in "\n\t"
        self[code] = repr(character)[1:-1] if hidden else character
        return self[code]


_ESCAPES = _Escapes()


def shown(text: str) -> str:
    r"""Text with control and direction characters as Python writes them; line feeds and tabs stay.

    >>> shown("a\x1b[31m\u202eb\x00"), shown("é 日本\n")
    ('a\\x1b[31m\\u202eb\\x00', 'é 日本\n')
    """
    return text.translate(_ESCAPES)


def cell(text: str, longest: int | None = LONGEST_CELL) -> str:
    r"""Text on one line of at most ``longest`` characters, as a cell of a table has it.

    >>> cell("a\tb\n"), len(cell("x" * 300))
    ('a\\tb\\n', 200)
    """
    whole = shown(text).replace("\n", "\\n").replace("\t", "\\t")
    return whole if longest is None else clipped(whole, longest)


def shown_in(value: Any) -> Any:
    """:func:`shown` of every text of plain values: those of maps (keys too), lists and tuples."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {shown_in(key): shown_in(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(shown_in, value)) if type(value) in (list, tuple) else value
    return value


def share(value: float | None, digits: int = 2) -> str:
    """A share in per cent.

    >>> share(0.12345), share(None)
    ('12.35%', '–')
    """
    return NONE if value is None else f"{value:.{digits}%}"


def number(value: float | None, digits: int = 5) -> str:
    """A number with the given number of significant digits; whole up to ten millions.

    >>> number(1234.5678), number(0.5), number(123456.7), number(1.65e12), number(None)
    ('1234.6', '0.5', '123,457', '1.65e12', '–')
    """
    if value is None:
        return NONE
    if 10**digits <= abs(value) < LARGE:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}".replace("e+", "e")


def decimal(value: float | None, places: int = 2) -> str:
    """A number with the given number of decimal places.

    >>> decimal(0.12345, 3), decimal(-0.001), decimal(None)
    ('0.123', '0.00', '–')
    """
    return NONE if value is None else f"{round(value, places) + 0.0:.{places}f}"


def p_value(value: float | None, places: int = 3) -> str:
    """A p value; one that would be shown as 0 is an upper bound.

    >>> p_value(0.0123), p_value(1e-9), p_value(1e-9, 4), p_value(None)
    ('0.012', '< 0.001', '< 0.0001', '–')
    """
    least = 10.0**-places
    return f"< {least:.{places}f}" if value is not None and value < least / 2 else decimal(value, places)


def count(value: int | None) -> str:
    """A whole number.

    >>> count(1234), count(None)
    ('1,234', '–')
    """
    return NONE if value is None else f"{value:,}"


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "epoch"), counted(1234, "epoch")
    ('1 epoch', '1,234 epochs')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def clipped(text: str, longest: int) -> str:
    """Text with an ellipsis where it is too long.

    >>> clipped("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"
