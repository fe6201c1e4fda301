"""``preprocess table`` at scale: several files, compressed ones, faulty rows, and every cell against a plain parser."""

import csv
import gzip
import io
import json
import random
import re

import polars as pl
import pytest
import zstandard

from recbole_dtn.cli import main
from recbole_dtn.data.escape import escape
from recbole_dtn.errors import DataError, TooManyRejectedError, UsageError
from recbole_dtn.preprocess.table import scan
from recbole_dtn.preprocess.table.preprocessor import preprocess_table
from recbole_dtn.preprocess.table.scan import input_files

SPEC = "fields: [{name: user}, {name: item}]\ntasks: [{name: click, label: click}]\n"
HEADER = "user,item,click\n"


def run(tmp_path, source, spec=SPEC, **options):
    (tmp_path / "spec.yaml").write_text(spec)
    folder = preprocess_table(source, tmp_path / "spec.yaml", "mine", tmp_path / "data", overwrite=True, **options)
    return [row.split("\t") for row in (folder / "mine.inter").read_text(encoding="utf-8").split("\n")[:-1]]


def rejected(tmp_path):
    rows = [row.split("\t") for row in (tmp_path / "data/mine/rejected.tsv").read_text().splitlines()[1:]]
    return [[row[0].rpartition("/")[2], *row[1:]] for row in rows]


def record(tmp_path):
    return json.loads((tmp_path / "data/mine/preprocess.json").read_text())["tables"]["table"]


# ---- files ----------------------------------------------------------------------------------------------------------

DAYS = {day: "".join(f"{day}u{i},i{i},{i % 2}\n" for i in range(5)) for day in "abc"}
EXPECTED = [[f"{day}u{i}", f"i{i}", f"{i % 2}"] for day in "abc" for i in range(5)]


def write_days(folder, kinds):
    for (day, rows), kind in zip(DAYS.items(), kinds, strict=True):
        text = (HEADER + rows).replace(",", "\t") if ".tsv" in kind else HEADER + rows
        data = text.encode()
        if kind.endswith(".parquet"):
            pl.read_csv(data, infer_schema=False).write_parquet(folder / f"{day}{kind}")
            continue
        data = gzip.compress(data) if kind.endswith(".gz") else data
        data = zstandard.ZstdCompressor().compress(data) if kind.endswith(".zst") else data
        (folder / f"{day}{kind}").write_bytes(data)


@pytest.mark.parametrize(
    "kinds", [[".csv"] * 3, [".csv.gz", ".csv.zst", ".csv"], [".tsv.zst", ".tsv", ".txt"], [".parquet"] * 3]
)
def test_a_pattern_and_a_list_are_one_table_in_sorted_order(tmp_path, kinds):
    if ".txt" in kinds:
        kinds = [".tsv.zst", ".tsv", ".csv"]
    logs = tmp_path / "logs"
    logs.mkdir()
    write_days(logs, kinds)
    assert run(tmp_path, f"{logs}/*")[1:] == EXPECTED
    first = (tmp_path / "data/mine/mine.inter").read_bytes()
    assert run(tmp_path, f"{logs}/c*,{logs}/a{kinds[0]},{logs}/b{kinds[1]}")[1:] == EXPECTED
    assert (tmp_path / "data/mine/mine.inter").read_bytes() == first
    assert record(tmp_path)["rows_in"] == record(tmp_path)["written"] == 15
    (logs / "deep").mkdir()
    write_days(logs / "deep", kinds)
    assert len(run(tmp_path, f"{logs}/**/*{kinds[0]}")) > 1


