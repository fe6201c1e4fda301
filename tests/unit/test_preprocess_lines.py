"""Blocks of rows out of raw text: line ends, quotes, rows of other widths."""

import csv
import gzip
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbole_dtn.preprocess import lines as lines_module
from recbole_dtn.preprocess.lines import LINE, line_blocks, read_table, whole_rows
from recbole_dtn.preprocess.raw_files import plain_file
from recbole_dtn.preprocess.rejects import Rejects

CONTENT = "".join(f"{i},{i * i}\n" for i in range(5000)).encode()


def table(tmp_path, content, columns="ab", quote='"', block_bytes=1 << 20, separator=",", **options):
    """Rows, their lines, and what was rejected, ``{line: reason}``."""
    path = tmp_path / "raw.csv"
    path.write_bytes(content)
    rejects = Rejects(tmp_path / "rejected.tsv", max_share=1.0, strict=False)
    tally = rejects.table("raw")
    rows, numbers = [], []
    for block in line_blocks(plain_file(path, name="raw.csv"), quote=quote, block_bytes=block_bytes):
        frame = read_table(block, list(columns), tally, "raw.csv", separator=separator, quote=quote, **options)
        numbers += frame[LINE].to_list()
        rows += frame.drop(LINE).rows()
    rejects.close()
    listed = [row.split("\t") for row in (tmp_path / "rejected.tsv").read_text().splitlines()[1:]]
    assert tally.rows_in == len(rows) + tally.rejected_rows == len(rows) + len(listed)
    return rows, numbers, {int(line): reason for _, line, reason, _ in listed}


BLOCKS = [1, 3, 7, 64, 1 << 20]


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize(
    "content",
    [
        b"1,x\n2,y\n3,z\n",
        b"1,x\n2,y\n3,z",  # no line feed at the end
        b"\xef\xbb\xbf1,x\n2,y\n3,z\n",  # a byte order mark
        b"1,x\r\n2,y\r\n3,z\r\n",
        b"\xef\xbb\xbf1,x\r\n2,y\r\n3,z",
        b'1,x\n"2",y\n3,"z"\n',
    ],
)
def test_the_same_rows_however_the_file_ends_its_lines(tmp_path, content, block_bytes):
    if content.startswith(b"\xef") and block_bytes < 3:
        pytest.skip("a block holds the whole mark")
    rows, numbers, rejected = table(tmp_path, content, block_bytes=block_bytes)
    assert rows == [("1", "x"), ("2", "y"), ("3", "z")]
    assert numbers == [1, 2, 3]
    assert rejected == {}


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("quote", [None, '"'])
def test_faulty_rows_are_rejected_with_their_lines(tmp_path, block_bytes, quote):
    content = b"1,x\n\n2\n3,y,z\n4,\xff\n5,w\n  \n6,v\rv\n,\n7,u"
    rows, numbers, rejected = table(tmp_path, content, block_bytes=block_bytes, quote=quote)
    assert rows == [("1", "x"), ("5", "w"), (None, None), ("7", "u")]
    assert numbers == [1, 6, 9, 10]
    assert rejected == {
        2: "blank line",
        3: "expected 2 columns, found 1",
        4: "expected 2 columns, found 3",
        5: "not UTF-8",
        7: "blank line",
        8: "a carriage return without a line feed",
    }


def test_a_short_and_a_long_row_do_not_make_up_for_each_other(tmp_path):
    rows, numbers, rejected = table(tmp_path, b"1,x\n2\n3,y,z\n4,w\n")
    assert (rows, numbers) == ([("1", "x"), ("4", "w")], [1, 4])
    assert sorted(rejected) == [2, 3]


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_quoted_line_feeds_across_blocks(tmp_path, block_bytes):
    content = b'1,"a\nb\n\nc"\n2,"d,""e"""\n"3\n","f\r\ng"\r\n4,\n5\n6,"h"\n'
    rows, numbers, rejected = table(tmp_path, content, block_bytes=block_bytes)
    assert rows == [("1", "a\nb\n\nc"), ("2", 'd,"e"'), ("3\n", "f\r\ng"), ("4", None), ("6", "h")]
    assert numbers == [1, 5, 6, 9, 11]
    assert rejected == {10: "expected 2 columns, found 1"}


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_an_unclosed_quote_costs_its_own_line_alone(tmp_path, block_bytes):
    content = b'1,x\n2,"y\n3,z\n4,w\n'
    rows, numbers, rejected = table(tmp_path, content, block_bytes=block_bytes)
    assert (rows, numbers) == ([("1", "x"), ("3", "z"), ("4", "w")], [1, 3, 4])
    assert rejected == {2: "misplaced quote"}


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_stray_quotes_cost_their_own_lines_alone(tmp_path, block_bytes):
    content = b'1,x\n2,5" disk\n3,z\n4,a"b"c\n5,3" disk\n6,"w"\n7,"p"q\n8,"m\nn"\n'
    rows, numbers, rejected = table(tmp_path, content, block_bytes=block_bytes)
    assert rows == [("1", "x"), ("3", "z"), ("6", "w"), ("8", "m\nn")]
    assert numbers == [1, 3, 6, 8]
    assert rejected == dict.fromkeys([2, 4, 5, 7], "misplaced quote")


