"""One table of the user's own: CSV, TSV and Parquet, its spec, and the data set it makes."""

import csv
import gzip
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recbole_dtn.cli.preprocess import help_text
from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import TaskSettings
from recbole_dtn.errors import DataError, TooManyRejectedError, UsageError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.layers.embedding import EmbeddingTable
from recbole_dtn.preprocess.export import write_given_splits
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.preprocess.table.preprocessor import preprocess_table
from recbole_dtn.preprocess.table.spec import ReaderSpec, SpecField, TableSpec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TABLE = pl.DataFrame(
    {
        "user": ['a "b"', "NA", "x\ty", "Zoë 😀", "%41", "A", "", "?"] * 5,
        "price": ["1.5", "", "3", "2", "7", "8", "1", "0"] * 5,
        "tags": ["x y", "", "z", "x", "NA", "y y", '"q', "z x"] * 5,
        "click": ["1", "0", "1", "1", "0", "1", "0", "1"] * 5,
        "bought": ["yes", "no", "yes", "no", "no", "no", "yes", "yes"] * 5,
        "when": [str(i) for i in range(40)],
        "test_row": ["0"] * 39 + ["1"],
    }
)
SPEC = """
fields:
  - {name: user}
  - {name: price, type: float}
  - {name: tags, type: token_seq}
tasks:
  - {name: click, label: click}
  - {name: buy, label: bought, condition: bought == 'yes' and click == 1, after: [click], observed_when: click == 1}
fill: {price: 0.0}
filter: test_row != 1
derive: {early: when < 20}
split: time
split_ratio: [0.5, 0.25, 0.25]
time_field: when
min_count: 1
"""


def write(tmp_path, kind, table=TABLE):
    path = tmp_path / f"raw{kind}"
    if kind == ".parquet":
        table.with_columns(
            pl.col("price").replace("", None).cast(pl.Float64), pl.col("when").cast(pl.Int64)
        ).write_parquet(path)
    elif kind == ".csv.gz":
        path.write_bytes(gzip.compress(table.write_csv(None).encode()))
    else:
        table.write_csv(path, separator="\t" if kind == ".tsv" else ",")
    return path


