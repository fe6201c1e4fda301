"""Reversible escaping of values that an atomic file cannot hold as they are.

Stock RecBole silently reads some texts as something else (``NA`` as missing, a leading quote as the start of a
quoted field, ...). Such characters are written as ``%XX``, the hexadecimal bytes of their UTF-8 form, as in a URL. A
``%`` is written ``%25`` only where two hexadecimal digits follow it, so ordinary text with a per cent sign stays as it
is. Missing values and empty texts are the same thing: an empty cell.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import polars as pl

__all__ = [
    "MISSING_WORDS",
    "escape",
    "escape_series",
    "escape_words",
    "is_escaped_form",
    "needs_escaping",
    "unescape",
]

MISSING_WORDS = frozenset(
    ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
     "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""Texts that pandas, and so stock RecBole, reads as a missing value."""
PADDING = "[PAD]"
"""RecBole's own name of id 0."""
_EVERY_WORD = sorted({*MISSING_WORDS, PADDING})

BYTE_ORDER_MARK = "\ufeff"
"""Readers drop it at the start of a text."""

_ALWAYS = rf"[\x00-\x1f\x7f]|%[0-9A-Fa-f]{{2}}|^[\"{BYTE_ORDER_MARK}]"
_WORDS = "|".join(re.escape(word) for word in _EVERY_WORD)
HOSTILE = rf"{_ALWAYS}|^(?:{_WORDS})$"
HOSTILE_IN_SEQUENCE = rf"{HOSTILE}| "
HOSTILE_SEQUENCE = rf"[\x00-\x1f\x7f]|%[0-9A-Fa-f]{{2}}|(?:^| )(?:[\"{BYTE_ORDER_MARK}]|(?:{_WORDS})(?: |$))|^ | $|  "
"""A text of values with a space between, one of which is hostile or empty."""
_ODD_IN_WORDS = b"#<["
"""Every word contains one of these, or begins with N or n, perhaps after a minus sign."""
_N_WORDS = [np.frombuffer(word.encode(), np.uint8) for word in _EVERY_WORD if word[0] in "Nn"]
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")


def _hex(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def escape(token: str, *, in_sequence: bool = False) -> str:
    r"""The form of ``token`` in an atomic file; within a ``token_seq`` a space is escaped too.

    >>> escape("a\tb"), escape("NA"), escape('"x'), escape("50 %"), escape("%41"), escape("a b", in_sequence=True)
    ('a%09b', '%4EA', '%22x', '50 %', '%2541', 'a%20b')
    """
    if token in MISSING_WORDS or token == PADDING or token.startswith(('"', BYTE_ORDER_MARK)):
        return _hex(token[0]) + _inner(token[1:], in_sequence)
    return _inner(token, in_sequence)


def _inner(text: str, in_sequence: bool) -> str:
    # Per cent signs first: the escapes written below contain some.
    text = _PERCENT.sub(lambda match: "%25" + match[1], text)
    return re.sub(r"[\x00-\x1f\x7f ]" if in_sequence else r"[\x00-\x1f\x7f]", lambda match: _hex(match[0]), text)


def unescape(text: str) -> str:
    r"""The inverse of :func:`escape`.

    >>> unescape("a%09b"), unescape("%4EA"), unescape("50 %")
    ('a\tb', 'NA', '50 %')
    """
    if "%" not in text:
        return text
    data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())
    return data.decode("utf-8", errors="replace")


def is_escaped_form(text: str) -> bool:
    """Whether ``text`` is what :func:`escape` writes (a foreign ``%41`` is not: it would be written ``A``).

    >>> is_escaped_form("%4EA"), is_escaped_form("%41"), is_escaped_form("50 %")
    (True, False, True)
    """
    raw = unescape(text)
    return text in (escape(raw), escape(raw, in_sequence=True))


def escape_series(values: pl.Series, *, in_sequence: bool = False) -> pl.Series:
    """:func:`escape` over a text column; only the few hostile values pass through Python."""
    pattern = HOSTILE_IN_SEQUENCE if in_sequence else HOSTILE
    # Distinct values only: `replace` maps them back onto all rows.
    found = values.filter(values.str.contains(pattern).fill_null(False)).unique()
    if not len(found):
        return values
    written = pl.Series([escape(text, in_sequence=in_sequence) for text in found], dtype=pl.String)
    return values.replace(found, written)


def needs_escaping(data: bytes, rows: int, columns: int) -> Literal["no", "words", "characters"]:
    r"""Whether unescaped rows hold something that must be escaped, decided from all their bytes at once.

    ``"words"``: perhaps, but only values that equal one of :data:`MISSING_WORDS` or ``[PAD]``.

    >>> needs_escaping(b"1\tNo\n", 1, 2), needs_escaping(b"1\tNA\n", 1, 2), needs_escaping(b"1\t2\t\n", 1, 2)
    ('no', 'words', 'characters')
    """
    array = np.frombuffer(data, np.uint8)
    # Each cell ends with a tab or a line feed: any further control character is inside a value.
    controls = np.count_nonzero(array < 32) != rows * columns or b"\x7f" in data
    if controls or b"%" in data or b'"' in data or (not data.isascii() and BYTE_ORDER_MARK.encode() in data):
        return "characters"
    return "words" if _may_hold_word(data) else "no"


def _may_hold_word(data: bytes) -> bool:
    """Whether a value may be one of the words, in rows whose only control characters are tabs and line feeds."""
    # Without any of these bytes, only the words with an N are left.
    if any(byte in data for byte in _ODD_IN_WORDS):
        return True
    if b"N" not in data and b"n" not in data:
        return False
    # The line feed in front lets the first value begin like all others, after a control character.
    array = np.frombuffer(b"\n" + data, np.uint8)
    before = array[:-1]
    starts = np.flatnonzero(((array[1:] | 32) == ord("n")) & ((before < 32) | (before == ord("-")))) + 1
    # ``found`` keeps the starts that match so far. The data end with a line feed, which no word holds, so that no index
    # passes the end.
    for word in _N_WORDS:
        found = starts
        for at, byte in enumerate(word[1:], 1):
            found = found[array[found + at] == byte]
        if (array[found + len(word)] < 32).any():
            return True
    return False


def escape_words(values: pl.Series) -> pl.Series:
    """:func:`escape` over texts that hold nothing else hostile than whole words."""
    return escape_series(values) if values.is_in(_EVERY_WORD).any() else values
