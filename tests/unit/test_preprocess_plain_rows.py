"""Rows taken over as bytes: the files are those of the parser, whatever the rows, and plain rows are not parsed."""

import io
import itertools
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recbole_dtn.config.properties import read_typed
from recbole_dtn.data.escape import MISSING_WORDS
from recbole_dtn.data.write import number_texts
from recbole_dtn.errors import DataError, RecBoleDTNError
from recbole_dtn.preprocess.table import scan
from recbole_dtn.preprocess.table.plain_rows import PlainRows
from recbole_dtn.preprocess.table.plan import Plan
from recbole_dtn.preprocess.table.preprocessor import preprocess_table
from recbole_dtn.preprocess.table.spec import TableSpec

SPEC = "fields: [{name: user}, {name: price, type: float}, {name: item}]\ntasks: [{name: click, label: click}]\n"
HEADER = "user,price,item,click"
PLAIN = "ann,3,b,1\nNorman,-12,,0\n,25,n o,0\né,9007199254740991,-,1\n"


def made(folder, data, *, parsed=False, spec=SPEC, block_bytes=1 << 20, name="raw.csv", separator=","):
    """What a table becomes, or how it is refused; how many blocks were taken over."""
    (folder / "spec.yaml").write_text(spec)
    (folder / name).write_bytes(HEADER.replace(",", separator).encode() + b"\n" + data)
    taken = []
    ready = PlainRows.ready

    def watched(rows, block, separator):
        found = None if parsed else ready(rows, block, separator)
        taken.append(found is not None)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainRows, "ready", watched)
        patch.setattr(scan, "BLOCK_BYTES", block_bytes)
        try:
            folder = preprocess_table(
                folder / name, folder / "spec.yaml", "mine", folder / "data", overwrite=True, max_rejected=1.0
            )
        except RecBoleDTNError as error:
            return (type(error), str(error)), sum(taken)
    tables = json.loads((folder / "preprocess.json").read_text())["tables"]
    rejected = folder / "rejected.tsv"
    rows = rejected.read_bytes() if rejected.exists() else b""
    return ((folder / "mine.inter").read_bytes(), rows, tables), sum(taken)


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_plain_rows_are_taken_over_in_every_block(tmp_path, separator):
    spec = f"{SPEC}reader: {{separator: {separator!r}}}\n".replace("'\\t'", '"\\t"')
    data = PLAIN.replace(",", separator).encode() * 20
    (text, rejected, tables), taken = made(tmp_path, data, spec=spec, block_bytes=100, separator=separator)
    assert taken > 5
    assert text == b"user:token\tprice:float\titem:token\tclick:float\n" + PLAIN.replace(",", "\t").encode() * 20
    assert not rejected
    assert tables["table"]["rows_in"] == tables["table"]["written"] == 80
    assert made(tmp_path, data, parsed=True, spec=spec, separator=separator) == ((text, rejected, tables), 0)


def test_a_block_that_must_be_looked_at_is_parsed_and_the_others_are_not(tmp_path):
    blocks = [b"ann,3,b,1\n" * 10, b"ann,3.0,b,1\n" * 10, b"NA,3,b,1\n" * 10, b"ann,3,b,1\n" * 90]
    (text, *_), taken = made(tmp_path, b"".join(blocks), block_bytes=30)
    assert 10 < taken < 34
    assert text.splitlines()[1:] == [b"ann\t3\tb\t1"] * 20 + [b"%4EA\t3\tb\t1"] * 10 + [b"ann\t3\tb\t1"] * 90


def test_after_refused_blocks_some_are_not_looked_at():
    rows = PlainRows(2, [], [], None)
    looked = []
    rows._taken_over = lambda data, separator: looked.append(data)
    for at in range(100):
        assert rows.ready(b"%d" % at, ",") is None
    assert [int(data) for data in looked] == [0, 2, 6, 14, 30, 62, 94]
    rows = PlainRows(2, [], [], None)
    found = [rows.ready(data, ",") is not None for data in (b"a,b\n", b"a\n", b"a,b\n", b"a,b\n", b"a,b\n")]
    assert found == [True, False, False, True, True]


