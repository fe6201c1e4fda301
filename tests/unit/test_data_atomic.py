"""Atomic files as others write them: what is fine, and each fault with its message, file and line."""

from pathlib import Path

import polars as pl
import pytest

from recbole_dtn.data import atomic
from recbole_dtn.data.atomic import AtomicTable, read_header
from recbole_dtn.data.sources import find_sources
from recbole_dtn.data.write import write_atomic
from recbole_dtn.errors import DataError
from recbole_dtn.inspect.validate import validate

HEADER = b"u:token\ts:token_seq\tx:float\n"


def write(tmp_path: Path, content: bytes, name: str = "toy.inter") -> Path:
    path = tmp_path / "toy" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def rows(path: Path) -> list[tuple[object, ...]]:
    return [row for batch in AtomicTable([path]).batches() for row in batch.frame.rows()]


PLAIN = [("1", "a b", 1.0), ("2", None, -2.5)]


@pytest.mark.parametrize(
    "content",
    [
        HEADER + b"1\ta b\t1\n2\t\t-2.5\n",
        (HEADER + b"1\ta b\t1\n2\t\t-2.5\n").replace(b"\n", b"\r\n"),
        HEADER + b"1\ta b\t1\n\n2\t\t-2.5\n\n\n",
        HEADER + b"\n\r\n1\ta b\t1\n\r\n2\t\t-2.5",
        HEADER + b"1\ta b\t1\n2\t\t-2.5",
        HEADER + b"1\ta b\t 1.0 \n2\t\t-25e-1\n",
    ],
    ids=["plain", "crlf", "blank lines", "blank lines first", "no final newline", "spellings of numbers"],
)
@pytest.mark.parametrize("block", [8, 1 << 20], ids=["small blocks", "one block"])
def test_fine_files(tmp_path, monkeypatch, content, block):
    monkeypatch.setattr(atomic, "BLOCK_BYTES", block)
    assert rows(write(tmp_path, content)) == PLAIN


def test_other_fine_things(tmp_path):
    assert rows(write(tmp_path, HEADER)) == []
    assert rows(write(tmp_path, b"u:token\n1\n\n2\n")) == [("1",), ("2",)]
    odd = "007\t日本 é\t1e-3\n7.0\t' #\t0\n".encode()
    assert rows(write(tmp_path, HEADER + odd)) == [("007", "日本 é", 0.001), ("7.0", "' #", 0.0)]
    long = b"9" * 5_000
    assert rows(write(tmp_path, HEADER + long + b"\ta\t1\n"))[0][0] == long.decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected a header"),
        (b"\xef\xbb\xbf" + HEADER, "line 1: starts with a byte order mark"),
        (b"\xe9:token\n", "line 1: not UTF-8 at byte 0"),
        (b"u\tx:float\n", "line 1: column 'u' has no type"),
        (b"u:tokn\n", "line 1: column 'u:tokn': unknown type 'tokn' (did you mean 'token'"),
        (b"a:b:token\n", "line 1: column 'a:b:token': unknown type 'b:token'"),
        (b"u:token\tu:float\n", "line 1: column 'u' is there twice"),
        (b"u:token\rx:float\r", "line 1: a carriage return without a line feed"),
        (HEADER + b"1\ta\t1\n2\ta\t1\t\n", "line 3: an extra tab: expected 3 columns as in the header, found 4"),
        (HEADER + b"1\ta\t1\n\n2\ta\n", "line 4: a short row: expected 3 columns as in the header, found 2"),
        (HEADER + b"1\ta\n2\ta\t1\t1\n", "line 2: a short row"),
        (HEADER + b"1\ta\t1\n1\ra\tb\t1\n", "line 3: a carriage return without a line feed"),
        (HEADER + b"1\ta\t1\n2\t\xe9\t1\n", "line 3: not UTF-8 at byte 2 of the line"),
        (
            HEADER + b"1\ta\t1\n2\ta\tone\n3\ta\tx\n",
            "line 3: column 'x': expected a finite number, found 'one' (and 1 more",
        ),
        (HEADER + b"1\ta\tinf\n", "line 2: column 'x': expected a finite number, found 'inf'"),
    ],
)
@pytest.mark.parametrize("block", [8, 1 << 20], ids=["small blocks", "one block"])
def test_faulty_files(tmp_path, monkeypatch, content, message, block):
    monkeypatch.setattr(atomic, "BLOCK_BYTES", block)
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        rows(path)
    shown = message.split(" (and 1 more")[0] if block == 8 else message
    assert str(caught.value).startswith(f"{path}, {shown}")


