"""The core of preprocessing: raw files in archives, blocks of rows, rejected rows, files that take their places."""

import csv
import fcntl
import gzip
import hashlib
import io
import os
import tarfile
import time
import zipfile
from contextlib import ExitStack, contextmanager

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbole_dtn.config.datasets import INCOMPLETE, has_atomic_files
from recbole_dtn.data import building as building_module
from recbole_dtn.data import staging
from recbole_dtn.data.building import building, locked_folder
from recbole_dtn.data.preprocess import lines as lines_module
from recbole_dtn.data.preprocess.lines import LINE, line_blocks, read_table, whole_rows
from recbole_dtn.data.preprocess.raw_files import RawFolder, plain_file
from recbole_dtn.data.preprocess.rejects import EARLY_ROWS, LARGEST_TABLE, Rejects
from recbole_dtn.data.preprocess.stamps import changed, stamps
from recbole_dtn.data.staging import dataset_files, staged
from recbole_dtn.errors import DataError, TooManyRejectedError, UsageError

CONTENT = "".join(f"{i},{i * i}\n" for i in range(5000)).encode()


# ---- raw_files ------------------------------------------------------------------------------------------------------


def tar_bytes(mode, name="logs/part.csv", content=CONTENT):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for member, data in (("readme.txt", b"hello"), (name, content)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def zip_bytes(name="logs/part.csv", content=CONTENT):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr(name, content)
    return target.getvalue()


def zst(content):
    half = len(content) // 2  # two frames, as `zstd --rsyncable` or `cat a.zst b.zst` make them
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:half], content[half:]))


KINDS = {
    "part.csv": CONTENT,
    "part.csv.gz": gzip.compress(CONTENT[:100]) + gzip.compress(CONTENT[100:]),
    "part.csv.zst": zst(CONTENT),
    "all.zip": zip_bytes(),
    "outer.zip": zip_bytes("deep/inner.zip", zip_bytes()),
    "gz.zip": zip_bytes("part.csv.gz", gzip.compress(CONTENT)),
    "all.tar": tar_bytes("w"),
    "all.tar.gz": tar_bytes("w:gz"),
    "all.tgz": tar_bytes("w:gz"),
    "all.tar.zst": zst(tar_bytes("w")),
    "gz.tar": tar_bytes("w", "part.csv.gz", gzip.compress(CONTENT)),
}


