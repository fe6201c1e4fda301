"""The command `predict` with users and candidates: the best pairs, as scoring all of them one by one finds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recbole_dtn.cli import main
from recbole_dtn.data.write import write_atomic
from recbole_dtn.serving.load import load
from recbole_dtn.training.fit import fit

Shown = Callable[..., tuple[int, str, str]]
YAML = """
fields:
  - {name: user}
  - {name: genre, type: token_seq, weights: genre_weight, pooling: sum}
  - {name: price, type: float}
  - {name: item}
  - {name: liked, type: token_seq}
  - {name: age, type: float, encoding: bins, bins: 4}
  - {name: hour, type: float}
tasks:
  - {name: click, label: click}
  - {name: buy, label: buy, after: [click]}
"""
USERS, ITEMS = 9, 23


def lists(draw: np.random.Generator, rows: int, word: str) -> list[list[str]]:
    return [[f"{word}{n}" for n in draw.integers(0, 6, draw.integers(0, 4))] for _ in range(rows)]


@pytest.fixture(scope="module")
def users() -> pl.DataFrame:
    draw = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "user": [f"u{n}" for n in range(USERS)],
            "liked": lists(draw, USERS, "i"),
            "age": [None, *draw.integers(18, 70, USERS - 1).astype(float).tolist()],
            "hour": draw.integers(0, 24, USERS).astype(float),
        }
    )


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    draw = np.random.default_rng(1)
    genres = lists(draw, ITEMS, "g")
    return pl.DataFrame(
        {
            "item": [f"i{n}" for n in range(ITEMS)],
            "genre": genres,
            "genre_weight": [draw.random(len(values)).tolist() for values in genres],
            "price": [*draw.lognormal(2, 1, ITEMS - 1).tolist(), None],
            "margin": draw.random(ITEMS),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, users: pl.DataFrame, items: pl.DataFrame) -> Path:
    home = tmp_path_factory.mktemp("top")
    draw = np.random.default_rng(2)
    pairs = users[draw.integers(0, USERS, 400).tolist()].hstack(items[draw.integers(0, ITEMS, 400).tolist()])
    click = draw.integers(0, 2, 400)
    pairs = pairs.drop("margin").with_columns(click=pl.Series(click), buy=pl.Series(click * draw.integers(0, 2, 400)))
    data = home / "dataset" / "toy"
    data.mkdir(parents=True)
    types = {"user": "token", "item": "token", "liked": "token_seq", "genre": "token_seq", "genre_weight": "float_seq"}
    types |= dict.fromkeys(("age", "hour", "price", "click", "buy"), "float")
    write_atomic(pairs, data / "toy.inter", types, gaps=["age", "price"])
    (data / "toy.yaml").write_text(YAML)
    given = {
        "data_path": str(home / "dataset"), "output_dir": str(home / "runs"), "epochs": 2, "train_batch_size": 64,
        "embedding_size": 4, "accelerator": "cpu", "tower_hidden": [4], "optimizer.lr": 0.05,
    }  # fmt: skip
    return fit("SharedBottom", "toy", given, quiet=True).folder


@pytest.fixture
def shown(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    users: pl.DataFrame,
    items: pl.DataFrame,
) -> Shown:
    monkeypatch.chdir(tmp_path)
    users.write_parquet("users.parquet")
    items.write_parquet("items.parquet")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["predict", "--users=users.parquet", "--candidates=items.parquet", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def every_pair(folder: Path, users: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    pairs = users.join(items, how="cross", maintain_order="left_right")
    return pairs.hstack(load(folder).predict(pairs))


@pytest.mark.parametrize("batch", [1, 7, 23, 50, 8192])
def test_the_best_of_all_pairs_are_found(
    batch: int, folder: Path, users: pl.DataFrame, items: pl.DataFrame, shown: Shown
) -> None:
    words = [f"--run={folder}", "--k=5", "--score=click * buy ** 0.5 + margin", f"--batch_size={batch}"]
    code, out, err = shown(*words, "--output=top.parquet")
    assert (code, err) == (0, "")
    assert f"wrote top.parquet: {USERS} users, {USERS * ITEMS} pairs" in out
    found = pl.read_parquet("top.parquet")
    assert found.columns == ["user", "item", "rank", "click", "buy", "score"]
    whole = every_pair(folder, users, items)
    whole = whole.with_columns(score=pl.col("click") * pl.col("buy") ** 0.5 + pl.col("margin"))
    assert found["rank"].to_list() == list(range(1, 6)) * USERS
    for user, own in zip(users["user"], found.iter_slices(5), strict=True):
        wanted = whole.filter(pl.col("user") == user).sort("score", descending=True).head(5)
        assert own["user"].to_list() == [user] * 5
        assert own["item"].to_list() == wanted["item"].to_list()
        for name in ("click", "buy", "score"):
            assert own[name].to_list() == pytest.approx(wanted[name].to_list(), abs=1e-6)


def test_pairs_are_left_out_and_columns_passed_on(
    folder: Path, users: pl.DataFrame, items: pl.DataFrame, shown: Shown
) -> None:
    whole = every_pair(folder, users, items)
    seen = whole.filter(pl.col("user") == "u3").sort("click", descending=True).head(ITEMS - 2).select("item", "user")
    pl.concat([seen, pl.DataFrame({"item": ["i0", "gone"], "user": ["stranger", "u1"]})]).write_csv("seen.csv")
    words = [f"--run={folder}", "--k=30", "--score=click", "--exclude=seen.csv", "--keep=hour,user,item,margin"]
    assert shown(*words, "--output=top.csv")[0] == 0
    found = pl.read_csv("top.csv")
    assert found.columns == ["hour", "user", "item", "margin", "rank", "click", "buy", "score"]
    sizes = dict(found.group_by("user").len().iter_rows())
    assert sizes == {user: 2 if user == "u3" else ITEMS for user in users["user"]}
    own = found.filter(pl.col("user") == "u3")
    wanted = whole.filter(pl.col("user") == "u3").sort("click", descending=True).tail(2)
    assert own["item"].to_list() == wanted["item"].to_list()
    assert own["rank"].to_list() == [1, 2]
    assert own["margin"].to_list() == wanted["margin"].to_list()


def test_equal_scores_keep_the_order_of_the_candidates(folder: Path, items: pl.DataFrame, shown: Shown) -> None:
    items[:12].with_columns(name=pl.Series(range(12))).write_parquet("items.parquet")
    for batch in (5, 100):
        words = [f"--run={folder}", "--k=4", "--score=click * 0", f"--batch_size={batch}", "--overwrite"]
        assert shown(*words, "--keep=user,name", "--output=top.parquet")[0] == 0
        assert pl.read_parquet("top.parquet")["name"].to_list() == [0, 1, 2, 3] * USERS


def test_what_cannot_be_ranked_is_refused(
    folder: Path, users: pl.DataFrame, items: pl.DataFrame, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [f"--run={folder}", "--k=5", "--output=top.parquet"]

    def refused(*words: str) -> str:
        code, _, err = shown(*usual, *words)
        assert code == 2, err
        assert not Path("top.parquet").exists()
        return err

    assert "--score is needed" in refused()
    assert "'clik' is no task and no column; did you mean 'click'" in refused("--score=clik")
    assert "--score=log(price - price) is -inf there (price = " in refused("--score=log(price - price)")
    assert "--labels does not go with --users" in refused("--score=click", "--labels")
    assert "--k: expected at least 1; found 0" in refused("--score=click", "--k=0")
    items.rename({"price": "prize"}).write_parquet("items.parquet")
    assert "field 'price' of the run is in neither table; did you mean 'prize'?" in refused("--score=click")
    items.with_columns(age=pl.lit(1.0)).write_parquet("items.parquet")
    assert "field 'age' of the run is in both tables" in refused("--score=click")
    items.drop("genre_weight").write_parquet("items.parquet")
    assert "no column 'genre_weight' (weights of field 'genre')" in refused("--score=click")
    items[:0].write_parquet("items.parquet")
    assert "holds no candidates" in refused("--score=click")
    assert main(["predict", f"--run={folder}", "--output=top.parquet", "--users=users.parquet"]) == 2
    assert "--users needs --candidates and --k too" in capsys.readouterr().err