@pytest.mark.parametrize(
    "row",
    ["ann,3.0,b,1", "ann,0.25,b,1", "ann,9007199254740993,b,1", "ann,1e+16,b,1",
     "ann,03,b,1", "ann,+3,b,1", "ann,-0,b,1", "ann,3,b,1.0", "ann,3,b,2", "ann,3,b,", "ann,,b,1",
     "ann,nan,b,1", "ann,inf,b,1", "ann, 3,b,1", "ann,1e400,b,1", "ann,3,b,true", "ann,3,b", "ann,3,b,1,", "", "\r",
     "a\tb,3,b,1", '"ann",3,b,1', 'a"n,3,b"b,1', "ann%41,3,b,1", "NA,3,b,1", "ann,3,[PAD],1", "ann,3,-nan,1",
     "\ufeff,3,b,1", "a\x7f,3,b,1", "a\x00,3,b,1", "ann,3,b\r,1"]
)  # fmt: skip
def test_a_row_that_changes_or_fails_is_parsed(tmp_path, row):
    data = f"ann,3,b,1\n{row}\nann,3,b,1\n".encode()
    found, taken = made(tmp_path, data)
    assert taken == 0
    assert found == made(tmp_path, data, parsed=True)[0]


def test_bytes_that_are_not_utf8_and_two_uneven_rows_that_even_out(tmp_path):
    for rows in (b"\xff,3,b,1\n", b"ann,3,b\nann,3,b,1,1\n", b"ann,3,b,1,1\nann,3,b\n"):
        data = b"ann,3,b,1\n" + rows
        found, taken = made(tmp_path, data)
        assert taken == 0
        assert found == made(tmp_path, data, parsed=True)[0]
        assert found[0].count(b"\n") == 2


CELL = st.sampled_from(
    ["", "a", "ann", "007", "Nan", "nano", "é", "日本", " a", "a ", "#", "-", "0", "1", *sorted(MISSING_WORDS)[::3]]
)
ODD = st.sampled_from(
    ['"', '""', '"a"', '"a,b"', '"a\nb"', "a\tb", "%41", "\r", "NA", "[PAD]", "\ufeff", "\x00", "\x7f", ",", ";", "\n"]
)
NUMBER = st.sampled_from(["0", "1", "7", "-3", "12", "0.5", "1e+16", "9007199254740993", "5e-324"])
ODD_NUMBER = st.sampled_from(["1.0", "-0", "+1", "01", " 1", "1e3", ".5", "nan", "", "inf", "true", "1e999", "x"])
LABEL = st.sampled_from("01")
PLAIN_ROW = st.tuples(st.text("abN nax/-", max_size=4), NUMBER, CELL, LABEL)
ODD_ROW = st.one_of(
    st.lists(CELL | ODD | NUMBER, max_size=6),
    st.tuples(CELL | ODD, NUMBER | ODD_NUMBER, CELL | ODD, LABEL | ODD_NUMBER),
)
TABLE = st.lists(PLAIN_ROW, max_size=8) | st.lists(PLAIN_ROW | ODD_ROW, max_size=8)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=TABLE,
    separator=st.sampled_from(",,\t;"),
    end=st.sampled_from(["\n", "\n", "\r\n"]),
    last=st.booleans(),
    quote=st.sampled_from(['"', '"', None]),
    block_bytes=st.sampled_from([1, 13, 40, 1000]),
)
@example(table=[("a", "1", "b", "1"), [], ("a", "1", "b", "1")], separator=",", end="\n", last=True, quote='"',
         block_bytes=1000)  # fmt: skip
def test_the_files_are_those_of_the_parser(tmp_path_factory, table, separator, end, last, quote, block_bytes):
    folder = tmp_path_factory.mktemp("plain")
    data = end.join(separator.join(row) for row in table).encode() + (end.encode() if last else b"")
    reader = json.dumps({"separator": separator, "quote": quote})
    options = {"spec": f"{SPEC}reader: {reader}\n", "separator": separator, "block_bytes": block_bytes}
    found, _ = made(folder, data, **options)
    expected, taken = made(folder, data, parsed=True, **options)
    assert taken == 0
    assert found == expected