def test_an_unclosed_quote_does_not_hold_the_rest_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "HELD_BYTES", 200)
    content = b"".join(CONTENT.splitlines(keepends=True)[:300])
    assert len(content) > 5 * (200 + 64)
    path = tmp_path / "raw.csv"
    path.write_bytes(b'0,"\n' + content)
    blocks = list(line_blocks(plain_file(path), quote='"', block_bytes=64))
    assert max(len(block.data) for block in blocks) <= 200 + 2 * 64
    assert b"".join(block.data for block in blocks) == b'0,"\n' + content
    rows, numbers, rejected = table(tmp_path, b'0,"\n' + content, block_bytes=64)
    assert rejected == {1: "misplaced quote"}
    assert rows == [tuple(line.split(",")) for line in content.decode().split()]
    assert numbers == list(range(2, 302))


CELL = st.text(st.sampled_from('ab",\n\r é\t'), max_size=5)


@settings(max_examples=75, deadline=None)
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6), st.sampled_from(BLOCKS), st.booleans())
@example([("", '"', "\n\n"), (",", "\r\n", "")], 3, True)
def test_what_pythons_csv_writes_is_read_back(tmp_path_factory, rows, block_bytes, unix):
    text = io.StringIO()
    options = {"lineterminator": "\n", "quoting": csv.QUOTE_ALL} if unix else {}
    csv.writer(text, **options).writerows(rows)
    written = text.getvalue()
    found, numbers, rejected = table(
        tmp_path_factory.mktemp("csv"), written.encode(), columns="abc", block_bytes=block_bytes
    )
    assert [tuple(value or "" for value in row) for row in found] == rows
    assert rejected == {}
    end, lines = 0, []
    for row in rows:
        lines.append(1 + written[:end].count("\n"))
        text = io.StringIO()
        csv.writer(text, **options).writerow(row)
        end += len(text.getvalue())
    assert numbers == lines


def test_columns_that_are_not_asked_for_are_checked_and_not_returned(tmp_path):
    rows, numbers, rejected = table(tmp_path, b"1,x,p\n2,\xff,q\n3,y\n4,z,r\n", columns="abc", wanted=["c", "a"])
    assert (rows, numbers) == ([("p", "1"), ("r", "4")], [1, 4])
    assert rejected == {2: "not UTF-8", 3: "expected 3 columns, found 2"}


CELLS = st.lists(st.sampled_from(["", "x", "yy", '"p,\nq"']), min_size=1, max_size=5)


@settings(max_examples=120, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=5), st.integers(1, 3), st.sampled_from([None, [0], [-1], []]))
@example([["x", "yy"], ["", "x", ""], ["", "x"], ["yy"]], 2, [0])
@example([["x", "yy"], [""], [""], ["yy", "yy", "x", "x"]], 2, [])
def test_rows_of_any_widths(tmp_path_factory, cells, width, wanted):
    content = "".join(",".join(row) + "\n" for row in cells)
    columns = "abc"[:width]
    names = None if wanted is None else [columns[at] for at in wanted]
    found, numbers, rejected = table(tmp_path_factory.mktemp("rows"), content.encode(), columns=columns, wanted=names)
    lines, expected = 1, {}
    for row in cells:
        if len(row) == width and row != [""]:
            expected[lines] = row
        lines += 1 + sum(cell.count("\n") for cell in row)
    assert numbers == list(expected)
    kept = [[row[columns.index(name)] for name in names or columns] for row in expected.values()]
    if names != []:
        assert [[value or "" for value in row] for row in found] == [[v.strip('"') for v in row] for row in kept]
    assert len(rejected) == len(cells) - len(expected)


def test_white_space_is_stripped_when_asked(tmp_path):
    rows, _, _ = table(tmp_path, b" 1 , x y \n  ,\tz\n", strip=True)
    assert rows == [("1", "x y"), (None, "z")]


def test_rows_by_their_lines(tmp_path):
    (tmp_path / "raw.csv").write_bytes(b'1,"a\nb"\n2,c\n')
    (block,) = line_blocks(plain_file(tmp_path / "raw.csv"), quote='"')
    assert list(whole_rows(block, '"')) == [(1, b'1,"a\nb"'), (3, b"2,c")]


def test_reading_stops_when_the_reader_does(tmp_path):
    (tmp_path / "raw.csv").write_bytes(CONTENT)
    blocks = line_blocks(plain_file(tmp_path / "raw.csv"), block_bytes=64)
    assert next(blocks).first == 1
    blocks.close()


def test_the_meter_sees_the_whole_file(tmp_path):
    path = tmp_path / "raw.csv.gz"
    path.write_bytes(gzip.compress(CONTENT))
    said = []
    list(line_blocks(plain_file(path, name="raw.csv.gz"), block_bytes=1000, meter=lambda *what: said.append(what)))
    assert {stage for stage, _, _ in said} == {"reading raw.csv.gz"}
    done = [done for _, done, _ in said]
    assert done == sorted(done)
    assert said[-1][1:] == (path.stat().st_size, path.stat().st_size)
