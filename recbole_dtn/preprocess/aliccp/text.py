"""Rows of Ali-CCP as lines of an atomic file: cells are laid out in words of eight bytes, then zero bytes are removed.

A line begins with its line feed, so that a block of lines continues the text before it. The writer of the file adds
the last line feed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from recbole_dtn.preprocess.aliccp.options import AliCCPOptions
from recbole_dtn.preprocess.aliccp.rows import INDEX_DIGITS, FeatureBlock, TableLayout
from recbole_dtn.preprocess.aliccp.words import BYTES, HIGH_SEVEN, Flags, Ints, Words, word

__all__ = ["KEY", "LABELS", "Chosen", "Column", "Kept", "choose", "columns_of", "lines_of", "other_values", "types_of"]

KEY = "user_key"
LABELS = ("click", "purchase", "buy")
"""Both raw labels, and purchase = click and buy. They follow the fields, since RecBole needs an id after the key."""
TAB, SPACE = word(b"\t"), word(b" ")
ONE_POINT_ZERO, ONE = word(b"\x001.0"), word(b"\x001")
VALUED = ("508", "509", "702")
"""Fields with one id whose values are not all 1."""


@dataclass(frozen=True)
class Column:
    """A field that is written.

    Attributes:
        name, code: of the field. many: whether it is a pair of sequences. last: whether its last value stands alone.
    """

    name: str
    code: int
    many: bool
    last: bool


def columns_of(layout: TableLayout, options: AliCCPOptions) -> list[Column]:
    """The fields of a raw table that the options want, in their order."""
    last = options.repeated == "last"
    return [
        Column(name, layout.fields.index(name), name in options.lists and not last, last)
        for name in options.fields
        if name in layout.fields
    ]


def types_of(columns: Sequence[Column], labels: Sequence[str]) -> dict[str, str]:
    """Columns of the atomic file with their types."""
    types = {KEY: "token"}
    for column in columns:
        types[column.name] = "token_seq" if column.many else "token"
        if column.many:
            types[f"{column.name}_value"] = "float_seq"
    return {**types, **dict.fromkeys(labels, "float")}


@dataclass(frozen=True)
class Chosen:
    """Features of a field that are written: their numbers in the block, their rank in the row, how many a row has."""

    features: Ints
    rank: Ints
    count: Ints


Kept = Mapping[str, Callable[[Words], Flags]]
"""Per field, what says which ids are frequent enough: ``kept[name](numbers)``; empty: all are."""


def choose(block: FeatureBlock, column: Column, kept: Kept, most: int | None) -> Chosen:
    """The features of a field in a block; a cell with too many starts with ``rank`` 0 and stops before ``most``.

    Args:
        block: its rows. column: the field. kept: of ids by field. most: longest list, or None.
    """
    features = np.flatnonzero(block.code == column.code)
    if column.last and len(features):
        row = block.row[features]
        # The last of each run of features of one row.
        features = features[np.append(row[1:] != row[:-1], True)]
    if column.name in kept:
        features = features[kept[column.name](block.numbers(features))]
    rank, count = _ranked(block, features)
    if most is not None and column.many and count.max(initial=0) > most:
        features = features[rank < most]
        rank, count = _ranked(block, features)
    return Chosen(features, rank, count)


def _ranked(block: FeatureBlock, features: Ints) -> tuple[Ints, Ints]:
    row = block.row[features]
    count = np.bincount(row, minlength=block.rows)
    # Rank: place among all features of the field minus the number of those in earlier rows.
    return np.arange(len(features)) - (np.cumsum(count) - count)[row], count


class _Page:
    """Words of the lines of a block.

    Args:
        block: its rows. order: rows that are written, line by line. widths: words per cell, an array a column.
    """

    def __init__(self, block: FeatureBlock, order: Ints, widths: Sequence[Ints]) -> None:
        self.block, self.order = block, order
        # Line of each row; -1 for rows that are not written.
        self.line = np.full(block.rows, -1)
        self.line[order] = np.arange(len(order))
        # (lines, columns). Cells lie line by line; starts[line * columns + column] is the first word of a cell, and the
        # last element the end.
        table = np.stack(widths, axis=1)
        ends = np.cumsum(table)
        self.starts = np.append(ends - table.ravel(), ends[-1:]).reshape(-1)
        self.columns = table.shape[1]
        self.words = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint64)

    def cells(self, column: int) -> Ints:
        """Where the cells of a column begin, by line."""
        return self.starts[column : len(self.order) * self.columns : self.columns]

    def fill(self, column: int, words: Words) -> None:
        """Fill a column with the same number of words for each line, (lines, words)."""
        self.words[self.cells(column)[:, None] + np.arange(words.shape[1])] = words

    def put(self, column: int, chosen: Chosen, texts: Sequence[Words]) -> None:
        """Fill a column with the texts of the features chosen; ``texts`` are the words of all features."""
        line = self.line[self.block.row[chosen.features]]
        features, rank = chosen.features, chosen.rank
        if line.min(initial=0) < 0:
            there = line >= 0
            line, features, rank = line[there], features[there], rank[there]
        cells = self.cells(column)
        # An empty cell is its separator alone.
        self.words[cells[chosen.count[self.order] == 0]] = TAB
        at = cells[line] + rank * len(texts)
        # The byte in front of a text becomes a tab, or a space between the values of a list.
        self.words[at] = (texts[0][features] & HIGH_SEVEN) | np.where(rank == 0, TAB, SPACE)
        for more in range(1, len(texts)):
            self.words[at + more] = texts[more][features]

    def lines(self, counts: Ints) -> list[bytes]:
        """The text, cut after so many lines each."""
        cuts = self.starts[np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]) * self.columns].tolist()
        # No character of a cell is a zero byte: what is removed is padding.
        return [self.words[start:end].tobytes().translate(None, b"\0") for start, end in pairwise(cuts)]


def lines_of(
    block: FeatureBlock, part: str, place: Ints, files: int, columns: Sequence[Column], chosen: Sequence[Chosen]
) -> list[bytes]:
    """Lines of the rows that are written.

    Args:
        block: its rows. part: ``train`` or ``test``, the first half of the join key.
        place: of each row, the file it goes to (0 to ``files`` - 1), or -1.
        columns, chosen: what is written.

    Returns:
        Per file the lines of its rows in their order.
    """
    # Rows by file, each file's in their order, without those of place -1 (which are sorted first).
    order = np.argsort(place, kind="stable")[np.count_nonzero(place < 0) :]
    if not len(order):
        return [b""] * files
    key, labels = _key(block, part, order), _labels(block, order)
    # Words per cell: of the key, of each column (one at least, for the tab), and of the labels.
    widths = [np.full(len(order), key.shape[1])]
    pairs = []
    for column, some in zip(columns, chosen, strict=True):
        for texts in (block.ids, block.values) if column.many else (block.ids,):
            pairs.append((some, texts))
            widths.append(np.maximum(some.count[order] * len(texts), 1))
    page = _Page(block, order, [*widths, np.full(len(order), labels.shape[1])])
    page.fill(0, key)
    for position, (some, texts) in enumerate(pairs, 1):
        page.put(position, some, texts)
    page.fill(len(pairs) + 1, labels)
    return page.lines(np.bincount(place[order], minlength=files))


def _key(block: FeatureBlock, part: str, order: Ints) -> Words:
    """The join key of each line, with the line feed in front."""
    at, length = block.index_at[order], np.full(len(order), INDEX_DIGITS)
    words = [np.full(len(order), word(f"\n{part}:".encode()))]
    words += [block.text.words(at, length, place) for place in range(INDEX_DIGITS // BYTES)]
    return np.stack(words, axis=1)


def _labels(block: FeatureBlock, order: Ints) -> Words:
    """:data:`LABELS` of each line; none in a file of users."""
    if not block.labels:
        return np.empty((len(order), 0), np.uint64)
    click, buy = (block.labels[name][order].astype(np.uint64) for name in ("click", "buy"))
    digits = np.stack([click, click & buy, buy], axis=1) + np.uint64(ord("0"))
    # Two bytes per label: a tab and the digit.
    words: Words = TAB | (digits << np.uint64(8))
    return words


def other_values(block: FeatureBlock, column: Column, chosen: Chosen) -> int:
    """How many features of a column without values have another value than 1, which is not written."""
    if column.many or column.name in VALUED or not block.values:
        return 0
    features = chosen.features[block.good[block.row[chosen.features]]]
    words = block.values[0][features] & HIGH_SEVEN
    return int(np.count_nonzero((words != ONE_POINT_ZERO) & (words != ONE)))
