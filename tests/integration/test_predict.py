"""The command `predict`: scores of files equal those of the run's own test, whatever the kind of file."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard

from recbole_dtn.cli import main
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.serving.load import LoadedRun, load, probabilities
from recbole_dtn.training.fit import fit

Shown = Callable[..., tuple[int, str, str]]
ROWS = 600
YAML = """
fields:
  - {name: user}
  - {name: city, min_count: 20}
  - {name: tags, type: token_seq, pooling: mean}
  - {name: seen, type: token_seq, pooling: sum, weights: seen_weight}
  - {name: plain, type: float, encoding: standardise}
  - {name: amount, type: float, encoding: log1p, clip: null}
  - {name: age, type: float, encoding: bins, bins: 5}
  - {name: skewed, type: float, encoding: auto}
tasks:
  - {name: click, label: click}
  - {name: buy, label: rating, condition: rating >= 4, observed_when: click == 1}
  - {name: stay, kind: regression, label: stay}
group_field: user
weight_field: mass
"""


def make_rows(seed: int, rows: int) -> pl.DataFrame:
    """Raw values with missing ones, and words that atomic files have to escape."""
    draw = np.random.default_rng(seed)

    def some(values: list[object], share: float = 0.15) -> list[object]:
        return [None if draw.random() < share else value for value in values]

    words = ["NA", "a b", "50%25", 'say "x"', "ü", "plain"]
    users = [f"u{n}" for n in draw.integers(0, 40, rows)]
    lists = [[f"t{n}" for n in draw.integers(0, 30, draw.integers(0, 4))] for _ in range(rows)]
    seen = [[words[n] for n in draw.integers(0, 6, draw.integers(0, 4))] for _ in range(rows)]
    return pl.DataFrame(
        {
            "user": some(users, 0.05),
            "city": some([words[n] for n in draw.integers(0, 6, rows)]),
            "tags": lists,
            "seen": seen,
            "seen_weight": [[round(float(draw.random()), 3) for _ in values] for values in seen],
            "plain": some(draw.normal(5, 2, rows).tolist()),
            "amount": some(draw.lognormal(3, 2, rows).tolist()),
            "age": some([float(n) for n in draw.integers(18, 70, rows)]),
            "skewed": some((draw.pareto(0.7, rows) * 10).tolist()),
            "click": draw.integers(0, 2, rows).astype(float),
            "rating": draw.integers(1, 6, rows).astype(float),
            "stay": draw.normal(0, 1, rows),
            "mass": draw.integers(0, 3, rows).astype(float),
        },
        schema_overrides={"tags": pl.List(pl.String), "seen": pl.List(pl.String), "seen_weight": pl.List(pl.Float64)},
    )


def write_set(folder: Path, frame: pl.DataFrame) -> None:
    from recbole_dtn.data.write import write_atomic

    folder.mkdir(parents=True)
    types = dict.fromkeys(frame.columns, "float") | {"user": "token", "city": "token"}
    types |= {"tags": "token_seq", "seen": "token_seq", "seen_weight": "float_seq"}
    write_atomic(frame, folder / f"{folder.name}.inter", types, gaps=["plain", "amount", "age", "skewed"])
    (folder / f"{folder.name}.yaml").write_text(YAML)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("predict")
    write_set(home / "dataset" / "toy", make_rows(0, ROWS))
    write_set(home / "dataset" / "other", make_rows(1, 200))
    return home


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    given = {
        "data_path": str(home / "dataset"), "output_dir": str(home / "runs"), "epochs": 2, "train_batch_size": 128,
        "embedding_size": 4, "accelerator": "cpu", "experts": 2, "expert_hidden": [8], "tower_hidden": [4],
        "optimizer.lr": 0.05,
    }  # fmt: skip
    return fit("MMoE", "toy", given, quiet=True).folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedRun:
    return load(folder)


@pytest.fixture(scope="module")
def expected(loaded: LoadedRun) -> np.ndarray:
    """Scores of the run's own test, from the arrays of the cache."""
    outputs = [probabilities(output.logits, loaded.model.schema.tasks) for _, output in loaded.outputs("test")]
    return np.concatenate([part.numpy() for part in outputs])


