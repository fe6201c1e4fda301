"""Parse Ali-CCP's raw files a block at a time: the position of each feature's id and value, and the faulty rows.

A feature list is ``field 0x02 id 0x03 value``, joined by 0x01. Nothing is copied out of the block: a feature is four
positions, and its texts are checked in words of eight bytes (:mod:`recbole_dtn.preprocess.aliccp.words`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recbole_dtn.preprocess.aliccp.options import ITEM_FIELDS, USER_FIELDS
from recbole_dtn.preprocess.aliccp.words import (
    BYTES,
    HIGH_SEVEN,
    Flags,
    Ints,
    Text,
    Words,
    decimal,
    digits,
    hexadecimal,
    mask,
    plain_number,
    word,
)
from recbole_dtn.preprocess.lines import Lines, row_fault

__all__ = ["COMMON", "SKELETON", "FeatureBlock", "RowFault", "TableLayout", "read_block"]

COMMA, LINE_FEED = 44, 10
LARGEST_ID = (1 << 64) - 1
ID_DIGITS = len(str(LARGEST_ID))
# With the separator in front, at most eight words.
VALUE_LENGTH = 63
NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
INDEX_DIGITS = 16
SHOWN = 100

BAD_SAMPLE = f"sample_id is not 1 to {ID_DIGITS} digits"
BAD_LABEL = "{} is neither 0 nor 1"
BAD_INDEX = "common_feature_index is not 16 hexadecimal digits (0-9, a-f)"
BAD_COLUMNS = "wrong number of columns"
BAD_FEATURE = "a feature is not field 0x02 id 0x03 value"
BAD_FIELD = "a field that this file does not have"
BAD_ID = "an id is not an unsigned 64-bit integer (digits only, without leading zeros)"
BAD_VALUE = "a value is not a finite number"
BAD_COUNT = "feature_num is not the number of features"


class TableLayout:
    """One of the two raw tables.

    Args:
        columns: of its rows; the last one is the feature list, the one before it the number of features.
        fields: that its feature lists may hold; a field's code is its place here.
    """

    def __init__(self, columns: Sequence[str], fields: Sequence[str]) -> None:
        self.columns, self.fields = tuple(columns), tuple(fields)
        self.index_column = columns.index("common_feature_index")
        self.names = np.array([word(name.encode()) for name in fields])
        self.shift = np.uint64(64 - 8)
        # A field's name is one word. The highest byte of its product with the factor differs for all names: one look-up
        # among 256 codes gives the field, and `known` compares the name itself.
        self.factor, places = self._perfect_hash()
        self.codes = np.zeros(256, np.uint8)
        self.codes[places] = np.arange(len(fields))

    def _perfect_hash(self) -> tuple[np.uint64, Any]:
        """A factor whose products with the names' words all differ in their first byte."""
        factor = 0x9E3779B97F4A7C15
        while True:
            places = (self.names * np.uint64(factor)) >> self.shift
            if len(np.unique(places)) == len(places):
                return np.uint64(factor), places
            # Knuth's generator; odd, so that no two words have the same product.
            factor = (factor * 6364136223846793005 + 1442695040888963407) % (1 << 64) | 1

    def known(self, names: Words) -> tuple[Any, Flags]:
        """Codes of fields by their names, and which names are known."""
        codes = self.codes[(names * self.factor) >> self.shift]
        return codes, self.names[codes] == names


SKELETON = TableLayout(
    ("sample_id", "click", "buy", "common_feature_index", "feature_num", "feature_list"), tuple(sorted(ITEM_FIELDS))
)
COMMON = TableLayout(("common_feature_index", "feature_num", "feature_list"), tuple(sorted(USER_FIELDS)))


@dataclass(frozen=True, order=True)
class RowFault:
    """A faulty row of a block: its number in the block, the reason, and the text to show."""

    row: int
    reason: str
    text: bytes


