"""One table of the user's own: CSV, TSV and Parquet, its spec, and the data set it makes."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data.datamodule import prepare
from recbole_dtn.data.preprocess.table import preprocess_table
from recbole_dtn.data.validate import validate
from recbole_dtn.errors import DataError, UsageError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASKS = ("income", "marital")
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
    assert said == [f"wrote {folder / 'mine.inter'} (39 rows)"]
    assert sorted(path.name for path in folder.iterdir()) == ["mine.inter", "mine.yaml"]
    first, *rest = (folder / "mine.inter").read_text().split("\n")
    assert first.split("\t") == [
        "user:token", "price:float", "tags:token_seq", "click:float", "buy:float", "buy_observed:float", "early:float",
        "when:float",
    ]  # fmt: skip
    assert rest[0].split("\t") == ['a "b"', "1.5", "x y", "1.0", "1.0", "1.0", "1.0", "0.0"]
    assert rest[1].split("\t") == ["%4EA", "0.0", "", "0.0", "0.0", "0.0", "1.0", "1.0"]
    assert rest[2].split("\t")[0] == "x%09y"
    assert rest[4].split("\t")[:3] == ["%2541", "7.0", "%4EA"]
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
    assert lines[:3] == ["a:token\tb:token\tc:token\tt:float", "0\tv 0\t\t0.0", "1\tv 1\t\t1.0"]


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
        (GOOD + "fill: {user: 0}\n", "fill names 'user', which is no float column"),
        (GOOD + "derive: {user: price > 1}\n", "column 'user' would be written twice"),
        (GOOD + "split: sideways\n", "one of random, time, user_time"),
        (
            GOOD.replace("user}", "price, type: float}"),
            "mine.inter, line 3: column 'price': expected a finite number, found a",
        ),
        (GOOD.replace("user}", "tags, type: float}"), "line 2: column 'tags': expected a finite number, found 'x y'"),
        (GOOD.replace("click}]", "bought}]"), "line 2: column 'bought': expected a finite number, found 'yes'"),
        (
            "fields: [{name: user}]\ntasks: [{name: t, label: price, condition: price > 1}]\n",
            "line 3: column 't': expected a finite number, found a missing value",
        ),
        (GOOD + "reader: {columns: [user, click]}\n", "line 1: expected 2 columns as in reader.columns, found 7"),
        (GOOD + "reader: {separator: '::'}\n", "separator must be one character"),
    ],
)
def test_a_wrong_spec_or_row_is_named(tmp_path, spec, message):
    path = write(tmp_path, ".csv")
    with pytest.raises((UsageError, DataError)) as caught:
        preprocess_table(path, spec_file(tmp_path, spec), "mine", tmp_path / "data")
    assert message in str(caught.value)
    assert not (tmp_path / "data" / "mine" / "mine.inter").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "no such file"),
        ("raw.xlsx", b"PK", "unknown kind of file '.xlsx'"),
        ("raw.csv", b"user,click\na,1\n\xe9,0\n", "line 3: not UTF-8 at byte 0 of the line"),
        ("raw.csv.gz", b"\x1f\x8b torn", "cannot be read as a table"),
        ("raw.csv", b"", "cannot be read as a table"),
        ("raw.csv", b"user,click\na,1,7\n", "cannot be read as a table"),
        ("raw.parquet", b"not parquet", "cannot be read as a table"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((UsageError, DataError)) as caught:
        preprocess_table(path, spec_file(tmp_path, GOOD), "mine", tmp_path / "data")
    assert str(path) in str(caught.value)
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
    assert (folder / "mine.inter").read_text().split("\n")[1:3] == ["0\t1 2\t1.0", "1\t\t0.0"]


def test_census_income(tmp_path, shared_data):
    source = shared_data / "census_income_kdd" / "census-income.test.gz"
    if not source.is_file():
        pytest.skip(f"not here: {source}")
    preprocess_table(source, EXAMPLES / "census-income.yaml", "census", tmp_path)
    prepared = prepare(resolve({"model": "MMoE", "dataset": "census", "data_path": str(tmp_path)}).settings)
    assert sum(prepared.summary.rows.values()) == 99_762
    totals = {task: sum(prepared.summary.positives[split][task][0] for split in prepared.splits) for task in TASKS}
    assert totals == {"income": 6_186, "marital": 43_143}  # 6.20 % and 43.25 %
    names = [spec.name for spec in prepared.schema.fields]
    assert len(names) == 39
    assert not {"instance_weight", "marital_stat", "income_50k"} & set(names)
    assert "?" in prepared.vocabularies.tokens("mig_chg_msa")


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
