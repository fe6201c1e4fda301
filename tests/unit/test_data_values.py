"""What a cell of an atomic file is read as: numbers, words for a missing value, spaces, separators of lines."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.data.atomic import AtomicTable
from recbole_dtn.data.condition import to_expression
from recbole_dtn.data.escape import MISSING_WORDS
from recbole_dtn.data.raw import read_raw
from recbole_dtn.errors import DataError
from recbole_dtn.inspect.validate import validate

SEPARATORS = ["\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029"]
SPACES = ["\u00a0", "\u2003", "\u3000", "\x1f"]


def read(tmp_path: Path, cell: str, kind: str = "float") -> object:
    """The value of one cell as encoding has it."""
    path = tmp_path / "toy" / "toy.inter"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(f"u:token\tx:{kind}\n1\t{cell}\n2\t3\n".encode())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    table = AtomicTable([path])
    if kind == "float":
        return next(iter(table.batches())).frame["x"][0]
    column = read_raw(table, ["x"], {}, scratch).columns["x"]
    if kind == "token":
        return column.texts(column.codes.read(0, 1).astype("int64"))[0]  # type: ignore[union-attr]
    return column.values.read(0, column.values.size).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1.0), ("+1.50", 1.5), (".5", 0.5), ("5.", 5.0), ("-1E-2", -0.01), ("007", 7.0), ("  1 ", 1.0), ("-0", 0.0),
     ("0.1", 0.1), ("123456789012345678", 123456789012345678.0), ("1e-400", 0.0), ("4.9e-324", 5e-324)],
)  # fmt: skip
def test_numbers(tmp_path: Path, cell: str, value: float) -> None:
    assert read(tmp_path, cell) == value


@pytest.mark.parametrize(
    "text",
    ["inf", "-Infinity", "NAN", "+nan", "none", "Null", "1e400", "1_000", "1,5", "0x1", "1d5", "٣", "1\0", " ",
     "\u200b1", "\ufeff1", "1\u202e"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["float", "float_seq"])
def test_what_is_no_number(tmp_path: Path, text: str, kind: str) -> None:
    if (text, kind) == (" ", "float_seq"):
        return  # a list without a value
    with pytest.raises(DataError, match=r"toy.inter, line 2: column 'x': expected .*finite number"):
        read(tmp_path, text, kind)
    assert any(fault.fatal and fault.line == 2 for fault in validate(tmp_path / "toy"))


@pytest.mark.parametrize("mark", SEPARATORS + SPACES)
@pytest.mark.parametrize("place", ["{}1", "1{}", "1{}2", " {}1"])
@pytest.mark.parametrize("kind", ["float", "float_seq"])
def test_no_other_separator_or_space_is_dropped_from_a_number(tmp_path: Path, mark: str, place: str, kind: str) -> None:
    with pytest.raises(DataError, match=r"line 2: column 'x': expected .*finite number"):
        read(tmp_path, place.format(mark), kind)
    assert any(fault.fatal and fault.line == 2 for fault in validate(tmp_path / "toy"))


@pytest.mark.parametrize("mark", SEPARATORS + SPACES)
def test_in_a_token_they_are_part_of_it_and_end_no_line(tmp_path: Path, mark: str) -> None:
    assert read(tmp_path, f"{mark}a{mark}", "token") == f"{mark}a{mark}"


@pytest.mark.parametrize("kind", ["float", "token"])
def test_a_carriage_return_at_the_end_of_a_file_is_a_fault_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "toy" / "toy.inter"
    path.parent.mkdir()
    path.write_bytes(f"x:{kind}\n1\n2\r".encode())
    with pytest.raises(DataError, match=r"toy\.inter, line 3: a carriage return without a line feed"):
        list(AtomicTable([path]).batches())
    assert [fault.line for fault in validate(tmp_path / "toy") if fault.fatal] == [3]


@pytest.mark.parametrize("kind", ["float", "token"])
@pytest.mark.parametrize("text", ["1\r2", "\r1", "1\r\r"])
def test_a_bare_carriage_return_is_a_fault(tmp_path: Path, kind: str, text: str) -> None:
    with pytest.raises(DataError, match="line 2: a carriage return without a line feed"):
        read(tmp_path, text, kind)


@pytest.mark.parametrize("word", sorted(MISSING_WORDS))
def test_words_for_a_missing_value(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, word) is None
    faults = validate(tmp_path / "toy")
    assert [(fault.line, fault.fatal) for fault in faults] == [(2, False)], "reported"
    (tmp_path / "scratch").rmdir()
    assert read(tmp_path, word, "token") is None


@pytest.mark.parametrize("word", ["none", "Null", "NAN", "inf", "-", "?", " NA", "NA ", "undefined"])
def test_other_words_are_tokens(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, word, "token") == word


@pytest.mark.parametrize(
    ("text", "found"),
    [("4", True), (" 4 ", True), ("3", False), ("nan", None), ("NAN", None), ("inf", None), ("-inf", None),
     ("1e400", None), ("", None), ("\x0b4", None)],
)  # fmt: skip
def test_a_condition_on_text_compares_finite_numbers(text: str, found: bool | None) -> None:
    frame = pl.DataFrame({"x": [text]})
    assert frame.select(y=to_expression(parse_condition("x >= 4"), frame.schema))["y"].to_list() == [found]
    if found is None:
        assert frame.select(y=to_expression(parse_condition("not x == 4"), frame.schema))["y"].to_list() == [None]


def test_validate_reports_such_a_word_in_a_list(tmp_path: Path) -> None:
    assert read(tmp_path, "a NULL b", "token_seq") == [0, 1, 2, 3], "codes of a, NULL, b, and 3 of the second row"
    found = [(fault.line, fault.fatal, fault.reason) for fault in validate(tmp_path / "toy")]
    reason = "column 'x': 'a NULL b' has a value that is read as absent here, and as a token by stock RecBole"
    assert found == [(2, False, reason)]


def test_validate_reports_control_and_direction_characters(tmp_path: Path) -> None:
    path = tmp_path / "toy" / "toy.inter"
    path.parent.mkdir()
    lines = [
        "u\u202e:token\ts:token_seq\tx:float",
        "1\ta b\t1",
        "a\x1b[31m\ta b\t1",
        "b\u2066\ta \x85b\t1",
        "c\x00\ta b\t1",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = [(fault.line, fault.reason) for fault in validate(tmp_path / "toy")]
    assert found == [
        (1, r"column 'u\u202e': its name holds control or direction characters"),
        (3, r"column 'u\u202e': 'a\x1b[31m' holds control or direction characters, shown escaped (reported once)"),
        (4, r"column 's': 'a \x85b' holds control or direction characters, shown escaped (reported once)"),
        (5, r"column 'u\u202e': 'c\x00' holds a null byte, where other programs may end the text (reported once)"),
    ]
    assert not any(fault.fatal for fault in validate(tmp_path / "toy"))
