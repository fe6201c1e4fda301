"""Numbers of the rows that are scored: finite ones, missing ones, and what is refused with its place."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from recbole_dtn.errors import DataError
from recbole_dtn.serving.tables import Reading, Rows, numbers_of, open_input


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
