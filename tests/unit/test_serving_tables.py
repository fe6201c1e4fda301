"""Numbers of the rows that are scored: finite ones, missing ones, and what is refused with its place."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.table import scan
from recbole_dtn.serving.tables import Reading, Rows, joined, numbers_of, open_input


def rows(path: Path) -> Rows:
    table = open_input("input", str(path), Reading())
    (block,) = table.blocks(["x"])
    return block


def test_numbers_of_text_and_of_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u,x\n1, 2.5 \n2,\n3,nan\n4,-1e3\n5,1e300\n")
    expected = [2.5, None, None, -1000.0, 1e300]
    assert numbers_of(rows(tmp_path / "a.csv"), "x", "field").to_list() == expected
    pl.DataFrame({"x": [2.5, None, math.nan, -1000.0, 1e300]}).write_parquet(tmp_path / "a.parquet")
    assert numbers_of(rows(tmp_path / "a.parquet"), "x", "field").to_list() == expected


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e400", "NULL", "None", "1_000", "-nan", "x"])
def test_what_is_no_finite_number_is_refused_in_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(f"u,x\n1,2\n2,\n3,{text}\n")
    with pytest.raises(
        DataError, match=rf"a\.csv, line 4: field, column 'x': expected a finite number; found '{text}'"
    ):
        numbers_of(rows(tmp_path / "a.csv"), "x", "field")


def test_what_is_infinite_is_refused_in_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1.0, None, -math.inf]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 3: .*expected a finite number; found -inf"):
        numbers_of(rows(tmp_path / "a.parquet"), "x", "field")


def test_blocks_of_parquet_are_small_whatever_the_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"x": range(10), "y": range(10, 20)})
    frame.write_parquet(path, row_group_size=10)
    monkeypatch.setattr(scan, "BATCH_CELLS", 8)
    blocks = list(open_input("input", str(path), Reading()).blocks(["x", "y"]))
    assert [block.frame.height for block in blocks] == [4, 4, 2]
    assert pl.concat(block.frame for block in blocks).equals(frame)
    assert blocks[2].name(1) == f"{path}, row 10"
    monkeypatch.setattr(scan, "BATCH_ROWS", 7)
    blocks = list(open_input("input", str(path), Reading()).blocks(["x"]))
    assert [block.frame.height for block in blocks] == [7, 3]


def test_rows_of_joined_blocks_keep_their_names(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.csv").write_text("u,x\n" + f"{number},1\n" * number)
    blocks = list(open_input("input", f"{tmp_path}/*.csv", Reading()).blocks(["u"]))
    rows = joined([blocks[1].slice(1, 1), blocks[0], blocks[1].slice(0, 1)])
    assert rows.frame["u"].to_list() == ["2", "1", "2"]
    assert [Path(rows.name(row)).name for row in range(3)] == ["2.csv, line 3", "1.csv, line 2", "2.csv, line 2"]


READ = """
import sys
from pathlib import Path
from recbole_dtn.serving.tables import Reading, open_input

def anonymous():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) >> 10

before = anonymous()
print(max(anonymous() for _ in open_input("input", sys.argv[1], Reading()).blocks(sys.argv[2].split(","))) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_a_row_group_is_not_held_whole(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.parquet", 1 << 21
    names = [f"x{number}" for number in range(8)]  # 128 MiB with the rows
    pl.select(pl.int_range(rows).alias(name) for name in names).write_parquet(path, row_group_size=rows)
    # A process of its own: this one's allocator holds freed memory.
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), ",".join(names)], capture_output=True, text=True, check=True
    )
    assert 0 < int(done.stdout) < 100


def test_a_file_of_parquet_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"x": range(10)}).write_parquet(path)
    monkeypatch.setattr(scan, "BATCH_ROWS", 4)
    blocks = open_input("input", str(path), Reading()).blocks(["x"])
    assert next(iter(blocks)).frame.height == 4
    pl.DataFrame({"x": range(100, 200)}).write_parquet(path)
    with pytest.raises(DataError, match=r"a\.parquet: changed while it was read; run the command again"):
        list(blocks)