@dataclass
class FeatureBlock:
    """Rows (R) of a block and their features (N), in the order of the file.

    Attributes:
        good: whether a row is not faulty; features of faulty rows may be nonsense.
        index: common feature index; its digits stand at ``index_at``. click, buy: 0 or 1 (none in common rows).
        row, code: of each feature, its row and its field's place in ``layout.fields``.
        id_at, id_length, value_at, value_length: its texts in the block.
        ids, values: their words, each text preceded by one byte, which belongs to the separator.
    """

    layout: TableLayout
    text: Text
    first_line: int
    starts: Ints
    ends: Ints
    good: Flags
    faults: list[RowFault] = field(default_factory=list)
    index: Words = field(default_factory=lambda: np.empty(0, np.uint64))
    index_at: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    labels: dict[str, Any] = field(default_factory=dict)
    row: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    code: Any = None
    id_at: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    id_length: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    value_at: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    value_length: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    ids: list[Words] = field(default_factory=list)
    values: list[Words] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """R."""
        return len(self.starts)

    def refuse(self, rows: Ints, reason: str, texts: Sequence[bytes] | None = None) -> None:
        """Mark rows as faulty; a row that is so already keeps its first reason."""
        for place, row in enumerate(rows.tolist()):
            if not self.good[row]:
                continue
            self.good[row] = False
            whole = self.text.cut(int(self.starts[row]), int(self.ends[row]))
            # A fault that any table can have (wrong number of columns, not UTF-8) is the better reason.
            general = row_fault(whole, len(self.layout.columns), ",", None)
            shown = whole if texts is None or general else texts[place]
            self.faults.append(RowFault(row, general or reason, shown))

    def refuse_features(self, bad: Flags, reason: str) -> None:
        """Mark the rows of faulty features; the first one of a row is shown."""
        found = np.flatnonzero(bad)
        if len(found):
            rows, first = np.unique(self.row[found], return_index=True)
            self.refuse(rows, reason, [self._feature(int(feature)) for feature in found[first]])

    def _feature(self, feature: int) -> bytes:
        end = int(self.value_at[feature] + self.value_length[feature])
        at = int(self.id_at[feature]) - 1
        before = self.text.cut(max(at - SHOWN, 0), at)
        name = re.split(rb"[\x01,\n]", before)[-1]
        return name + self.text.cut(at, min(end, at + SHOWN))

    def numbers(self, features: Ints) -> Words:
        """The ids of features as numbers."""
        length = self.id_length[features]
        # The first word has the separator and up to seven digits, each other one up to eight.
        found = decimal(self.ids[0][features] >> np.uint64(8), np.minimum(length, BYTES - 1))
        for place in range(1, len(self.ids)):
            more = np.clip(length - (BYTES * place - 1), 0, BYTES)
            found = found * TENS[more] + decimal(self.ids[place][features], more)
        return found


TENS = np.array([10**power for power in range(BYTES + 1)], np.uint64)


def read_block(lines: Lines, layout: TableLayout) -> FeatureBlock:
    """Find the rows and features of a block, and its faulty rows.

    Args:
        lines: whole rows. layout: of the table.
    """
    text = Text(lines.data)
    view = text.bytes[: text.size]
    # The separators 1, 2, 3 and line feeds, in one scan. Other bytes up to 10 are marks too, which `_features` refuses.
    marks = np.flatnonzero(view <= LINE_FEED)
    line_ends = np.flatnonzero(view[marks] == LINE_FEED)
    ends = marks[line_ends]
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    block = FeatureBlock(layout, text, lines.first, starts, ends, np.ones(len(ends), bool))
    commas = _commas(block, np.flatnonzero(view == COMMA))
    _columns(block, commas)
    count = _features(block, marks, np.diff(line_ends, prepend=-1), commas[:, -1])
    _check_ids(block)
    _check_values(block)
    # The number of features that the row says.
    at = commas[:, -2] + 1
    length = commas[:, -1] - at
    said = text.words(at, length)
    wrong = ~digits(said, mask(length, 0)) | (length < 1) | (length > BYTES)
    block.refuse(np.flatnonzero(wrong | (decimal(said, length) != count.astype(np.uint64))), BAD_COUNT)
    # In the order of the rows: checks went column by column.
    block.faults.sort()
    return block


def _commas(block: FeatureBlock, found: Ints) -> Ints:
    """(R, columns - 1) commas; a row with another number of them is faulty, and gets its start for each."""
    each = len(block.layout.columns) - 1
    if len(found) == each * block.rows:
        grid = found.reshape(-1, each)
        # The total is right. Each row has its commas if its first and last ones lie in it.
        if ((grid[:, 0] >= block.starts) & (grid[:, -1] < block.ends)).all():
            return grid
    counts = np.searchsorted(found, block.ends) - np.searchsorted(found, block.starts)
    right = counts == each
    grid = np.repeat(block.starts[:, None], each, axis=1)
    # Only commas of sound rows are kept, so that the rest is a grid again.
    grid[right] = found[np.repeat(right, counts)].reshape(-1, each)
    block.refuse(np.flatnonzero(~right), BAD_COLUMNS)
    return grid


