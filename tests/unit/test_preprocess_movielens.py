"""MovieLens-1M: every value against a plain parser, Latin-1, the archive, faulty rows, and the way to a batch."""

import random
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from recbole_dtn.config.datasets import dataset_values
from recbole_dtn.config.load import resolve
from recbole_dtn.config.preprocess import preprocess_options
from recbole_dtn.errors import DataError, TooManyRejectedError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.movielens.preprocessor import MovieLens1M
from recbole_dtn.preprocess.prepare import prepare

MOVIES = [
    "1::Toy Story (1995)::Animation|Children's|Comedy",
    "73::Misérables, Les (1995)::Drama|Musical",
    '260::Star Wars: Episode IV - A "New" Hope (1977)::Action|Sci-Fi',
    "3::Seven Samurai (The Magnificent Seven) (Shichinin no samurai) (1954)::Action|Drama",
    "4::Without a year::Film-Noir",
]
USERS = ["1::F::1::10::48067", "2::M::56::16::98107-2117", "3::M::25::0::0231", "4::F::18::4::N1 5ab"]
DRAW = random.Random(0)
RATINGS = [
    f"{DRAW.randint(1, 4)}::{DRAW.choice([1, 73, 260, 3, 4])}::{DRAW.randint(1, 5)}::{978300760 + 9991 * i}"
    for i in range(200)
]


def raw_of(folder, ratings=RATINGS, users=USERS, movies=MOVIES):
    folder.mkdir(parents=True)
    for name, rows in (("ratings", ratings), ("users", users), ("movies", movies)):
        (folder / f"{name}.dat").write_bytes("".join(f"{row}\n" for row in rows).encode("latin-1"))
    return folder


def made(raw, data_path):
    values = dataset_values("ml-1m", None)
    return MovieLens1M(raw, data_path, options=preprocess_options("ml-1m", values["preprocess"]), base=values)


def read(folder, kind):
    return [row.split("\t") for row in (folder / f"ml-1m.{kind}").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("archive", [False, True])
def test_every_value(tmp_path, archive):
    raw = raw_of(tmp_path / "raw" / "ml-1m")
    if archive:
        packed = tmp_path / "packed"
        packed.mkdir()
        with zipfile.ZipFile(packed / "ml-1m.zip", "w") as target:
            for path in raw.iterdir():
                target.write(path, f"ml-1m/{path.name}")
        raw = packed
    folder = made(raw, tmp_path / "data").run()
    assert sorted(path.name for path in folder.iterdir()) == [
        "ml-1m.inter", "ml-1m.item", "ml-1m.user", "preprocess.json"
    ]  # fmt: skip
    expected = []
    for row in RATINGS:
        user, item, rating, second = row.split("::")
        time = datetime.fromtimestamp(int(second), UTC)
        expected.append([user, item, rating, second, str(time.hour), str(time.isoweekday())])
    header, *rows = read(folder, "inter")
    assert header == [
        "user_id:token", "item_id:token", "rating:float", "timestamp:float", "hour:token", "weekday:token"
    ]  # fmt: skip
    assert rows == expected
    assert read(folder, "user") == [
        ["user_id:token", "age:token", "gender:token", "occupation:token", "zip_prefix:token"],
        ["1", "1", "F", "10", "480"],
        ["2", "56", "M", "16", "981"],
        ["3", "25", "M", "0", "023"],
        ["4", "18", "F", "4", "N15"],
    ]
    assert read(folder, "item") == [
        ["item_id:token", "release_year:token", "genres:token_seq"],
        ["1", "1995", "Animation Children's Comedy"],
        ["73", "1995", "Drama Musical"],
        ["260", "1977", "Action Sci-Fi"],
        ["3", "1954", "Action Drama"],
        ["4", "", "Film-Noir"],
    ]
    assert validate(folder) == []


def test_labels_and_genres_reach_a_batch(tmp_path):
    made(raw_of(tmp_path / "raw"), tmp_path / "data").run()
    prepared = prepare(resolve({"model": "MMoE", "dataset": "ml-1m", "data_path": str(tmp_path / "data")}).settings)
    assert prepared.summary.rows == {"train": 160, "valid": 20, "test": 20}
    ratings = np.array([int(row.split("::")[2]) for row in RATINGS])
    for split in prepared.splits.values():
        batch = split.batch(np.arange(split.rows))
        found = ratings[batch.row.numpy()]
        assert batch.labels.numpy().tolist() == np.stack([found >= 4, found == 5], 1).astype(float).tolist()
    genres = prepared.vocabularies.tokens("genres")
    assert {"Children's", "Film-Noir", "Sci-Fi"} <= set(genres)


def test_faulty_rows_are_rejected_with_their_lines(tmp_path):
    bad = [
        "9::1::5::978300760",
        "1::9::5::978300760",
        "1::1::6::978300760",
        "1::1::5::yesterday",
        "1::1::5",
        "1:1:5:9",
        "",
    ]
    users = [*USERS[:2], "1::M::25::3::00000", *USERS[2:]]
    raw = raw_of(tmp_path / "raw", ratings=[*RATINGS[:50], *bad, *RATINGS[50:]], users=users)
    with pytest.raises(TooManyRejectedError, match="max_rejected"):
        made(raw, tmp_path / "data").run(max_rejected=0.001)
    folder = made(raw, tmp_path / "data").run(max_rejected=0.3)
    assert len(read(folder, "inter")) == 1 + len(RATINGS)
    listed = [row.split("\t")[:3] for row in (folder / "rejected.tsv").read_text().splitlines()[1:]]
    assert sorted(listed) == sorted(
        [
            ["users.dat", "3", "user_id: is there already"],
            ["ratings.dat", "51", "user_id: is not in users.dat"],
            ["ratings.dat", "52", "item_id: is not in movies.dat"],
            ["ratings.dat", "53", "rating: expected 1 to 5"],
            ["ratings.dat", "54", "timestamp: expected seconds since 1970"],
            ["ratings.dat", "55", "expected 4 columns, found 3"],
            ["ratings.dat", "56", "expected 4 columns, found 1"],
            ["ratings.dat", "57", "blank line"],
        ]
    )


def test_without_files_it_says_where_they_come_from(tmp_path):
    raw = raw_of(tmp_path / "raw")
    (raw / "movies.dat").unlink()
    with pytest.raises(DataError, match=r"the raw files movies\.dat are missing(.|\n)*grouplens(.|\n)*ml-1m\.zip"):
        made(Path(raw), tmp_path / "data").run()
