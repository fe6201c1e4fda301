"""Numbers as the tables and the page show them; what is undefined is a dash."""

from __future__ import annotations

__all__ = ["NONE", "clipped", "count", "decimal", "number", "p_value", "share"]

NONE = "–"
LARGE = 1e7


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


def clipped(text: str, longest: int) -> str:
    """Text with an ellipsis where it is too long.

    >>> clipped("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"