def read_all(raw):
    with raw.open() as (stream, position):
        content = stream.read()
        assert 0 <= position() <= raw.size
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_file_is_found_and_read_wherever_it_lies(tmp_path, kind):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / kind).write_bytes(KINDS[kind])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folder = RawFolder(tmp_path / "sub", scratch)
    found, missing = folder.find_all(["part.csv", "other.csv"])
    assert missing == ["other.csv"]
    for _ in range(2):  # a raw file can be opened again
        assert read_all(found["part.csv"]) == CONTENT
    assert read_all(folder.find("part.csv")) == CONTENT
    assert folder.find("art.csv") is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "part.csv"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, kind):
    (tmp_path / kind).write_bytes(KINDS[kind][: len(KINDS[kind]) * 2 // 3])
    with pytest.raises(DataError, match=r"cannot be read \(.*\); is the download complete\?") as caught:
        read_all(RawFolder(tmp_path, tmp_path).find("part.csv"))
    assert kind in str(caught.value)


def test_plain_files_win_over_archives_and_a_missing_folder_has_none(tmp_path):
    (tmp_path / "all.zip").write_bytes(zip_bytes(content=b"old\n"))
    (tmp_path / "part.csv").write_bytes(b"new\n")
    assert read_all(RawFolder(tmp_path).find("part.csv")) == b"new\n"
    assert RawFolder(tmp_path / "none").find("part.csv") is None


def test_a_file_that_is_not_what_its_ending_says(tmp_path):
    for ending in ("gz", "zst", "zip", "tar.gz"):
        path = tmp_path / ending / f"part.csv.{ending}"
        path.parent.mkdir()
        path.write_bytes(b"plain text\n")
        said = "is no gzip data .*a plain text file is named without" if ending == "gz" else "cannot be read"
        with pytest.raises(DataError, match=rf"part\.csv\.{ending}.*{said}"):
            read_all(RawFolder(path.parent).find("part.csv"))


def test_a_raw_file_knows_the_file_on_disk_and_whether_its_size_is_that_of_text(tmp_path):
    packed = {"part.csv.gz", "part.csv.zst", "gz.zip", "gz.tar"}
    for kind, data in KINDS.items():
        folder = tmp_path / kind.replace(".", "_")
        folder.mkdir()
        (folder / kind).write_bytes(data)
        raw = RawFolder(folder, tmp_path).find("part.csv")
        assert raw.path == folder / kind
        assert raw.packed == (kind in packed)
        assert raw.packed or raw.size == len(CONTENT)


def test_zips_inside_zips_are_not_unpacked_to_be_listed(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "outer.zip").write_bytes(KINDS["outer.zip"])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folder = RawFolder(raw, scratch, nested=False)
    assert folder.find_all(["part.csv", "readme.txt"])[1] == ["part.csv"]
    assert folder.unseen == len(zip_bytes())
    assert not list(scratch.iterdir())


# ---- stamps ---------------------------------------------------------------------------------------------------------


def test_stamps_tell_another_file_by_its_size_its_start_and_its_end(tmp_path):
    content = bytes(range(256)) * 12_000  # 3 MB
    path = tmp_path / "raw" / "sub" / "part.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    raws = [RawFolder(tmp_path / "raw").find("part.csv")]
    found = stamps(raws * 2, tmp_path / "raw")
    ends = content[: 1 << 20] + content[-(1 << 20) :]
    assert found == [{"file": "sub/part.csv", "size": 3_072_000, "digest": hashlib.sha256(ends).hexdigest()}]
    assert changed(found, tmp_path / "raw") == []
    for other in (content + b"x", b"x" + content[1:], content[:-1] + b"x"):
        path.write_bytes(other)
        assert changed(found, tmp_path / "raw") == ["sub/part.csv"]
    path.write_bytes(content)
    os.utime(path, (0, 0))
    assert changed(found, tmp_path / "raw") == []
    path.unlink()  # to make room: no change
    assert changed(found, tmp_path / "raw") == []
    assert changed(found, tmp_path / "none") == []
    assert changed([{"file": 3}, "x"], tmp_path / "raw") == []  # a record of another shape


def test_of_archives_the_archive_is_stamped(tmp_path):
    (tmp_path / "outer.zip").write_bytes(KINDS["outer.zip"])
    folder = RawFolder(tmp_path)
    (stamp,) = stamps([folder.find("part.csv"), folder.find("readme.txt")], tmp_path)
    assert stamp["file"] == "outer.zip"
    assert stamp["size"] == len(KINDS["outer.zip"])


# ---- lines ----------------------------------------------------------------------------------------------------------


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
    path = tmp_path / "raw.csv"
    path.write_bytes(b'0,"\n' + CONTENT)
    blocks = list(line_blocks(plain_file(path), quote='"', block_bytes=64))
    assert max(len(block.data) for block in blocks) <= 200 + 2 * 64
    assert b"".join(block.data for block in blocks) == b'0,"\n' + CONTENT
    rows, numbers, rejected = table(tmp_path, b'0,"\n' + CONTENT, block_bytes=64)
    assert rejected == {1: "misplaced quote"}
    assert rows == [tuple(line.split(",")) for line in CONTENT.decode().split()]
    assert numbers == list(range(2, 5002))


CELL = st.text(st.sampled_from('ab",\n\r é\t'), max_size=5)


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=300, deadline=None)
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


# ---- rejects --------------------------------------------------------------------------------------------------------


def new_rejects(tmp_path, max_share=0.1, strict=False):
    return Rejects(tmp_path / "rejected.tsv", max_share=max_share, strict=strict)


def test_rejected_rows_are_listed_and_the_sums_are_said(tmp_path):
    rejects = new_rejects(tmp_path, 0.3)
    tally = rejects.table("log")
    assert rejects.table("log") is tally
    tally.rows_in, tally.written = 1000, 700
    tally.dropped["click = 0 and buy = 1"] += 100
    tally.reject("a\tb.csv", [3, 9], "short row", [b"x\ty\xff", "z" * 300])
    tally.reject("a\tb.csv", range(10, 208), "too long")
    said = []
    rejects.finish(said.append)
    assert said == [
        "log: 1,000 rows in = 700 written + 100 dropped (click = 0 and buy = 1) + 200 rejected "
        "(too long: 198, short row: 2)"
    ]
    rows = (tmp_path / "rejected.tsv").read_text().splitlines()
    assert rows[:3] == [
        "file\tline\treason\ttext",
        "a%09b.csv\t3\tshort row\tx%09y\\xff",
        f"a%09b.csv\t9\tshort row\t{'z' * 200}...",
    ]
    assert len(rows) == 201
    assert rejects.count == 200
    assert tally.as_dict() == {
        "rows_in": 1000,
        "written": 700,
        "dropped": {"click = 0 and buy = 1": 100},
        "rejected": {"short row": 2, "too long": 198},
    }


def test_the_share_counts_by_table(tmp_path):
    rejects = new_rejects(tmp_path, 0.1)
    for name, rows in (("big", 1000), ("small", 10)):
        tally = rejects.table(name)
        tally.rows_in, tally.written = rows, rows - 1
        tally.reject("f", [1], "bad", ["the row"])
    rejects.check(tally)  # 1 of 10 is a tenth, not more
    tally.rows_in += 1
    tally.reject("f", [2], "worse", ["another"], example="worse; do this")
    with pytest.raises(TooManyRejectedError) as caught:
        rejects.finish(lambda text: None)
    assert str(caught.value).splitlines() == [
        "small: 2 of the first 11 rows are rejected (18.182%), max_rejected allows 10.000%: bad (1), worse (1); see "
        "rejected.tsv, mend the raw files or raise --max_rejected. First of each:",
        "  f, line 1: bad: the row",
        "  f, line 2: worse; do this",
    ]


def test_strict_stops_at_the_first(tmp_path):
    rejects = new_rejects(tmp_path, 1.0, strict=True)
    with pytest.raises(TooManyRejectedError, match=r"^f, line 7: bad: the row; without --strict"):
        rejects.table("t").reject("f", [7, 8], "bad", ["the row", "more"])


@pytest.mark.parametrize("rows", [[1] * 150, [150], [0] * 99 + [150], [0] * 198 + [150]])
def test_where_the_faulty_rows_stand_does_not_matter(tmp_path, rows):
    """150 of 198,470 rows are .0756 %, below a limit of .1 %; they come in blocks, anywhere in the table."""
    rejects = new_rejects(tmp_path, 0.001)
    tally = rejects.table("t")
    for bad in rows:
        tally.rows_in += 1000
        tally.written += 1000 - bad
        tally.reject("f", range(bad), "bad")
    tally.written += 198_470 - tally.rows_in
    tally.rows_in = 198_470
    rejects.finish(lambda text: None)
    tally.rows_in, tally.written = 149_999, 149_849  # .10001 %
    with pytest.raises(TooManyRejectedError, match="150 of the first 149,999 rows"):
        rejects.check(tally)


def test_a_table_stops_early_only_when_it_can_no_longer_pass(tmp_path):
    rejects = new_rejects(tmp_path, 0.001)
    tally = rejects.table("t")
    enough = int(0.001 * LARGEST_TABLE)
    tally.rows_in = 10 * enough  # a tenth of the rows: far too many, but 99 times as many good ones may come
    tally.reject("f", range(enough), "bad")
    with pytest.raises(TooManyRejectedError, match=r"the first 5,000,000 rows are rejected \(10\.000%\)"):
        tally.reject("f", [1], "bad")


def test_a_long_table_with_a_few_faulty_rows_in_a_hundred_is_read_to_its_end(tmp_path):
    rejects = new_rejects(tmp_path, 0.001)
    tally = rejects.table("t")
    tally.rows_in = 10**9
    tally.rejected["bad"] = 2 * 10**7
    tally.reject("f", [1], "bad")


def test_where_no_faulty_row_is_allowed_a_long_table_is_not_read_on(tmp_path):
    rejects = new_rejects(tmp_path, 0.0)
    tally = rejects.table("t")
    tally.rows_in = EARLY_ROWS - 1
    tally.reject("f", [1], "bad")
    tally.rows_in += 1
    with pytest.raises(TooManyRejectedError, match="2 of the first 100,000 rows"):
        tally.reject("f", [2], "bad")


def test_a_lost_row_is_a_fault_of_the_program(tmp_path):
    rejects = new_rejects(tmp_path)
    tally = rejects.table("t")
    tally.rows_in, tally.written = 10, 9
    with pytest.raises(RuntimeError, match="rows were lost or doubled: t: 10 rows in = 9 written"):
        rejects.finish(lambda text: None)


# ---- staging --------------------------------------------------------------------------------------------------------


def write(data_path, names, text="new", **options):
    options = {"overwrite": False, **options}
    with staged(data_path / "mine", "mine", **options) as (work, scratch):
        (scratch / "spill").write_text("x")
        for name in names:
            (work / name).write_text(text)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


FILES = ["mine.train.inter", "mine.user", "mine.yaml"]


def test_files_take_their_places_together(tmp_path):
    write(tmp_path, FILES)
    assert content(tmp_path / "mine") == dict.fromkeys(FILES, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(UsageError, match="holds a data set already"):
        write(tmp_path, FILES)


def test_overwriting_removes_what_the_old_set_had_more(tmp_path):
    write(tmp_path, [*FILES, "mine.item", "mine.test.inter", "rejected.tsv", "preprocess.json"])
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "mine" / "raw").mkdir()
    write(tmp_path, ["mine.inter"], overwrite=True)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["mine.inter", "notes.txt", "raw"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_changes_nothing(tmp_path, existing):
    if existing:
        write(tmp_path, FILES, "old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), staged(tmp_path / "mine", "mine", overwrite=True) as (work, _):
            raise error((work / "mine.user").write_text("half"))
    assert [path.name for path in tmp_path.iterdir()] == (["mine"] if existing else [])
    if existing:
        assert content(tmp_path / "mine") == dict.fromkeys(FILES, "old")


def test_folders_made_for_a_failed_run_are_removed(tmp_path):
    with pytest.raises(ValueError, match="x"), staged(tmp_path / "a" / "b" / "mine", "mine", overwrite=False):
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_messages_name_the_folder_and_not_the_work_folder(tmp_path):
    with pytest.raises(DataError) as caught, staged(tmp_path / "mine", "mine", overwrite=False) as (work, _):
        raise DataError(f"{work / 'mine.inter'}, line 2: wrong")
    assert str(caught.value) == f"{tmp_path / 'mine' / 'mine.inter'}, line 2: wrong"


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("existing", [False, True])
def test_killed_while_the_files_are_moved(tmp_path, monkeypatch, step, existing):
    if existing:
        write(tmp_path, FILES, "old")
    moves = []
    move = os.replace

    def killed(source, target):
        moves.append(target)
        if len(moves) == step:
            raise SystemExit("killed")
        move(source, target)

    monkeypatch.setattr(staging.os, "replace", killed)
    with pytest.raises(SystemExit):
        write(tmp_path, FILES, overwrite=existing)
    monkeypatch.undo()
    folder = tmp_path / "mine"
    assert (folder / INCOMPLETE).exists()
    assert dataset_files(folder) == []
    assert not has_atomic_files(folder)
    write(tmp_path, FILES)  # starts over, without --overwrite: what is there is no data set
    assert content(folder) == dict.fromkeys(FILES, "new")
    assert has_atomic_files(folder)


def test_a_stale_file_of_an_interrupted_run_does_not_stay(tmp_path):
    write(tmp_path, ["mine.train.inter", "mine.item"], "old")
    (tmp_path / "mine" / INCOMPLETE).touch()
    write(tmp_path, ["mine.train.inter"])
    assert content(tmp_path / "mine") == {"mine.train.inter": "new"}


def aged(folder, seconds):
    os.utime(folder, (time.time() - seconds,) * 2)


def test_abandoned_work_folders_go_whatever_their_names_and_live_ones_stay(tmp_path):
    dead = [tmp_path / name for name in (".writing-mine-gone", ".writing-other-gone", ".starting-gone")]
    for folder in dead:
        (folder / "files").mkdir(parents=True)
        (folder / ".lock").touch()
    lockless = tmp_path / ".starting-early"  # killed before it had its lock
    lockless.mkdir()
    foreign = [tmp_path / "writing-mine", tmp_path / ".writings"]
    for folder in foreign:
        folder.mkdir()
    file = tmp_path / ".writing-x"  # another process may be about to rename it
    file.touch()
    live = [tmp_path / ".writing-mine-live", tmp_path / ".writing-other-live", tmp_path / ".starting-live"]
    with ExitStack() as stack:
        for folder in live:
            folder.mkdir()
            lock = stack.enter_context((folder / ".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            aged(folder, 10_000)
        with locked_folder(tmp_path, ".writing-mine-") as held:
            assert not [folder for folder in (*dead, lockless) if folder.exists()]
            assert all(path.exists() for path in (*live, *foreign, file))
            with (held / ".lock").open() as other, pytest.raises(OSError, match=r"unavailable|would block"):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not held.exists()
    write(tmp_path, FILES)
    assert not [folder for folder in live if folder.exists()]  # their processes have let go of them
    assert all(path.exists() for path in (*foreign, file))


def test_where_a_folder_cannot_be_locked_only_old_remains_go(tmp_path, monkeypatch):
    """Without that lock a process may be between making its folder and locking it."""

    @contextmanager
    def unknown(root):
        yield False

    monkeypatch.setattr(building_module, "guarded", unknown)
    young, old = tmp_path / ".writing-a-young", tmp_path / ".writing-a-old"
    for folder in (young, old):
        folder.mkdir()
        (folder / ".lock").touch()
    aged(old, 61)
    with locked_folder(tmp_path, ".writing-mine-"):
        assert young.exists()
        assert not old.exists()


def test_two_at_work_in_one_folder(tmp_path):
    with (
        locked_folder(tmp_path, ".writing-a-") as one,
        building(tmp_path) as two,
        locked_folder(tmp_path, "x") as three,
    ):
        assert len({one, two, three}) == 3
        assert all(folder.is_dir() for folder in (one, two, three))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_lists_of_an_earlier_failed_run_do_not_stay(tmp_path, overwrite):
    (tmp_path / "mine").mkdir()
    for name in ("rejected.tsv", "rejected.failed.tsv"):
        (tmp_path / "mine" / name).write_text("old")
    write(tmp_path, FILES, overwrite=overwrite)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == FILES


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file", FILES)


def test_a_set_written_again_as_it_was(tmp_path):
    write(tmp_path, FILES)
    (tmp_path / "mine" / "mine.item").write_text("another")
    write(tmp_path, FILES, same=True)
    assert content(tmp_path / "mine") == {**dict.fromkeys(FILES, "new"), "mine.item": "another"}
    with pytest.raises(UsageError, match=r"mine\.train\.inter, mine\.user, mine\.yaml"):
        write(tmp_path, FILES, "changed", same=True)
    assert content(tmp_path / "mine")["mine.user"] == "new"
