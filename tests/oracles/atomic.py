"""The format of atomic files as docs/own-data.md has it, in plain Python: slow, and written apart from the package."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

__all__ = ["FormatError", "Parsed", "parse"]

TYPES = {"token", "token_seq", "float", "float_seq"}
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
MISSING = {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
           "NULL", "NaN", "None", "n/a", "nan", "null"}  # fmt: skip

Value = str | float | list[str] | list[float] | None


class FormatError(Exception):
    """The file breaks a rule of the format."""


@dataclass(frozen=True)
class Parsed:
    """Columns by name, the type of each, and the line of each row."""

    types: dict[str, str]
    columns: dict[str, list[Value]]
    lines: list[int]


def parse(data: bytes) -> Parsed:
    """The values of a file.

    Raises:
        FormatError: where a rule is broken.
    """
    first, *rest = data.split(b"\n")
    last = len(rest)  # the line after the last line feed: no carriage return may end it
    types = _header(first if last else first + b"\n")
    columns: dict[str, list[Value]] = {name: [] for name in types}
    lines = []
    for number, line in enumerate(rest, 2):
        if number - 1 < last:
            line = line.removesuffix(b"\r")
        if not line:
            continue
        text = _text(line)
        cells = text.split("\t")
        if len(cells) != len(types):
            raise FormatError(f"line {number}: {len(cells)} columns")
        lines.append(number)
        for (name, kind), cell in zip(types.items(), cells, strict=True):
            columns[name].append(_value(cell, kind))
    return Parsed(types, columns, lines)


def _text(line: bytes) -> str:
    if b"\r" in line:
        raise FormatError("a bare carriage return")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("not UTF-8") from None


def _header(line: bytes) -> dict[str, str]:
    # A header that ends the file may keep its carriage return or not; without rows nothing depends on it.
    text = _text(line.removesuffix(b"\n").removesuffix(b"\r"))
    if text.startswith("\ufeff") or not text.strip():
        raise FormatError("header")
    types: dict[str, str] = {}
    for column in text.split("\t"):
        name, colon, kind = column.partition(":")
        if not (name and colon and kind in TYPES) or name in types:
            raise FormatError(f"header: {column!r}")
        types[name] = kind
    return types


def _value(cell: str, kind: str) -> Value:
    if kind == "token":
        return None if cell == "" or cell in MISSING else cell
    if kind == "float":
        return None if cell == "" or cell in MISSING else _number(cell.strip(" "))
    parts = [part for part in cell.split(" ") if part]
    return parts if kind == "token_seq" else [_narrow(part) for part in parts]


def _number(text: str) -> float:
    if not NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        raise FormatError(f"no finite number: {text!r}")
    return value


def _narrow(text: str) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", _number(text)))[0])
    except OverflowError:
        raise FormatError(f"beyond float32: {text!r}") from None