@pytest.fixture(scope="module")
def raw(home: Path, loaded: LoadedRun) -> pl.DataFrame:
    """The raw values of the test rows, with their row number as text."""
    rows = np.concatenate([batch.row.numpy() for batch in loaded.batches("test")])
    return make_rows(0, ROWS)[rows.tolist()].with_columns(row=pl.Series(rows).cast(pl.String))


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def as_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists as texts; values with spaces cannot be told there, so that a comma separates them."""
    return frame.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join("|") for name in ("tags", "seen", "seen_weight")
    )


SPEC = """
reader: {null_values: [missing]}
fields:
  - {name: user}
  - {name: city}
  - {name: tags, type: token_seq, list_separator: "|"}
  - {name: seen, type: token_seq, list_separator: "|", weights: seen_weight}
  - {name: plain, type: float}
tasks:
  - {name: click, label: click}
"""


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.tsv", "rows.csv.gz", "rows.tsv.zst", "rows.inter"])
def test_scores_are_those_of_the_test(
    name: str, folder: Path, raw: pl.DataFrame, expected: np.ndarray, shown: Shown, home: Path
) -> None:
    words = []
    if name == "rows.parquet":
        raw.write_parquet(name)
    elif name == "rows.inter":
        (home / "x").mkdir(exist_ok=True)
        lines = (home / "dataset/toy/toy.inter").read_bytes().split(b"\n")
        Path(name).write_bytes(b"\n".join([lines[0], *(lines[1 + int(row)] for row in raw["row"]), b""]))
    else:
        data = as_texts(raw).write_csv(separator="\t" if ".tsv" in name else ",", null_value="missing").encode()
        packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name).suffix, bytes)
        Path(name).write_bytes(packed(data))
        Path("spec.yaml").write_text(SPEC)
        words = ["--spec=spec.yaml"]
    keep = "user,city" if name == "rows.inter" else "row,user,city"
    code, out, err = shown(
        "predict", f"--run={folder}", f"--input={name}", "--output=out.parquet", f"--keep={keep}", "--batch_size=7",
        "--logits", *words,
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = pl.read_parquet("out.parquet")
    tasks = ["click", "buy", "stay"]
    assert found.columns == [*keep.split(","), *tasks, *(f"{task}_logit" for task in tasks)]
    assert found.height == len(expected) == 60
    assert np.abs(found.select(tasks).to_numpy() - expected).max() < 1e-6
    assert found["city"].to_list() == raw["city"].to_list()
    assert found["user"].to_list() == raw["user"].to_list()
    logit = found["click_logit"].to_numpy()
    assert found["click"].to_numpy() == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-9)
    assert found["stay"].to_list() == found["stay_logit"].to_list()
    assert "wrote out.parquet: 60 rows" in out


def test_rows_encoded_together_are_scored_as_those_of_each_batch(
    folder: Path, loaded: LoadedRun, raw: pl.DataFrame, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three batches of seven rows, encoded at once.
    monkeypatch.setattr("recbole_dtn.serving.predict.ENCODED_CELLS", 21 * loaded.model.schema.num_fields)
    calls = []
    encode = Vocabularies.encode
    monkeypatch.setattr(
        Vocabularies, "encode", lambda *given, **named: calls.append(len(given[1])) or encode(*given, **named)
    )
    raw.write_parquet("rows.parquet")
    words = ["predict", f"--run={folder}", "--input=rows.parquet", "--output=scores.parquet", "--batch_size=7"]
    assert shown(*words, "--keep=row")[0] == 0
    assert calls == [21] * (len(raw) // 21) + [len(raw) % 21] * (len(raw) % 21 > 0)
    found = pl.read_parquet("scores.parquet")
    assert found["row"].equals(raw["row"])
    assert found.drop("row").equals(loaded.predict(raw, batch_size=7)), "to the last bit"
    # Blocks of two rows are joined to as many.
    calls.clear()
    monkeypatch.setattr("recbole_dtn.preprocess.table.scan.BATCH_ROWS", 2)
    assert shown(*words, "--keep=row", "--overwrite")[0] == 0
    assert calls == [21] * (len(raw) // 21) + [len(raw) % 21] * (len(raw) % 21 > 0)
    assert pl.read_parquet("scores.parquet").equals(found)


def test_the_standard_input_gives_the_same_rows_packed_or_not(
    folder: Path, raw: pl.DataFrame, expected: np.ndarray, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("spec.yaml").write_text(SPEC)
    for separator, pack in ((",", bytes), ("\t", gzip.compress), (",", zstandard.compress)):
        data = pack(as_texts(raw).write_csv(separator=separator, null_value="missing").encode())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        output = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdout", output)
        code = main(["predict", f"--run={folder}", "--input=-", "--output=-", "--spec=spec.yaml", "--keep=row"])
        assert code == 0
        found = pl.read_csv(output.buffer.getvalue())  # type: ignore[attr-defined]
        assert found["row"].cast(pl.String).to_list() == raw["row"].to_list()
        assert np.abs(found.select("click", "buy", "stay").to_numpy() - expected).max() < 1e-6
    raw.write_parquet("rows.parquet")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("rows.parquet").read_bytes())))
    code, _, err = shown("predict", f"--run={folder}", "--input=-", "--output=out.csv")
    assert (code, "Parquet cannot be read from a stream" in err) == (2, True)


def test_labels_give_the_metrics_of_the_test(folder: Path, loaded: LoadedRun, raw: pl.DataFrame, shown: Shown) -> None:
    raw.write_parquet("rows.parquet")
    words = [f"--run={folder}", "--input=rows.parquet", "--labels", "--json", "--batch_size=11"]
    code, out, _ = shown("predict", *words, "--output=a.parquet")
    assert code == 0
    found = json.loads(out)
    record = loaded.record.test
    assert record is not None
    assert {task: set(values) for task, values in found["metrics"].items()} == {
        task: set(values) for task, values in record.items()
    }
    for task, values in record.items():
        for metric, value in values.items():
            assert found["metrics"][task][metric] == pytest.approx(value, abs=1e-6), (task, metric)
    # Without the columns of a rule, a column with the task's name holds its label; empty is not observed.
    ready = raw.with_columns(buy=pl.when(pl.col("click") == 1).then((pl.col("rating") >= 4).cast(pl.Int8)))
    ready.drop("rating").write_parquet("ready.parquet")
    words[1] = "--input=ready.parquet"
    code, out, _ = shown("predict", *words, "--output=b.parquet")
    assert json.loads(out)["metrics"] == found["metrics"]
    raw.drop("user_missing", "rating", strict=False).write_parquet("without.parquet")
    words[1] = "--input=without.parquet"
    code, _, err = shown("predict", *words, "--output=c.parquet")
    assert code == 2
    assert "task 'buy' needs the columns click, rating, of which rating is not there" in err
    assert not Path("c.parquet").exists()


def test_another_data_set_is_tested(folder: Path, loaded: LoadedRun, shown: Shown) -> None:
    code, out, _ = shown("test", f"--run={folder}", "--dataset=other", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["rows"] == 200
    other = make_rows(1, 200)
    scores = loaded.predict(other)
    from recbole_dtn.serving.evaluate import evaluate

    tasks = {
        "click": other["click"],
        "buy": (other["rating"] >= 4).cast(pl.Float64).set(other["click"] != 1, None),
        "stay": other["stay"],
    }
    wanted = evaluate(
        scores, pl.DataFrame(tasks), other["user"], weights=other["mass"].to_numpy(), regression=["stay"], draws=0
    ).metrics["predictions"]
    for task, values in found["test"].items():
        for metric in ("auc", "logloss", "rmse", "gauc"):
            if metric in values:
                assert values[metric] == pytest.approx(wanted[task][metric], abs=1e-6), (task, metric)
    code, _, err = shown("test", f"--run={folder}", "--dataset=nowhere")
    assert (code, "nowhere.inter" in err) == (2, True)


def test_sigterm_in_a_test_has_its_exit_code_and_a_word(
    folder: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(self: LoadedRun) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(LoadedRun, "evaluate", ended)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert shown("test", f"--run={folder}") == (75, "", "ended by SIGTERM: no output was written\n")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_unknown_and_missing_values_are_counted(folder: Path, loaded: LoadedRun, shown: Shown) -> None:
    frame = make_rows(2, 5).with_columns(
        user=pl.Series(["u1", "stranger", "another", None, "u2"]),
        city=pl.Series(["plain", "Atlantis", None, None, "plain"]),
        tags=pl.Series([["t1", "zz"], [], ["zz", "yy"], ["t2"], None], dtype=pl.List(pl.String)),
        plain=pl.Series([1.0, None, float("nan"), 2.0, 3.0]),
    )
    frame.write_parquet("rows.parquet")
    code, out, _ = shown("predict", f"--run={folder}", "--input=rows.parquet", "--output=a.csv", "--json")
    assert code == 0
    fields = json.loads(out)["fields"]
    assert fields["user"] == {"missing": 1, "values": 4, "unknown": 2}
    assert fields["city"] == {"missing": 2, "values": 3, "unknown": 1}
    assert fields["tags"] == {"missing": 2, "values": 5, "unknown": 3}
    assert fields["plain"] == {"missing": 2, "values": 3, "unknown": 0}
    found = pl.read_csv("a.csv")
    assert np.abs(found.to_numpy() - loaded.predict(frame).to_numpy()).max() < 1e-6
    code, out, _ = shown("predict", f"--run={folder}", "--input=rows.parquet", "--output=a.csv", "--overwrite")
    assert code == 0
    assert [line.split() for line in out.splitlines() if line.startswith("user ")] == [
        ["user", "1", "(20.00%)", "2", "(50.00%)"]
    ]


def test_what_cannot_be_is_refused_and_leaves_no_file(folder: Path, raw: pl.DataFrame, shown: Shown) -> None:
    raw.write_parquet("rows.parquet")
    usual = ["predict", f"--run={folder}"]

    def refused(*words: str) -> str:
        before = sorted(path.name for path in Path().iterdir())
        code, _, err = shown(*usual, *words)
        assert code == 2, err
        assert sorted(path.name for path in Path().iterdir()) == before
        return err

    raw.rename({"plain": "plian", "seen_weight": "weights"}).write_parquet("renamed.parquet")
    err = refused("--input=renamed.parquet", "--output=o.csv")
    assert "no column 'plain' (field of the run, a number); did you mean 'plian'?" in err
    assert "no column 'seen_weight' (weights of field 'seen')" in err
    assert "did you mean 'row'" in refused("--input=rows.parquet", "--output=o.csv", "--keep=roww")
    Path("there.csv").write_text("mine")
    assert "exists: choose another name, or give --overwrite" in refused("--input=rows.parquet", "--output=there.csv")
    assert "unknown kind of file" in refused("--input=rows.parquet", "--output=o.json")
    Path("folder.csv").mkdir()
    assert "(folder.csv is a folder)" in refused("--input=rows.parquet", "--output=folder.csv", "--overwrite")
    assert "no such file" in refused("--input=nothing.csv", "--output=o.csv")
    assert "no file matches" in refused("--input=*.nothing", "--output=o.csv")
    assert "named twice" in refused("--input=rows.parquet,*.parquet", "--output=o.csv")
    assert "'clik' is no task and no column; did you mean 'click'" in refused(
        "--input=rows.parquet", "--output=o.csv", "--score=clik * buy"
    )
    assert "has the name of a column that is written" in refused("--input=rows.parquet", "--output=o.csv", "--keep=*")
    wrong = as_texts(raw).with_columns(pl.col("plain").cast(pl.String))
    wrong = wrong.with_columns(plain=pl.Series([*wrong["plain"][:-1], "many"]))
    wrong.write_csv("wrong.csv")
    Path("spec.yaml").write_text(SPEC)
    err = refused("--input=wrong.csv", "--output=there.csv", "--overwrite", "--spec=spec.yaml", "--batch_size=8")
    assert "wrong.csv, line 61: a number field, column 'plain': expected a finite number; found 'many'" in err
    assert Path("there.csv").read_text() == "mine"
    lines = as_texts(raw).write_csv().splitlines()
    Path("short.csv").write_text("\n".join([*lines[:30], "only,three,cells", *lines[30:], ""]))
    assert "short.csv, line 31: expected 14 columns, found 3" in refused("--input=short.csv", "--output=o.parquet")
    assert "expected at least 1; found 0" in refused("--input=rows.parquet", "--output=o.csv", "--batch_size=0")


def test_files_are_read_in_their_order_and_none_is_no_row(folder: Path, raw: pl.DataFrame, shown: Shown) -> None:
    raw[:20].write_parquet("b.parquet")
    raw[20:23].write_parquet("a.parquet")
    raw[:0].write_parquet("none.parquet")

    def rows(files: str, output: str) -> list[str]:
        assert shown("predict", f"--run={folder}", f"--input={files}", f"--output={output}", "--keep=row")[0] == 0
        found = pl.read_parquet(output) if output.endswith("parquet") else pl.read_csv(output)
        assert found.columns == ["row", "click", "buy", "stay"]
        return found["row"].cast(pl.String).to_list()

    numbers = raw["row"].to_list()
    assert rows("b.parquet,a.parquet", "1.parquet") == numbers[:23]
    assert rows("[ab].parquet", "2.csv") == numbers[20:23] + numbers[:20]
    assert rows("none.parquet", "3.parquet") == rows("none.parquet", "4.csv") == []


def test_side_tables_are_joined(folder: Path, raw: pl.DataFrame, expected: np.ndarray, shown: Shown) -> None:
    keyed = raw.with_columns(key=pl.col("row").cast(pl.Int64))
    keyed.drop("city", "tags").write_parquet("events.parquet")
    keyed.select("key", "city", "tags").sample(fraction=1.0, shuffle=True, seed=1).write_parquet("sides.parquet")
    words = ["predict", f"--run={folder}", "--input=events.parquet", "--join=sides.parquet"]
    assert shown(*words, "--output=a.parquet", "--keep=city")[0] == 0
    found = pl.read_parquet("a.parquet")
    assert found["city"].to_list() == raw["city"].to_list()
    assert np.abs(found.select("click", "buy", "stay").to_numpy() - expected).max() < 1e-6
    pl.concat([keyed, keyed[:1]]).select("key", "city", "tags").write_parquet("sides.parquet")
    code, _, err = shown(*words, "--output=b.parquet")
    assert (code, f"key '{raw['row'][0]}' is there twice" in err) == (2, True)


def test_the_score_is_a_formula_over_tasks_and_columns(folder: Path, raw: pl.DataFrame, shown: Shown) -> None:
    raw.write_parquet("rows.parquet")
    words = ["predict", f"--run={folder}", "--input=rows.parquet"]
    assert shown(*words, "--output=a.parquet", "--score=click * buy ** 0.5 + mass", "--keep=mass")[0] == 0
    found = pl.read_parquet("a.parquet")
    wanted = found["click"] * found["buy"] ** 0.5 + found["mass"]
    assert found["score"].to_list() == pytest.approx(wanted.to_list(), abs=1e-12)
    code, _, err = shown(*words, "--output=b.parquet", "--score=log(mass) + click")
    assert code == 2
    row = int(raw["mass"].arg_min() or 0)
    assert f"rows.parquet, row {row + 1}: --score=log(mass) + click is -inf there (mass = 0, click = " in err
    assert not Path("b.parquet").exists()