def test_which_files_are_meant(tmp_path):
    for name in ("b.csv", "a,b.csv", "a.csv"):
        (tmp_path / name).write_text(HEADER)
    assert input_files(f"{tmp_path}/a,b.csv") == [tmp_path / "a,b.csv"]
    assert input_files(f"{tmp_path}/b.csv,{tmp_path}/a.csv,{tmp_path}/b*") == [tmp_path / "a.csv", tmp_path / "b.csv"]
    for text, kind, message in (
        (f"{tmp_path}/z*.csv", DataError, "no file matches"),
        (f"{tmp_path}/z.csv", DataError, "no such file"),
        (f"{tmp_path}", DataError, r"no such file; a folder's files are named by a pattern: '.*/\*\.csv'"),
        ("https://example.org/a.csv", UsageError, "expected files on this machine"),
    ):
        with pytest.raises(kind, match=message):
            input_files(text)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("user,itme,click\n", r"b\.csv: column 'item' of .*a\.csv is missing; did you mean 'itme'"),
        ("user,item,click,extra\n", r"b\.csv: column 'extra' is not one of .*a\.csv"),
        ("item,user,click\n", r"b\.csv: the columns differ .*column 1 is 'item', expected 'user'"),
        ("user,item,click,click\n", r"b\.csv: the columns differ .*column 4 is 'click', expected None"),
        ("", r"b\.csv, line 1: cannot be read as a table: expected a header"),
        ("us\xe9r,item\n", r"b\.csv, line 1: not UTF-8 at byte 2"),
    ],
)
def test_a_file_with_another_header_is_named(tmp_path, second, message):
    (tmp_path / "a.csv").write_text(HEADER + DAYS["a"])
    (tmp_path / "b.csv").write_bytes(second.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        run(tmp_path, f"{tmp_path}/*.csv")
    assert not (tmp_path / "data").exists()


def test_parquet_files_of_different_types_and_mixed_kinds_are_refused(tmp_path):
    for name, clicks in (("a", [0, 1]), ("b", ["0", "1"])):
        pl.DataFrame({"user": ["x", "y"], "item": ["1", "2"], "click": clicks}).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    with pytest.raises(DataError, match=r"b\.parquet: column 'click' is String, in .*a\.parquet it is Int64"):
        run(tmp_path, f"{tmp_path}/*.parquet")
    (tmp_path / "c.csv").write_text(HEADER)
    with pytest.raises(UsageError, match=r"a\.parquet is Parquet and .*c\.csv is text"):
        run(tmp_path, f"{tmp_path}/a.parquet,{tmp_path}/c.csv")


def test_columns_of_the_same_name(tmp_path):
    (tmp_path / "a.csv").write_text("user,x,item,x,click\na,1,b,2,1\nc,1,d,2,0\n")
    assert run(tmp_path, tmp_path / "a.csv")[1:] == [["a", "b", "1"], ["c", "d", "0"]]
    with pytest.raises(DataError, match=r"a\.csv, line 1: column 'x' is there twice"):
        run(tmp_path, tmp_path / "a.csv", SPEC.replace("name: item", "name: x"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('us"er,item,click', "misplaced quote"),
        ('""user,item,click', "misplaced quote"),
        ('user,item,"click', "misplaced quote"),  # not closed anywhere: every line is joined to the header
        ("user,item,click\r", "a carriage return without a line feed"),
        ("user\ritem,click", "a carriage return without a line feed"),
    ],
)
def test_a_faulty_header_is_refused(tmp_path, header, message):
    (tmp_path / "a.csv").write_bytes(f"{header}\r\na,b,1\r\nc,d,0\r\n".encode())
    with pytest.raises(DataError, match=rf"a\.csv, line 1: .*{message}"):
        run(tmp_path, tmp_path / "a.csv")


def test_a_header_of_one_name_many_times_is_read_at_once(tmp_path):
    names = ["user", "item", "click", *["x"] * 20_000]
    rows = (names, list("ab1" + "9" * 20_000), list("cd0" + "9" * 20_000))
    (tmp_path / "a.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    assert run(tmp_path, tmp_path / "a.csv")[1:] == [["a", "b", "1"], ["c", "d", "0"]]


def test_a_header_alone_is_no_table(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER)
    with pytest.raises(DataError, match="holds no rows"):
        run(tmp_path, tmp_path / "a.csv")


# ---- rows -----------------------------------------------------------------------------------------------------------

FAULTY = """\
fields: [{name: user}, {name: price, type: float}]
tasks:
  - {name: click, label: click}
  - {name: long, label: seconds, condition: seconds > 10}
filter: user != 'robot'
"""
BAD = [
    ("u,1,0,5", ""),
    ("robot,,7,", "filter"),
    ("u,1,0", "expected 4 columns, found 3"),
    ("u,1,0,5,6", "expected 4 columns, found 5"),
    ("", "blank line"),
    ("\xff,1,0,5", "not UTF-8"),
    ('u",1,0,5', "misplaced quote"),
    ("u,,0,5", "column 'price': expected a finite number, found a missing value"),
    ("u,nan,0,5", "column 'price': expected a finite number, found a missing value"),
    ("u,1_000,0,5", "column 'price': expected a finite number"),
    ("u,1e400,0,5", "column 'price': expected a finite number"),
    ("u,inf,0,5", "column 'price': expected a finite number"),
    ("u,1,2,5", "the label of task 'click', column 'click': expected 0 or 1 (or true, false)"),
    ("u,1,,5", "the label of task 'click', column 'click', is missing"),
    ("u,1,1,", "the label of task 'long' (seconds > 10) is undecided"),
    ("u,x,2,", "column 'price': expected a finite number"),  # the first of three faults
    ("w, 2 ,TRUE, 11 ", ""),
]


@pytest.mark.parametrize("block_bytes", [1, 20, 1 << 20])
def test_every_faulty_row_is_listed_with_file_line_and_reason(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(scan, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "raw.csv"
    path.write_bytes("\n".join(["user,price,click,seconds", *(row for row, _ in BAD)]).encode("latin-1"))
    said = []
    rows = run(tmp_path, path, FAULTY, max_rejected=1.0, log=said.append)
    assert rows[1:] == [["u", "1", "0", "0"], ["w", "2", "1", "1"]]
    expected = [
        ["raw.csv", str(number), reason] for number, (_, reason) in enumerate(BAD, 2) if reason not in ("", "filter")
    ]
    assert sorted((row[:3] for row in rejected(tmp_path)), key=lambda row: int(row[1])) == expected
    texts = {row[1]: row[3] for row in rejected(tmp_path)}
    assert (texts["4"], texts["7"], texts["12"]) == ("u,1,0", "\\xff,1,0,5", "u,1e400,0,5")
    counts = record(tmp_path)
    assert counts["rows_in"] == len(BAD) == 17
    assert (counts["written"], counts["dropped"]) == (2, {"filter: user != 'robot'": 1})
    assert sum(counts["rejected"].values()) == 14
    assert any(text.startswith("table: 17 rows in = 2 written + 1 dropped") for text in said)


@pytest.mark.parametrize("number", [number for number, (_, reason) in enumerate(BAD) if reason not in ("", "filter")])
def test_strict_stops_at_the_first(tmp_path, number):
    path = tmp_path / "raw.csv"
    path.write_bytes("\n".join(["user,price,click,seconds", BAD[0][0], BAD[number][0]]).encode("latin-1"))
    if not BAD[number][0]:
        path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(TooManyRejectedError, match=r"raw\.csv, line 3: .*without --strict") as caught:
        run(tmp_path, path, FAULTY, max_rejected=1.0, strict=True)
    assert BAD[number][1] in str(caught.value)


def test_rows_of_parquet_are_counted_by_number(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "BATCH_ROWS", 3)
    frame = pl.DataFrame(
        {
            "user": [f"u{i}" for i in range(10)],
            "price": [None if i == 4 else float("nan") if i == 7 else float(i) for i in range(10)],
            "click": [i == 2 for i in range(10)],
            "seconds": [8 if i == 9 else 12 for i in range(10)],
        }
    )
    frame.write_parquet(tmp_path / "raw.parquet")
    rows = run(tmp_path, tmp_path / "raw.parquet", FAULTY, max_rejected=0.2)
    assert [row[0] for row in rows[1:]] == [f"u{i}" for i in (0, 1, 2, 3, 5, 6, 8, 9)]
    assert rows[3] == ["u2", "2", "1", "1"]
    reason = "column 'price': expected a finite number, found a missing value"
    assert rejected(tmp_path) == [
        ["raw.parquet", "5", reason, "u4,,False,12"],
        ["raw.parquet", "8", reason, "u7,nan,False,12"],
    ]
    with pytest.raises(TooManyRejectedError, match=r"raw\.parquet, row 5: column 'price'"):
        run(tmp_path, tmp_path / "raw.parquet", FAULTY)


@pytest.mark.parametrize("prices", [[[1.0], [2.0]], [{"a": 1}, {"a": 2}], [b"1", b"2"]])
def test_a_column_of_parquet_that_holds_no_numbers(tmp_path, prices):
    frame = pl.DataFrame({"user": ["a", "b"], "price": prices, "click": [0, 1], "seconds": [1, 2]})
    frame.write_parquet(tmp_path / "raw.parquet")
    with pytest.raises(UsageError, match=r"spec\.yaml: column 'price' of raw\.parquet is .*; expected numbers"):
        run(tmp_path, tmp_path / "raw.parquet", FAULTY)


LISTS = [
    ("a|b", "1|2.5", ""), ("", "", ""), ("a||b", "1|2", ""), ("a|b", "1|x", "list"), ("a", "inf", "list"),
    ("a|b", "1", "uneven"), ("", "1", "uneven"), ("a", "", "uneven"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_weights_of_lists(tmp_path, kind):
    spec = (
        "fields: [{name: user}, {name: tags, type: token_seq, list_separator: '|', weights: w}]\n"
        "tasks: [{name: click, label: click}]\n"
    )
    frame = pl.DataFrame(
        [("u", tags, w, "1") for tags, w, _ in LISTS], schema=["user", "tags", "w", "click"], orient="row"
    )
    if kind == "csv":
        frame.write_csv(tmp_path / "raw.csv")
    else:
        frame.with_columns(tags=pl.col("tags").str.split("|")).write_parquet(tmp_path / "raw.parquet")
    rows = run(tmp_path, tmp_path / f"raw.{kind}", spec, max_rejected=1.0)
    assert [row[1:3] for row in rows[1:]] == [["a b", "1 2.5"], ["", ""], ["a b", "1 2"]]
    reasons = {
        "list": "column 'w': expected a list of finite numbers",
        "uneven": "column 'w': expected as many weights as column 'tags' has values",
    }
    first = 2 if kind == "csv" else 1
    assert sorted(row[1:3] for row in rejected(tmp_path)) == [
        [str(first + at), reasons[fault]] for at, (_, _, fault) in enumerate(LISTS) if fault
    ]


def test_a_stray_quote_comes_with_the_way_on(tmp_path):
    (tmp_path / "raw.csv").write_text(HEADER + 'a,5" disk,1\nb,x,0\n' * 20)
    with pytest.raises(TooManyRejectedError, match=r'line 2: misplaced quote: a,5" disk,1; .*reader: \{quote: null\}'):
        run(tmp_path, tmp_path / "raw.csv")
    rows = run(tmp_path, tmp_path / "raw.csv", SPEC + "reader: {quote: null}\n")
    assert rows[1:3] == [["a", '5" disk', "1"], ["b", "x", "0"]]


def test_a_column_of_the_table_names_the_part_of_a_row(tmp_path):
    (tmp_path / "raw.csv").write_text("user,item,click,part\na,x,1,train\nb,y,0,train\nc,x,1,test\n")
    rows = run(tmp_path, tmp_path / "raw.csv", SPEC + "split: column\nsplit_field: part\n")
    assert rows[0][-1] == "part:token"
    assert [row[-1] for row in rows[1:]] == ["train", "train", "test"]
    written = (tmp_path / "data/mine/mine.yaml").read_text()
    assert "split: column" in written
    assert "split_field: part" in written
    for more, message in (
        ("split: column\n", "split: column needs split_field; write split_field: COLUMN"),
        ("split: column\nsplit_field: item\n", "split_field 'item' says which part a row is in"),
        ("split: column\nsplit_field: prt\n", "has no column 'prt'; did you mean 'part'?"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            run(tmp_path, tmp_path / "raw.csv", SPEC + more)


def test_the_command_line(tmp_path, capsys):
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "logs").mkdir()
    for name in ("x", "y"):
        (tmp_path / "logs" / f"{name}.csv").write_text(HEADER + "a,b,1\nshort\nc,d,0\n" * 20)
    words = [
        "preprocess", "table", f"--input={tmp_path}/logs/*.csv", f"--spec={tmp_path / 'spec.yaml'}", "--name=mine",
        f"--data_path={tmp_path / 'data'}",
    ]  # fmt: skip
    assert main(words) == 3
    assert "expected 3 columns, found 1" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in (tmp_path / "data/mine").iterdir()] == ["rejected.tsv"]
    assert main([*words, "--strict"]) == 3
    assert main([*words, "--max_rejected=0.4"]) == 0
    assert "120 rows in = 80 written + 40 rejected" in " ".join(capsys.readouterr().out.split())
    assert len(rejected(tmp_path)) == 40
    assert main([*words, "--max_rejected=0.4"]) == 2  # the data set is there


# ---- every cell -----------------------------------------------------------------------------------------------------

WIDE = """\
fields:
  - {name: user}
  - {name: text}
  - {name: price, type: float, fill: -1}
  - {name: tags, type: token_seq, list_separator: "|"}
tasks:
  - {name: click, label: click}
  - {name: buy, label: amount, condition: amount >= 10 and click == 1, observed_when: click == 1}
filter: keep != 0
derive: {dear: price > 5}
"""


def number(value):
    return f"{float(value):g}"


def test_a_thousand_rows_against_a_plain_parser(tmp_path, monkeypatch):
    draw = random.Random(5)
    words = ["NA", 'a "b"', "x\ny", "é", "007", "%41", "a,b", "", "plain", "a\tb", "nan", "[PAD]"]
    rows = [
        {
            "user": f"u{draw.randrange(50)}",
            "text": draw.choice(words),
            "price": draw.choice(["", "1", "2.50", "1e1", "-3"]),
            "tags": "|".join(draw.sample(["NA", "b c", "d", "%41", '"q'], draw.randrange(4))),
            "click": draw.choice(["0", "1", "true", "False"]),
            "amount": str(draw.randrange(20)),
            "keep": str(draw.randrange(3)),
            "unused": draw.choice(words),
        }
        for _ in range(1000)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "raw.csv"
    path.write_bytes(text.getvalue().encode())
    monkeypatch.setattr(scan, "BLOCK_BYTES", 5000)
    header, *found = run(tmp_path, path, WIDE, max_rejected=1.0)
    assert header == [
        "user:token", "text:token", "price:float", "tags:token_seq", "click:float", "buy:float", "buy_observed:float",
        "dear:float",
    ]  # fmt: skip
    expected = []
    for row in csv.DictReader(io.StringIO(text.getvalue(), newline="")):
        if row["keep"] == "0" or row["price"] == "":  # of a missing price it is undecided whether it is dear
            continue
        # click == 1 compares numbers: the words true and false are none, so that the task is not observed there
        seen = row["click"] == "1"
        values = [value for value in row["tags"].split("|") if value]
        expected.append(
            [
                escape(row["user"]),
                escape(row["text"]),
                number(row["price"]),
                " ".join(escape(value, in_sequence=True) for value in values),
                "1" if row["click"] in ("1", "true") else "0",
                number(seen and int(row["amount"]) >= 10),
                number(seen),
                number(float(row["price"]) > 5),
            ]
        )
    assert found == expected