def plain(spec, columns, tmp_path):
    (tmp_path / "spec.yaml").write_text(spec)
    plan = Plan(read_typed(tmp_path / "spec.yaml", TableSpec), tmp_path / "spec.yaml")
    return PlainRows.of(plan, pl.Schema(dict.fromkeys(columns, pl.String)))


TYPES = ["user", "price", "item", "click"]


@pytest.mark.parametrize(
    "change",
    ["filter: price > 0", "derive: {dear: price > 1}", "fill: {price: 0}", "reader: {strip: true}",
     "reader: {null_values: [x]}", "reader: {separator: ', '}", "time_field: other"]
)  # fmt: skip
def test_a_plan_that_changes_rows_has_no_plain_rows(tmp_path, change):
    assert plain(f"{SPEC}{change}\n", TYPES, tmp_path) is None


def test_the_columns_must_be_those_of_the_table_in_their_order(tmp_path):
    rows = plain(SPEC, TYPES, tmp_path)
    assert (rows.columns, rows.floats, rows.binary, rows.quote) == (4, [1, 3], {3}, b'"')
    for columns in (TYPES[::-1], [*TYPES, "more"], TYPES[:3]):
        assert plain(SPEC, columns, tmp_path) is None
    for change in ("missing: keep", "fill: 1"):
        assert plain(SPEC.replace("type: float", f"type: float, {change}"), TYPES, tmp_path) is None
    assert plain(SPEC.replace("{name: item}", "{name: item, type: token_seq}"), TYPES, tmp_path) is None
    observed = SPEC.replace("label: click", "label: click, observed_when: other > 0")
    assert plain(observed, TYPES, tmp_path) is None


def test_a_column_that_is_there_twice_is_refused_as_ever(tmp_path):
    (tmp_path / "raw.csv").write_text("user,price,item,item,click\na,1,b,b,1\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    with pytest.raises(DataError, match="column 'item' is there twice"):
        preprocess_table(tmp_path / "raw.csv", tmp_path / "spec.yaml", "mine", tmp_path / "data")


def test_numbers_are_spelled_by_their_value_alone():
    values = [0.0, -0.0, 1.0, -3.0, 0.5, 1e-7, 2.0**53 - 1, 2.0**53, 9.9e15, 1e16, 1.5e300, 5e-324, 123456789.0]
    alone = {value: number_texts(pl.Series([value])).item() for value in values}
    assert [alone[value] for value in (0.0, 1.0, -3.0, 0.5, 2.0**53 - 1, 9.9e15, 123456789.0)] == [
        "0", "1", "-3", "0.5", "9007199254740991", "9900000000000000", "123456789"
    ]  # fmt: skip
    for one, other in itertools.product(values, repeat=2):
        assert number_texts(pl.Series([one, None, other])).to_list() == [alone[one], None, alone[other]]
    drawn = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    drawn = np.concatenate([drawn[np.isfinite(drawn)], np.geomspace(1, 1e17, 1000).round()])
    texts = number_texts(pl.Series(drawn))
    assert [float(text) for text in texts] == drawn.tolist()
    assert not texts.str.ends_with(".0").any()
    # as recbole.data.dataset.Dataset._load_feat reads a float column
    reads = [
        pd.read_csv(io.StringIO("x\n" + "\n".join(spelled)), delimiter="\t", dtype={"x": np.float64}, engine="python")
        for spelled in (texts, pl.Series(drawn).cast(pl.String))
    ]
    whole = ((drawn % 1 == 0) & (np.abs(drawn) < 1e16)).tolist()
    for value, new, old, exact in zip(drawn.tolist(), *(read["x"].tolist() for read in reads), whole, strict=True):
        assert new == (value if exact else old)
