"""Limits on a line and on blank lines in a row, in raw text files and in atomic files."""

import pytest

from recbole_dtn.cli.app import main
from recbole_dtn.data import atomic, long_lines
from recbole_dtn.data.atomic import AtomicTable, read_header
from recbole_dtn.data.long_lines import check_blank_lines, check_line_lengths
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess import lines as lines_module
from recbole_dtn.preprocess.lines import line_blocks, read_table
from recbole_dtn.preprocess.raw_files import plain_file
from recbole_dtn.preprocess.rejects import Rejects

SPEC = "fields: [{name: user}, {name: item}]\ntasks: [{name: click, label: click}]\n"


@pytest.mark.parametrize("block_bytes", [1, 3, 4, 1 << 20])
@pytest.mark.parametrize("quote", [None, '"'])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n5,6\n"])
def test_a_line_above_the_limit_is_told_with_its_number(tmp_path, block_bytes, quote, end):
    path = tmp_path / "raw.csv"
    path.write_bytes(b"1,2\n12345678\n" + b"x" * 9 + end)
    with pytest.raises(DataError, match=r"raw\.csv, line 3: longer than 8 bytes; .*--max_line"):
        list(line_blocks(plain_file(path), quote=quote, block_bytes=block_bytes, max_line=8))
    found = list(line_blocks(plain_file(path), quote=quote, block_bytes=block_bytes, max_line=9))
    assert b"".join(block.data for block in found).startswith(b"1,2\n12345678\nxxxxxxxxx\n")


def test_the_longest_line_without_its_line_feed():
    check_line_lengths(b"12345\n12345", "f", 1, 5)
    with pytest.raises(DataError, match="f, line 8: longer than 4 bytes"):
        check_line_lengths(b"1234\n12345\n", "f", 7, 4)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\n\n\n1\n", 5),
        (b"1\n\n\n\n1\n", 6),
        (b"1\r\n2\r\n\r\n\r\n\r\n", 7),
        (b"\r\n\r\n\r\n", 5),
        (b"1\n\n\n2\n\n\n3\n", None),
        (b"\n\n1\r\n\r\n\r\n", None),
    ],
)
def test_blank_lines_in_a_row(data, line):
    if line is None:
        check_blank_lines(data, "f", 5, 2)
    else:
        with pytest.raises(DataError, match=f"f, line {line}: more than 2 blank lines in a row"):
            check_blank_lines(data, "f", 5, 2)


def test_raw_files_with_many_blank_lines_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(long_lines, "MAX_BLANK", 4)
    path = tmp_path / "raw.csv"
    path.write_bytes(b"1,2\n\n\n\n\n3,4\n\n\n\n\n\n5,6\n")
    with pytest.raises(DataError, match=r"raw\.csv, line 7: more than 4 blank lines in a row"):
        list(line_blocks(plain_file(path)))


def test_a_block_with_faulty_rows_is_read_in_pieces(tmp_path, monkeypatch):
    """Each piece has whole lines with their numbers, whatever its size."""
    path = tmp_path / "raw.csv"
    path.write_bytes(b"".join(b"%d,%d\n" % (i, i) if i % 3 else b"\n" for i in range(1, 100)))
    found = []
    for piece in (1, 7, 1 << 20):
        monkeypatch.setattr(lines_module, "PIECE_BYTES", piece)
        rejects = Rejects(tmp_path / "rejected.tsv", max_share=1.0, strict=False)
        tally = rejects.table("raw")
        (block,) = line_blocks(plain_file(path))
        found.append(read_table(block, ["a", "b"], tally, "raw.csv").rows())
        rejects.close()
        assert (tally.rows_in, tally.rejected) == (99, {"blank line": 33})
    assert found[0] == found[1] == found[2] == [(str(i), str(i), i) for i in range(1, 100) if i % 3]


def test_max_line_is_an_option_of_preprocess(tmp_path, capsys):
    (tmp_path / "spec.yaml").write_text(SPEC)
    rows = "".join(f"{i % 5},{i % 7},{i % 2}\n" for i in range(50))
    (tmp_path / "raw.csv").write_text("user,item,click\n" + rows + f"1,{'x' * (1 << 20)},1\n")
    words = [f"--input={tmp_path}/raw.csv", f"--spec={tmp_path}/spec.yaml", "--name=toy", f"--data_path={tmp_path}"]
    assert main(["preprocess", "table", *words, "--max_line=1"]) == 2
    assert "raw.csv, line 52: longer than 1 MiB" in capsys.readouterr().err
    assert not (tmp_path / "toy").exists()
    assert main(["preprocess", "table", *words, "--max_line=2"]) == 0
    assert main(["preprocess", "table", *words, "--max_line=0"]) == 2
    assert "expected whole MiB from 1 to 1,048,576; found '0'" in capsys.readouterr().err


HEADER = b"u:token\tx:float\n"


def test_atomic_files_have_the_same_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "MAX_LINE", 8)
    monkeypatch.setattr(atomic, "BLOCK_BYTES", 4)
    monkeypatch.setattr(long_lines, "MAX_BLANK", 2)
    path = tmp_path / "toy.inter"

    def rows(content):
        path.write_bytes(HEADER + content)
        return [row for batch in AtomicTable([path]).batches() for row in batch.frame.rows()]

    assert rows(b"1\t2\n\n\n3\t4\n") == [("1", 2.0), ("3", 4.0)]
    with pytest.raises(DataError, match=r"toy\.inter, line 3: longer than"):
        rows(b"1\t2\n" + b"x" * 30 + b"\t2\n")
    with pytest.raises(DataError, match=r"toy\.inter, line 3: more than 2 blank lines in a row"):
        rows(b"1\t2\n" + b"\n" * 9 + b"3\t4\n")


def test_the_header_of_an_atomic_file_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "HEADER_BYTES", 16)
    path = tmp_path / "toy.inter"
    path.write_bytes(HEADER)
    assert read_header(path).names == ("u", "x")
    path.write_bytes(b"user:token\titem:token\n")
    with pytest.raises(DataError, match=r"toy\.inter, line 1: longer than 16 bytes"):
        read_header(path)