def spec_file(tmp_path, text=SPEC):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_every_kind_of_file_makes_the_same_data_set(tmp_path, kind):
    said = []
    folder = preprocess_table(write(tmp_path, kind), spec_file(tmp_path), "mine", tmp_path / "data", log=said.append)
    assert said == [
        "table: 40 rows in = 39 written + 1 dropped (filter: test_row != 1) + 0 rejected",
        f"wrote {folder / 'mine.inter'} (39 rows)",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["mine.inter", "mine.yaml", "preprocess.json"]
    first, *rest = (folder / "mine.inter").read_text().split("\n")
    assert first.split("\t") == [
        "user:token", "price:float", "tags:token_seq", "click:float", "buy:float", "buy_observed:float", "early:float",
        "when:float",
    ]  # fmt: skip
    assert rest[0].split("\t") == ['a "b"', "1.5", "x y", "1", "1", "1", "1", "0"]
    assert rest[1].split("\t") == ["%4EA", "0", "", "0", "0", "0", "1", "1"]
    assert rest[2].split("\t")[0] == "x%09y"
    assert rest[4].split("\t")[:3] == ["%2541", "7", "%4EA"]
    assert validate(folder) == []
    prepared = prepare(resolve({"model": "MMoE", "dataset": "mine", "data_path": str(tmp_path / "data")}).settings)
    assert prepared.summary.rows == {"train": 21, "valid": 9, "test": 9}
    batch = prepared.splits["train"].batch(np.arange(8))
    assert batch.labels.tolist() == [[1, 1], [0, 0], [1, 1], [1, 0], [0, 0], [1, 0], [0, 0], [1, 1]]
    assert batch.observed[:, 1].tolist() == (batch.labels[:, 0] == 1).tolist()
    raw = prepared.vocabularies.encode(TABLE.head(8), prepared.schema)
    assert raw.ids.equal(batch.ids)
    assert raw.multi[2].values.equal(batch.multi[2].values)
    assert raw.ids[6, 0] == 0  # an empty text is a missing value
    assert prepared.schema.tasks[1].after == ("click",)


def test_a_table_without_header_with_spaces_and_missing_marks(tmp_path):
    path = tmp_path / "raw.data"
    path.write_text("".join(f"{i % 3}, v {i % 2} , ?, {'yes' if i % 2 else 'no'}.\n" for i in range(40)))
    spec = """
reader: {separator: ", ", columns: [a, b, c, y], null_values: ["?"]}
fields: [{name: a}, {name: b}, {name: c}]
tasks: [{name: t, label: y, condition: y == 'yes.'}]
"""
    folder = preprocess_table(path, spec_file(tmp_path, spec), "mine", tmp_path / "data")
    lines = (folder / "mine.inter").read_text().split("\n")
    assert lines[:3] == ["a:token\tb:token\tc:token\tt:float", "0\tv 0\t\t0", "1\tv 1\t\t1"]


GOOD = "fields: [{name: user}]\ntasks: [{name: click, label: click}]\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "fields: [{name: usr}]\ntasks: [{name: click, label: click}]\n",
            "raw.csv has no column 'usr'; did you mean 'user'",
        ),
        (GOOD + "filter: tset_row == 1\n", "has no column 'tset_row'; did you mean 'test_row'"),
        (GOOD + "fliter: test_row == 1\n", "fliter"),
        (GOOD + "filter: test_row = 1\n", "equality is written =="),
        ("fields: [{name: click}]\ntasks: [{name: click, label: click}]\n", "field 'click' is a label (or weight) too"),
        (GOOD + "weight_field: user\n", "field 'user' is a label (or weight) too"),
        (GOOD + "fill: {user: 0}\n", "fill names 'user', which is not a float column"),
        (GOOD + "derive: {user: price > 1}\n", "column 'user' would be written twice"),
        (GOOD + "split: sideways\n", "one of random, time, user_time"),
        (
            GOOD.replace("user}", "price, type: float}"),
            "raw.csv, line 3: column 'price': expected a finite number, found a missing value; stock RecBole would",
        ),
        (
            GOOD.replace("user}", "tags, type: float}"),
            "line 2: column 'tags': expected a finite number, found 'x y'",
        ),
        (
            GOOD.replace("click}]", "bought}]"),
            "line 2: the label of task 'click', column 'bought': expected 0 or 1 (or true, false), found 'yes'",
        ),
        (
            "fields: [{name: user}]\ntasks: [{name: t, label: price, condition: price > 1}]\n",
            "line 3: the label of task 't' (price > 1) is undecided, since a value is missing or no "
            "number: price = missing. In the spec, write observed_when: CONDITION in the task",
        ),
        (GOOD + "reader: {columns: [user, click]}\n", "line 1: expected 2 columns as in reader.columns, found 7"),
        (GOOD + "reader: {separator: '::'}\n", "separator must be one character"),
    ],
)
def test_a_wrong_spec_or_row_is_named(tmp_path, spec, message):
    path = write(tmp_path, ".csv")
    with pytest.raises((UsageError, DataError, TooManyRejectedError)) as caught:
        preprocess_table(path, spec_file(tmp_path, spec), "mine", tmp_path / "data")
    assert message in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.inter"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "no such file"),
        ("raw.xlsx", b"PK", "unknown kind of file '.xlsx'"),
        ("raw.csv", b"user,click\na,1\n\xe9,0\n", "line 3: not UTF-8: \\xe9,0"),
        ("raw.csv.gz", b"\x1f\x8b torn", "cannot be read ("),
        ("raw.csv.gz", b"user,click\na,1\n", "Not a gzipped file"),
        ("raw.csv", b"", "cannot be read as a table"),
        ("raw.csv", b"user,click\na,1,7\n", "line 2: expected 2 columns, found 3: a,1,7"),
        ("raw.parquet", b"not parquet", "cannot be read as a table"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((UsageError, DataError, TooManyRejectedError)) as caught:
        preprocess_table(path, spec_file(tmp_path, GOOD), "mine", tmp_path / "data")
    assert str(path) in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.inter"))
    assert message in str(caught.value)


def test_tokens_of_a_parquet_file_may_not_be_floats(tmp_path):
    path = tmp_path / "raw.parquet"
    pl.DataFrame({"user": [1.0, 2.0], "click": [0, 1]}).write_parquet(path)
    with pytest.raises(DataError, match="column 'user' is Float64, a token must be text or an integer"):
        preprocess_table(path, spec_file(tmp_path, GOOD), "mine", tmp_path / "data")


def test_lists_and_booleans_of_a_parquet_file(tmp_path):
    path = tmp_path / "raw.parquet"
    pl.DataFrame(
        {"user": [i % 3 for i in range(40)], "click": [i % 2 == 0 for i in range(40)], "tags": [[1, 2], []] * 20}
    ).write_parquet(path)
    spec = GOOD.replace("{name: user}", "{name: user}, {name: tags, type: token_seq}")
    folder = preprocess_table(path, spec_file(tmp_path, spec), "mine", tmp_path / "data")
    assert (folder / "mine.inter").read_text().split("\n")[1:3] == ["0\t1 2\t1", "1\t\t0"]


def rows_of(tmp_path, lines, spec, suffix=".csv", **options):
    path = tmp_path / f"own{suffix}"
    path.write_text("\n".join(lines) + "\n")
    folder = preprocess_table(path, spec_file(tmp_path, spec), "mine", tmp_path / "data", **options)
    return [line.split("\t") for line in (folder / "mine.inter").read_text().splitlines()]


ONE_TASK = "tasks: [{name: click, label: click}]\n"
GAPS = ["price,skip,click", ",1,0", *(f"{'' if i % 4 == 0 else i},0,{i % 2}" for i in range(40)), "NaN,0,1"]


def test_a_gap_is_named_by_its_line_with_both_ways_on(tmp_path):
    spec = "fields: [{name: price, type: float}]\nfilter: skip == 0\n" + ONE_TASK
    with pytest.raises(TooManyRejectedError) as caught:
        rows_of(tmp_path, GAPS, spec)
    # the first row is filtered out; of the others i = 0, 4, ..., 36 and the last have no price
    rejected = tmp_path / "data/mine/rejected.tsv"
    assert str(caught.value) == (
        "table: 11 of the first 42 rows are rejected (26.190%), max_rejected allows 0.100%: column 'price': expected a "
        f"finite number, found a missing value (11); see {rejected}, mend the raw files or raise --max_rejected. First "
        f"of each:\n  {tmp_path / 'own.csv'}, line 3: column 'price': expected a finite number, found a missing value; "
        "stock RecBole would put the column's mean there. In the spec's entry of 'price', write fill: NUMBER to put a "
        "number there, or missing: keep to leave the cells empty (absent values to our models)"
    )
    listed = [line.split("\t") for line in rejected.read_text().splitlines()]
    assert [row[1] for row in listed] == ["line", *(str(line) for line in range(3, 43, 4)), "43"]
    assert listed[1][2:] == ["column 'price': expected a finite number, found a missing value", ",0,0"]
    with pytest.raises(TooManyRejectedError, match=r"own\.csv, line 3: .* missing: keep to leave .*; without --strict"):
        rows_of(tmp_path, GAPS, spec, strict=True)
    assert len(rows_of(tmp_path, GAPS, spec, max_rejected=0.27)) == 1 + 42 - 1 - 11


def test_fill_of_a_field_puts_its_number_there(tmp_path):
    rows = rows_of(tmp_path, GAPS, "fields: [{name: price, type: float, fill: -1}]\n" + ONE_TASK)
    assert [row[0] for row in rows[1:7]] == ["-1", "-1", "1", "2", "3", "-1"]
    assert rows[-1] == ["-1", "1"]
    assert "fill" not in (tmp_path / "data/mine/mine.yaml").read_text()


@pytest.mark.parametrize("encoding", ["standardise", "bins"])
def test_kept_gaps_reach_the_absent_row(tmp_path, encoding):
    said = []
    spec = f"fields: [{{name: price, type: float, missing: keep, encoding: {encoding}}}, {{name: skip}}]\n" + ONE_TASK
    rows = rows_of(tmp_path, GAPS, spec, log=said.append)
    assert [row[0] for row in rows[1:4]] == ["", "", "1"]
    assert [text for text in said if text.startswith("warning")] == [
        f"warning: {tmp_path / 'own.csv'}, line 2: column 'price' has no number (12 such rows); they stay "
        "empty cells, absent values to our models; stock RecBole reads the column's mean there"
    ]
    settings = resolve({"model": "MMoE", "dataset": "mine", "data_path": str(tmp_path / "data")}).settings
    prepared = prepare(settings)
    absent = np.array([row[0] == "" for row in rows[1:]])
    for split in prepared.splits.values():
        batch = split.batch(np.arange(split.rows))
        expected = absent[batch.row.numpy()].tolist()
        if encoding == "bins":
            assert (batch.ids[:, 0] == prepared.schema.fields[0].offset).tolist() == expected
        else:
            assert batch.dense[:, 0].isnan().tolist() == expected
    # the field's first row of the table, which no present value touches, is what the absent rows embed to
    table = EmbeddingTable(prepared.schema, 4, std=1.0)
    batch = prepared.splits["train"].batch(np.arange(20))
    embedded = table(batch).detach()[:, 0]
    first = table.table.weight.detach()[prepared.schema.fields[0].offset]
    gap = absent[batch.row.numpy()]
    assert 0 < gap.sum() < 20
    assert np.array_equal(embedded[gap].numpy(), first.expand(int(gap.sum()), -1).numpy())
    assert not (embedded[~gap] == first).all(1).any()
    write_given_splits(settings, tmp_path / "data/given", "given", log=said.append)
    assert "warning: field 'price' has no value in 12 rows; stock RecBole reads the mean there" in said


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: skip, fill: 1}", "field 'skip': fill and missing are for type float, not token"),
        ("{name: skip, missing: keep}", "field 'skip': fill and missing are for type float, not token"),
        ("{name: skip, missing: drop}", "fields[0].missing: expected one of refuse, keep; found 'drop'"),
        ("{name: price, type: float, missing: keep, fill: 1}", "missing: keep and a value to fill cannot both hold"),
        ("{name: price, type: float, list_separator: ';'}", "list_separator is for type token_seq, not float"),
        ("{name: price, type: float, fill: .nan}", "fields[0].fill"),
        ("{name: skip, type: token_seq, list_separator: ''}", "list_separator is empty"),
        ("{name: skip, count_parts: [train]}", "count_parts needs a given split"),
    ],
)
def test_a_wrong_entry_of_a_field(tmp_path, entry, message):
    with pytest.raises(UsageError) as caught:
        rows_of(tmp_path, GAPS, f"fields: [{entry}]\n{ONE_TASK}")
    assert message in str(caught.value)