def _columns(block: FeatureBlock, commas: Ints) -> None:
    """Check and read the columns before the number of features."""
    place = block.layout.index_column
    block.index_at = block.starts if place == 0 else commas[:, place - 1] + 1
    wrong = commas[:, place] - block.index_at != INDEX_DIGITS
    length = np.full(block.rows, INDEX_DIGITS)
    # Two words of eight digits each, the first one being the upper half.
    high, valid = hexadecimal(block.text.words(block.index_at, length))
    low, valid_too = hexadecimal(block.text.words(block.index_at, length, 1))
    block.index = (high << np.uint64(32)) | low
    block.refuse(np.flatnonzero(wrong | ~valid | ~valid_too), BAD_INDEX)
    if place == 0:
        return
    length = commas[:, 0] - block.starts
    wrong = (length < 1) | (length > ID_DIGITS)
    for part in range(-(-ID_DIGITS // BYTES)):
        wrong |= ~digits(block.text.words(block.starts, length, part), mask(length, part))
    block.refuse(np.flatnonzero(wrong), BAD_SAMPLE)
    for position, name in ((1, "click"), (2, "buy")):
        at = commas[:, position - 1] + 1
        # uint8 wraps: characters below "0" become large and are refused as well.
        label = block.text.bytes[at] - np.uint8(ord("0"))
        block.refuse(np.flatnonzero((label > 1) | (commas[:, position] != at + 1)), BAD_LABEL.format(name))
        block.labels[name] = label


def _features(block: FeatureBlock, marks: Ints, each: Ints, last_comma: Ints) -> Ints:
    """Find the features; returns how many each row has.

    Args:
        marks: bytes up to 10, the line feeds among them. each: how many of them a row has. last_comma: of each row.
    """
    # A feature has three marks: 2, 3, and then 1 or the line feed.
    whole = each % 3 == 0
    empty = (each == 1) & (last_comma == block.ends - 1)  # a row with no features at all
    block.refuse(np.flatnonzero(~whole & ~empty), BAD_FEATURE)
    if not whole.all():
        marks = marks[np.repeat(whole, each)]
    count = np.where(whole, each // 3, 0)
    block.row = np.repeat(np.arange(block.rows), count)
    second, third, end = np.ascontiguousarray(marks.reshape(-1, 3).T)
    # Names begin behind the feature before, or in a row's first feature behind the last comma.
    at = np.empty_like(end)
    at[1:] = end[:-1] + 1
    filled = np.flatnonzero(count)
    at[(np.cumsum(count) - count)[filled]] = last_comma[filled] + 1
    block.id_at, block.value_at = second + 1, third + 1
    block.id_length, block.value_length = third - block.id_at, end - block.value_at
    kinds = block.text.bytes
    ending = kinds[end]
    block.refuse_features(
        (kinds[second] != 2) | (kinds[third] != 3) | ((ending != 1) & (ending != LINE_FEED)), BAD_FEATURE
    )
    block.code, known = block.layout.known(block.text.words(at, second - at))
    block.refuse_features(~known, BAD_FIELD)
    return count


def _check_ids(block: FeatureBlock) -> None:
    length = block.id_length
    bad = (length < 1) | (length > ID_DIGITS)
    if bad.any():
        length = np.where(bad, 0, length)
    for place in range(-(-(int(length.max(initial=0)) + 1) // BYTES)):
        # With the separator in front, which the writer of the lines overwrites; it is left out of the check.
        kept = mask(length + 1, place)
        words = block.text.eight(block.id_at - 1, place) & kept
        block.ids.append(words)
        bad |= ~digits(words, kept & HIGH_SEVEN if place == 0 else kept)
    if block.ids:
        # A leading zero: the byte behind the separator.
        bad |= ((block.ids[0] & np.uint64(0xFF00)) == np.uint64(0x3000)) & (length > 1)
    # Only ids of 20 digits can be beyond 64 bits: Python compares them.
    for feature in np.flatnonzero((length == ID_DIGITS) & ~bad).tolist():
        bad[feature] = int(block.text.cut(block.id_at[feature], block.id_at[feature] + ID_DIGITS)) > LARGEST_ID
    block.refuse_features(bad, BAD_ID)


def _check_values(block: FeatureBlock) -> None:
    length = block.value_length
    bad = (length < 1) | (length > VALUE_LENGTH)
    if bad.any():
        length = np.where(bad, 0, length)
    plain, points = length > 0, np.zeros(len(length), np.int64)
    for place in range(-(-(int(length.max(initial=0)) + 1) // BYTES)):
        kept = mask(length + 1, place)
        words = block.text.eight(block.value_at - 1, place) & kept
        block.values.append(words)
        simple, found = plain_number(words, kept & HIGH_SEVEN if place == 0 else kept)
        # Two points in a word leave more than one sign bit.
        plain &= simple & ((found & (found - np.uint64(1))) == 0)
        points += found != 0
    # Digits with at most one point pass; signs and exponents are rare and are looked at one by one.
    for feature in np.flatnonzero(~bad & ~(plain & (points <= 1) & (length > points))).tolist():
        bad[feature] = not _is_number(
            block.text.cut(block.value_at[feature], block.value_at[feature] + length[feature])
        )
    block.refuse_features(bad, BAD_VALUE)


def _is_number(text: bytes) -> bool:
    """Whether a text is a finite number.

    >>> [_is_number(text) for text in (b"-.5", b"1e-05", b"1e999", b"nan", b"1_0", b".")]
    [True, True, False, False, False, False]
    """
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))