def test_a_missing_file_and_a_missing_number(tmp_path):
    with pytest.raises(DataError, match=r"gone\.inter: cannot be read \(No such file"):
        read_header(tmp_path / "gone.inter")
    assert rows(write(tmp_path, HEADER + b"1\ta\t\n2\ta\tNA\n")) == [("1", "a", None), ("2", "a", None)]


def test_locate_counts_rows_over_parts(tmp_path):
    first = write(tmp_path, HEADER + b"1\ta\t1\n\n2\ta\t1\n", "a.inter")
    second = write(tmp_path, HEADER + b"\n3\ta\t1\n", "b.inter")
    table = AtomicTable([first, second])
    assert [table.locate(row) for row in range(3)] == [(first, 2), (first, 4), (second, 3)]


def test_folders(tmp_path):
    folder = tmp_path / "toy"
    with pytest.raises(DataError, match=r"expected toy\.inter, found no \.inter file"):
        find_sources(folder, given=False)
    write(tmp_path, HEADER, "toy.train.inter")
    write(tmp_path, HEADER, "toy.valid.inter")
    with pytest.raises(DataError, match=r"expected toy\.test\.inter, found .*needs train and test"):
        find_sources(folder, given=True)
    with pytest.raises(DataError, match="for files in parts set split: given"):
        find_sources(folder, given=False)
    write(tmp_path, b"u:token\tx:float\n", "toy.test.inter")
    with pytest.raises(DataError, match=r"toy\.test\.inter, line 1: its columns differ .*found u:token x:float"):
        find_sources(folder, given=True)


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (b"id:token\tage:float\n", "line 1: shares no column with toy.inter"),
        (b"u:token\ts:token_seq\n", "line 1: column 's' is in toy.inter too, and 'u' is the key"),
        (b"x:float\tage:float\n", "line 1: the key 'x' must be of type token"),
    ],
)
def test_side_tables_need_one_key(tmp_path, side, message):
    write(tmp_path, HEADER)
    path = write(tmp_path, side, "toy.user")
    with pytest.raises(DataError) as caught:
        find_sources(tmp_path / "toy", given=False)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_validate_finds_every_fault(tmp_path):
    inter = write(
        tmp_path,
        HEADER
        + b'1\ta b\t1\n\nNA\t"a\t\n2\ta\n[PAD]\t[PAD] b\tnan\n'
        + b"3\t\xe9\t1\n4\tNA b\t1\t1\n5\ta\tx\r\n6\ra\tb\t1\n7\ta\t1\n",
    )
    user = write(tmp_path, b"u:token\tage:float\tw:float_seq\n1\t30\t1 2\n2\t\t1 y\n1\t31\t\n[PAD]\t1\t\n", "toy.user")
    found = {(Path(fault.file), fault.line, fault.fatal, fault.reason) for fault in validate(tmp_path / "toy")}
    missing = "a missing number; stock RecBole puts the column's mean there"
    quote = "begins with a quote: stock RecBole reads on to the next quote"
    padding = "is stock RecBole's name of its padding"
    assert found == {
        (inter, 3, False, "a blank line is not a row, here and in stock RecBole"),
        (inter, 4, False, "column 'u': 'NA' stock RecBole reads it as missing"),
        (inter, 4, False, f"column 's': '\"a' {quote}"),
        (inter, 4, False, f"column 'x': {missing}"),
        (inter, 5, True, "a short row: expected 3 columns as in the header, found 2"),
        (inter, 6, False, f"column 'u': '[PAD]' {padding}"),
        (inter, 6, False, f"column 's': '[PAD] b' {padding}"),
        (inter, 6, False, f"column 'x': {missing}"),
        (inter, 7, True, "not UTF-8 at byte 2 of the line; convert the file to UTF-8"),
        (inter, 8, True, "an extra tab: expected 3 columns as in the header, found 4"),
        (inter, 9, True, "column 'x': expected a finite number, found 'x'"),
        (inter, 10, True, "a carriage return without a line feed; convert the line ends to \\n"),
        (user, 3, False, f"column 'age': {missing}"),
        (user, 3, True, "column 'w': expected finite numbers with a space between, found 'y'"),
        (user, 4, True, "u '1' is there twice (first on line 2)"),
        (user, 5, False, f"column 'u': '[PAD]' {padding}"),
        *(
            (inter, n, False, f"u '{u}' is not in toy.user; its fields are absent there")
            for n, u in [(4, "NA"), (9, "5"), (11, "7")]
        ),
    }


