"""Rows that are rejected: listed, counted, and too many of them."""

import pytest

from recbole_dtn.errors import TooManyRejectedError
from recbole_dtn.preprocess.rejects import EARLY_ROWS, LARGEST_TABLE, Rejects


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