def test_a_text_is_no_number_even_where_gaps_are_filled(tmp_path):
    spec = "fields: [{name: price, type: float, fill: 0}]\n" + ONE_TASK
    with pytest.raises(TooManyRejectedError) as caught:
        rows_of(tmp_path, [*GAPS, "NA,0,1"], spec)
    assert "line 44: column 'price': expected a finite number, found 'NA'; if that means missing: reader: " in (
        str(caught.value)
    )
    rows = rows_of(tmp_path, [*GAPS, "NA,0,1"], spec + "reader: {null_values: ['NA']}\n")
    assert rows[-1] == ["0", "1"]


@pytest.mark.parametrize("words", [("true", "false"), ("TRUE", "False"), ("1", "0")])
def test_labels_may_be_true_and_false(tmp_path, words):
    lines = ["user,click", *(f"u{i % 3},{words[i % 2]}" for i in range(40))]
    rows = rows_of(tmp_path, lines, "fields: [{name: user}]\n" + ONE_TASK)
    assert [row[1] for row in rows[1:]] == ["1", "0"] * 20


def test_a_missing_label_is_refused_where_it_is_observed(tmp_path):
    lines = ["user,seen,click", *(f"u{i % 3},{int(i % 5 > 0)},{'' if i % 5 == 0 else i % 2}" for i in range(40))]
    spec = "fields: [{name: user}]\n" + ONE_TASK
    with pytest.raises(TooManyRejectedError) as caught:
        rows_of(tmp_path, lines, spec)
    assert str(caught.value).splitlines()[1] == (
        f"  {tmp_path / 'own.csv'}, line 2: the label of task 'click', column 'click', is missing. In the spec, write "
        "observed_when: CONDITION in the task where it is not known, or filter: CONDITION to drop such rows (a "
        "condition undecided is false)"
    )
    observed = spec.replace("click}]", "click, observed_when: seen == 1}]")
    rows = rows_of(tmp_path, lines, observed)
    assert rows[0] == ["user:token", "click:float", "click_observed:float"]
    assert rows[1:4] == [["u0", "0", "0"], ["u1", "1", "1"], ["u2", "0", "1"]]
    with pytest.raises(
        TooManyRejectedError, match=r"line 43: the label of task 'click', column 'click', is missing\. In"
    ):
        rows_of(tmp_path, [*lines, "u1,0,", "u1,1,"], observed, overwrite=True)
    assert len(rows_of(tmp_path, lines, spec + "filter: click in [0, 1]\n", overwrite=True)) == 1 + 32