def test_validate_names_interactions_without_a_side_row(tmp_path):
    inter = write(tmp_path, HEADER + b"1\ta\t1\n\n2\ta\t1\n")
    write(tmp_path, b"u:token\tage:float\n1\t30\n", "toy.user")
    blank, fault = validate(tmp_path / "toy")
    assert str(blank) == f"{inter}, line 3: a blank line is not a row, here and in stock RecBole"
    assert str(fault) == f"{inter}, line 4: u '2' is not in toy.user; its fields are absent there"
    assert not fault.fatal


@pytest.mark.parametrize(
    ("columns", "types", "message"),
    [
        ({"a": [1.0, None]}, {"a": "float"}, "line 3: column 'a': expected a finite number, found a missing value"),
        ({"a": [1.0, float("inf")]}, {"a": "float"}, "line 3: column 'a': expected a finite number, found inf"),
        ({"a": ["1", "x"]}, {"a": "float"}, "line 3: column 'a': expected a finite number, found 'x'"),
        ({"a": [1.5]}, {"a": "token"}, "column 'a' is Float64, a token must be text or an integer"),
        ({"a:b": ["1"]}, {"a:b": "token"}, "column name 'a:b'"),
        ({"a": ["1"]}, {"a": "tokens"}, "unknown type 'tokens'"),
        ({"a": ["1", ""]}, {"a": "token"}, "line 3: the only column is empty"),
        ({"a": [[1.0], [2.0, None, float("nan")]]}, {"a": "float_seq"}, "line 3: column 'a': expected finite numbers"),
    ],
)
def test_the_writer_refuses_what_would_be_misread(tmp_path, columns, types, message):
    path = tmp_path / "toy" / "toy.inter"
    with pytest.raises(DataError) as caught:
        write_atomic(pl.DataFrame(columns, strict=False), path, types)
    assert message in str(caught.value)
    assert not path.exists()
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_the_writer_in_batches_and_lazily(tmp_path):
    frame = pl.DataFrame(
        {"u": [7, None, 9], "s": [["a b", "c"], [], None], "w": [[1.0, 2.5], [], None], "x": [1, 2, 3]}
    )
    types = {"u": "token", "s": "token_seq", "w": "float_seq", "x": "float"}
    expected = b"u:token\ts:token_seq\tw:float_seq\tx:float\n7\ta%20b c\t1 2.5\t1\n\t\t\t2\n9\t\t\t3\n"
    for name, frames in {"frame": frame, "lazy": frame.lazy(), "batches": [frame.head(1), frame.tail(2)]}.items():
        assert write_atomic(frames, tmp_path / name, types) == 3
        assert (tmp_path / name).read_bytes() == expected


def test_rows_of_different_lengths_are_found_though_their_tabs_add_up_and_few_columns_are_read(tmp_path):
    table = AtomicTable([write(tmp_path, b"a:token\tb:token\nx\tyy\n\tx\t\n\tx\nyy\n")])
    with pytest.raises(DataError, match=r"toy\.inter, line 3: an extra tab: expected 2 columns"):
        list(table.batches(["a"]))


def test_a_value_that_begins_like_a_byte_order_mark_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "BLOCK_BYTES", 4)
    content = "a:token\tb:float\nx\t1\n\ufeffy\t2\n".encode()
    assert rows(write(tmp_path, content)) == [("x", 1.0), ("\ufeffy", 2.0)]
    assert rows(write(tmp_path, "a:token\n\ufeffy\nx\n".encode())) == [("\ufeffy",), ("x",)]
