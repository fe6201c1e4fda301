"""ml-100k from RecBole's wheel: derived fields, tasks and our split as given parts."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data.atomic import AtomicTable
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.export import write_given_splits
from recbole_dtn.preprocess.movielens.preprocessor import MovieLens100K, _inside_recbole
from recbole_dtn.preprocess.prepare import prepare


@pytest.fixture(scope="module")
def data_path(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def settings(data_path, **change):
    return resolve({"model": "MMoE", "dataset": "ml-100k", "data_path": str(data_path), **change}).settings


def column(path, name):
    return np.concatenate([batch.frame[name].to_numpy() for batch in AtomicTable([path]).batches([name])])


def test_the_first_run_makes_the_files_and_the_fields_are_right(data_path):
    said = []
    prepared = prepare(settings(data_path), log=said.append)
    assert [text.split("/")[-1] for text in said if text.startswith("wrote")] == [
        "ml-100k-mt.inter (100,000 rows)",
        "ml-100k-mt.user (943 rows)",
        "ml-100k-mt.item (1,682 rows)",
    ]
    assert prepared.summary.rows == {"train": 80_000, "valid": 10_000, "test": 10_000}
    raw = pd.read_csv(_inside_recbole() / "ml-100k.inter", sep="\t")
    time = pd.to_datetime(raw["timestamp:float"], unit="s", utc=True)
    inter = data_path / "ml-100k-mt" / "ml-100k-mt.inter"
    assert column(inter, "hour").astype(int).tolist() == time.dt.hour.tolist()
    assert column(inter, "weekday").astype(int).tolist() == (time.dt.weekday + 1).tolist()
    rating = raw["rating:float"]
    for split, part in prepared.splits.items():
        rows = part.batch(np.arange(part.rows)).row.numpy()
        labels = part.batch(np.arange(part.rows)).labels.numpy()
        assert (labels[:, 0] == (rating[rows] >= 4)).all()
        assert (labels[:, 1] == (rating[rows] == 5)).all()
        assert prepared.summary.positives[split]["love"] == (int((rating[rows] == 5).sum()), part.rows)
    users = pd.read_csv(_inside_recbole() / "ml-100k.user", sep="\t", dtype=str).set_index("user_id:token")
    user = AtomicTable([data_path / "ml-100k-mt" / "ml-100k-mt.user"])
    for row in next(iter(user.batches())).frame.iter_rows(named=True):
        raw_user = users.loc[row["user_id"]]
        assert row["zip_prefix"] == "".join(c for c in raw_user["zip_code:token"] if c.isalnum())[:3]
        assert row["age"] == float(raw_user["age:token"])
    assert [spec.name for spec in prepared.schema.fields if not spec.single_id] == ["genres"]
    assert validate(data_path / "ml-100k-mt") == []


def test_a_raw_folder_of_the_users_own(tmp_path):
    with pytest.raises(DataError, match=r"ml-100k\.inter: cannot be read"):
        MovieLens100K(tmp_path, tmp_path / "data").run()
    folder = MovieLens100K(_inside_recbole(), tmp_path / "data", name="mine").run()
    assert sorted(path.name for path in folder.iterdir()) == ["mine.inter", "mine.item", "mine.user"]


def test_given_splits_hold_our_rows_in_their_order_and_encode_alike(data_path):
    ours = prepare(settings(data_path))
    folder = write_given_splits(settings(data_path), data_path / "given", "given")
    table = next(iter(AtomicTable([folder / "given.valid.inter"]).batches()))
    assert table.frame.columns == ["user_id", "item_id", "hour", "weekday", "like", "love"]
    assert table.header.types == ("token",) * 4 + ("float",) * 2
    given = prepare(resolve({"model": "MMoE", "dataset": "given", "data_path": str(data_path)}).settings)
    assert given.vocabularies.to_dict() == ours.vocabularies.to_dict()
    for name, split in ours.splits.items():
        every = np.arange(split.rows)
        a, b = split.batch(every), given.splits[name].batch(every)
        assert a.ids.equal(b.ids)
        assert a.labels.equal(b.labels)
        assert a.multi[7].values.equal(b.multi[7].values)
    with pytest.raises(UsageError, match="cannot be written over its own files"):
        write_given_splits(settings(data_path), data_path / "ml-100k-mt", "ml-100k-mt")


def test_given_splits_of_a_task_with_a_mask(data_path):
    tasks = [
        {"name": "like", "label": "rating", "condition": "rating >= 4"},
        {"name": "love", "label": "rating", "condition": "rating == 5", "observed_when": "rating >= 4"},
    ]
    masked = settings(data_path, tasks=tasks, limit_rows=2000)
    said = []
    write_given_splits(masked, data_path / "masked", "masked", log=said.append)
    assert any("love_observed say which labels are observed" in text for text in said)
    ours = prepare(masked)
    given = prepare(resolve({"model": "MMoE", "dataset": "masked", "data_path": str(data_path)}).settings)
    for name, split in ours.splits.items():
        a, b = split.batch(np.arange(split.rows)), given.splits[name].batch(np.arange(split.rows))
        assert a.observed.equal(b.observed)
        assert a.labels.equal(b.labels)
        assert not a.observed.all()
        assert a.observed[:, 0].all()
    with pytest.raises(UsageError, match="task 'hour' is named as an input"):
        write_given_splits(settings(data_path, tasks=[{**tasks[0], "name": "hour"}]), data_path / "hour", "hour")
    assert not (data_path / "hour").exists()


def test_a_set_that_comes_with_the_package_is_written_again_only_as_it_was(tmp_path):
    MovieLens100K(None, tmp_path).run()
    folder = tmp_path / "ml-100k-mt"
    (folder / "ml-100k-mt.yaml").write_text("# mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    MovieLens100K(None, tmp_path).run()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "ml-100k-mt.user").write_text("mine")
    with pytest.raises(UsageError, match=r"holds a data set already \(ml-100k-mt\.user\)"):
        MovieLens100K(None, tmp_path).run()
    assert (folder / "ml-100k-mt.user").read_text() == "mine"
    MovieLens100K(None, tmp_path).run(overwrite=True)
    before.pop("ml-100k-mt.yaml")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_predicting_takes_the_values_of_the_files(data_path):
    prepared = prepare(settings(data_path))
    folder = data_path / "ml-100k-mt"
    tables = {kind: AtomicTable([folder / f"ml-100k-mt.{kind}"]) for kind in ("inter", "user", "item")}
    inter, user, item = (pl.concat([batch.frame for batch in table.batches()]) for table in tables.values())
    frame = inter.join(user, on="user_id", maintain_order="left").join(item, on="item_id", maintain_order="left")
    split = prepared.splits["test"]
    batch = split.batch(np.arange(500))
    raw = prepared.vocabularies.encode(frame[batch.row.tolist()], prepared.schema)
    assert raw.ids.equal(batch.ids)
    assert raw.multi[7].values.equal(batch.multi[7].values)
    assert raw.multi[7].offsets.equal(batch.multi[7].offsets)


def test_what_needs_neither_torch_nor_recbole_loads_neither(tmp_path):
    code = (
        "import sys; from pathlib import Path; from recbole_dtn.config.conditions import parse_condition;"
        "parse_condition('a > 1'); assert not {'torch', 'recbole', 'polars'} & set(sys.modules);"
        "from recbole_dtn.preprocess.movielens.preprocessor import MovieLens100K;"
        "MovieLens100K(None, Path(sys.argv[1])).run();"
        "assert not {'torch', 'recbole'} & set(sys.modules);"
        "from recbole_dtn.cli import main; assert main(['--dataset=ml-1m', '--data_path=' + sys.argv[1]]) == 2;"
        "assert not {'torch', 'pytorch_lightning'} & set(sys.modules), 'missing raw files are said before'"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