def test_lists_in_a_text_are_split_at_their_separator(tmp_path):
    lines = ["tags,w,click", "A|B c|%41,1|2|3,1", ",,0", "A||NA,1|1,0"]
    spec = "fields: [{name: tags, type: token_seq, list_separator: '|', weights: w}]\n" + ONE_TASK
    rows = rows_of(tmp_path, lines, spec)
    assert rows[1:] == [["A B%20c %2541", "1 2 3", "1"], ["", "", "0"], ["A %4EA", "1 1", "0"]]
    assert "list_separator" not in (tmp_path / "data/mine/mine.yaml").read_text()


def test_a_data_set_is_replaced_only_when_asked(tmp_path):
    lines = ["user,click", *(f"u{i % 3},{i % 2}" for i in range(40))]
    spec = "fields: [{name: user}]\n" + ONE_TASK
    folder = tmp_path / "data/mine"
    folder.mkdir(parents=True)
    old = {"mine.train.inter": "a", "mine.item": "b", "notes.txt": "c", "other.inter": "d"}
    for name, text in old.items():
        (folder / name).write_text(text)
    with pytest.raises(UsageError) as caught:  # before the input is read, which is not there
        preprocess_table(tmp_path / "gone.csv", spec_file(tmp_path, spec), "mine", tmp_path / "data")
    assert str(caught.value) == (
        f"{folder} holds a data set already (mine.item, mine.train.inter, other.inter): choose another --name, or "
        "replace it with --overwrite"
    )
    with pytest.raises(DataError, match="no such file"):
        preprocess_table(tmp_path / "gone.csv", spec_file(tmp_path, spec), "mine", tmp_path / "data", overwrite=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == old
    rows_of(tmp_path, lines, spec, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "mine.inter", "mine.yaml", "notes.txt", "other.inter", "preprocess.json",
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


def test_every_key_of_the_spec_is_in_the_manual_and_in_the_help():
    manual = (EXAMPLES.parent / "docs/own-data.md").read_text()
    for model in (TableSpec, ReaderSpec, SpecField, TaskSettings):
        for key in model.model_fields:
            assert f"`{key}`" in manual, key
            if key != "count_parts":  # which needs a given split
                assert re.search(rf"\b{key}\b", help_text(["table"])), key


def test_the_example_of_the_manual_makes_a_data_set(tmp_path, monkeypatch):
    manual = (EXAMPLES.parent / "docs/own-data.md").read_text()
    script, spec = (re.search(rf"```{kind}\n(.*?)```", manual, re.DOTALL)[1] for kind in ("python", "yaml"))
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "docs/own-data.md", "exec"), {})
    (tmp_path / "spec.yaml").write_text(spec)
    preprocess_table("events.csv", tmp_path / "spec.yaml", "mine", tmp_path / "data")
    with (tmp_path / "events.csv").open() as file:
        events = list(csv.DictReader(file))
    assert len(events) == 300
    clicks = sum(float(event["watched"]) >= 0.5 for event in events)
    prepared = prepare(resolve({"model": "MMoE", "dataset": "mine", "data_path": str(tmp_path / "data")}).settings)
    assert prepared.summary.rows == {"train": 240, "valid": 30, "test": 30}
    found = [prepared.summary.positives[part]["click"] for part in ("train", "valid", "test")]
    assert sum(positives for positives, _ in found) == clicks
    bought = [prepared.summary.positives[part]["buy"] for part in ("train", "valid", "test")]
    assert sum(positives for positives, _ in bought) == sum(event["bought"] == "yes" for event in events)
    assert sum(observed for _, observed in bought) == clicks
    assert all(0 < positives < rows for positives, rows in (*found, *bought)), "each part can be measured"


def test_kuairand_subset(tmp_path, shared_data):
    source = shared_data / "kuairand_27k_subset" / "processed_standard_kcore_15.csv.gz"
    if not source.is_file():
        pytest.skip(f"not here: {source}")
    preprocess_table(source, EXAMPLES / "kuairand-subset.yaml", "kuairand", tmp_path)
    prepared = prepare(resolve({"model": "MMoE", "dataset": "kuairand", "data_path": str(tmp_path)}).settings)
    raw = pl.read_csv(source, separator="\t")
    assert sum(prepared.summary.rows.values()) == raw.height == 28_656
    click = sum(prepared.summary.positives[split]["click"][0] for split in prepared.splits)
    view = sum(prepared.summary.positives[split]["long_view"][0] for split in prepared.splits)
    assert click == raw["is_click"].sum()
    assert view == (raw["is_click"] * raw["long_view"]).sum()
    every = [split.batch(np.arange(split.rows)) for split in prepared.splits.values()]
    assert all((batch.labels[:, 1] <= batch.labels[:, 0]).all() for batch in every)
    times = [raw["time_ms"].to_numpy()[batch.row.numpy()] for batch in every]
    assert times[0].max() <= times[1].min()
    assert times[1].max() <= times[2].min()
