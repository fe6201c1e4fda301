"""Evaluation of given predictions: forms of input, metrics against scikit-learn, refusals, files."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score

import recbole_dtn
from recbole_dtn.cli.app import main
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.metric.uncertainty import auc_with_error

RNG = np.random.default_rng(4)
ROWS = 120
LABELS = (RNG.random((ROWS, 2)) < 0.4).astype(float)
LABELS[::5, 1] = np.nan
SCORES = 1 / (1 + np.exp(-RNG.normal(size=(ROWS, 2)) - np.nan_to_num(LABELS)))
USERS = np.array([f"u{number % 17}" for number in range(ROWS)])


def evaluate(*args, **options):
    return recbole_dtn.evaluate(*args, **{"draws": 50, **options})


def test_all_forms_of_input_mean_the_same() -> None:
    expected = evaluate(SCORES, LABELS, USERS, tasks=["click", "buy"])
    maps = [{name: part[:, place] for place, name in enumerate(("click", "buy"))} for part in (SCORES, LABELS)]
    frames = [pl.DataFrame(part) for part in maps]
    nulls = frames[1].with_columns(pl.col("buy").fill_nan(None))
    assert evaluate(*maps, USERS) == expected
    assert evaluate(frames[0], nulls, pl.Series(USERS)) == expected
    assert evaluate(torch.tensor(SCORES), LABELS, list(USERS), tasks=["click", "buy"]) == expected
    logits = np.log(SCORES / (1 - SCORES))
    raw = evaluate({"mine": logits}, LABELS, USERS, tasks=["click", "buy"], logits=True).metrics["mine"]
    for task, values in expected.metrics["predictions"].items():
        assert raw[task] == pytest.approx(values, abs=1e-12)


def test_the_numbers_are_those_of_scikit_learn_on_observed_rows() -> None:
    found = evaluate(SCORES, LABELS, USERS, tasks=["click", "buy"])
    seen = ~np.isnan(LABELS[:, 1])
    truth, scores = LABELS[seen, 1], SCORES[seen, 1]
    buy = found.metrics["predictions"]["buy"]
    assert buy["auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert buy["logloss"] == pytest.approx(log_loss(truth, scores), abs=1e-12)
    groups = torch.tensor(np.unique(USERS[seen], return_inverse=True)[1])
    expected = auc_with_error(torch.tensor(scores), torch.tensor(truth), groups=groups)[1]
    assert buy["auc_se"] == pytest.approx(expected, abs=1e-12)
    losses = -np.log(np.where(truth == 1, scores, 1 - scores))
    alone = evaluate(SCORES, LABELS).metrics["predictions"]["task2"]
    assert alone["logloss_se"] == pytest.approx(losses.std(ddof=1) / np.sqrt(seen.sum()), rel=1e-9)
    assert "gauc" not in alone
    assert found.counts["buy"] == {"rows": int(seen.sum()), "positives": int(truth.sum()), "groups": 17}
    assert found.comparisons == ()


def test_a_regression_beside_a_binary_task() -> None:
    labels = np.stack([LABELS[:, 0], 10 * SCORES[:, 1]], 1)
    found = evaluate(
        np.stack([SCORES[:, 0], labels[:, 1] + 2.0], 1), labels, tasks=["click", "stay"], regression=["stay"]
    )
    stay = found.metrics["predictions"]["stay"]
    assert stay["mae"] == pytest.approx(mean_absolute_error(labels[:, 1], labels[:, 1] + 2)) == pytest.approx(2.0)
    assert stay["rmse_se"] == pytest.approx(0.0, abs=1e-7)


def test_several_predictions_are_tested_against_the_first_and_adjusted_by_holm() -> None:
    sets = {"a": SCORES, "b": SCORES[::-1].copy(), "c": np.full(SCORES.shape, 0.5)}
    found = evaluate(sets, LABELS, USERS, tasks=["click", "buy"], metrics=["auc", "logloss", "calibration"])
    tests = {(test.first, test.task, test.metric): test for test in found.comparisons}
    assert {name[0] for name in tests} == {"b", "c"}
    assert {test.second for test in found.comparisons} == {"a"}
    assert {name[2] for name in tests} == {"auc", "logloss"}
    for (first, task, metric), test in tests.items():
        values = [found.metrics[name][task][metric] for name in (first, "a")]
        assert test.difference == pytest.approx(values[0] - values[1], abs=1e-12)
        assert test.method == {"auc": "DeLong by group", "logloss": "bootstrap by group"}[metric]
    own = sorted(test.p for test in found.comparisons if test.metric == "auc")
    adjusted = sorted(test.p_holm for test in found.comparisons if test.metric == "auc")
    assert adjusted[0] == pytest.approx(min(1.0, 4 * own[0]))
    assert {test.metric for test in evaluate(sets, LABELS, draws=0).comparisons} == {"auc"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p * 1.5, y), r"task 'task1': expected a probability, .*; found 1\.\d+ in row \d+ \(and"),
        (lambda p, y: (np.where(p > 0.9, np.nan, p), y), "expected a finite number; found nan in row"),
        (lambda p, y: (p[:-1], y), "expected 120 rows; found 119"),
        (lambda p, y: (p, y * 2), "labels of task 'task1': expected 0 or 1, .*found 2 in row"),
        (lambda p, y: (p[:, :1], y), "expected a column for each of task1, task2; found 1"),
        (lambda p, y: (p.astype(str), np.full(y.shape, "x")), "labels: expected numbers"),
    ],
)
def test_what_does_not_fit_is_refused(change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(*change(SCORES.copy(), LABELS.copy()))


def test_wrong_names_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown metric 'acu': did you mean 'auc'"):
        evaluate(SCORES, LABELS, metrics=["acu"])
    with pytest.raises(UsageError, match="metric 'gauc' needs the group"):
        evaluate(SCORES, LABELS, metrics=["gauc"])
    with pytest.raises(UsageError, match="'sty' is no task"):
        evaluate(SCORES, LABELS, tasks=["click", "stay"], regression=["sty"])
    with pytest.raises(DataError, match="weights: expected finite numbers of at least 0; found -1 in row 3"):
        evaluate(SCORES, LABELS, weights=np.where(np.arange(ROWS) == 3, -1.0, 1.0))
    with pytest.raises(DataError, match="groups: expected one of each of 120 rows; found 5"):
        evaluate(SCORES, LABELS, USERS[:5])


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = pl.DataFrame({"id": np.arange(ROWS) + 1000, "user": USERS, "click": LABELS[:, 0], "buy": LABELS[:, 1]})
    labels.with_columns(pl.col("buy").fill_nan(None)).write_csv(tmp_path / "labels.csv")
    scores = pl.DataFrame({"id": np.arange(ROWS) + 1000, "click": SCORES[:, 0], "buy": SCORES[:, 1]})
    scores.sample(fraction=1.0, shuffle=True, seed=3).write_parquet(tmp_path / "mine.parquet")
    scores.with_columns(click=0.5).write_csv(tmp_path / "flat.tsv", separator="\t")
    return tmp_path


def command(folder: Path, *words: str) -> int:
    files = [f"--labels={folder / 'labels.csv'}", f"--predictions={folder / 'mine.parquet'},{folder / 'flat.tsv'}"]
    return main(["evaluate", *files, "--draws=20", *words])


def test_files_are_joined_by_a_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "--key=id", "--group=user", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = evaluate(SCORES, LABELS, USERS, tasks=["click", "buy"]).metrics["predictions"]
    for task, values in expected.items():
        assert found["metrics"]["mine"][task] == pytest.approx(values, abs=1e-12)
    assert found["metrics"]["flat"]["click"]["auc"] == 0.5
    assert {test["second"] for test in found["comparisons"]} == {"mine"}
    assert command(folder, "--key=id", "--metrics=auc") == 0
    printed = capsys.readouterr().out
    assert "click: 120 rows, 4" in printed
    assert f"{expected['click']['auc']:.4f} ± " in printed
    assert "differences from mine" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key=idd"], "no column 'idd'; did you mean 'id'"),
        (["--key=user"], "no column 'user', by which rows are joined"),
        (["--key=id", "--tasks=click,by"], "no column 'by'; did you mean 'buy'"),
        (["--key=id", "--run=runs"], "expected --labels or --run"),
        (["--key=id", "--regression=stay"], "--regression=stay is no task"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder: Path, words: list[str], message: str, capsys) -> None:
    assert command(folder, *words) == 2
    assert message in capsys.readouterr().err


def test_rows_that_do_not_match_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = pl.read_csv(folder / "flat.tsv", separator="\t")
    for frame, message in (
        (whole.head(100), "no prediction for 20 of 120 rows (first: id 1100)"),
        (pl.concat([whole, whole.head(2)]), "id 1000 occurs more than once (4 such rows)"),
        (whole.with_columns(pl.col("id") + 1), "no prediction for 1 of 120 rows (first: id 1000)"),
    ):
        frame.write_csv(folder / "flat.tsv", separator="\t")
        assert command(folder, "--key=id") == 2
        assert message in capsys.readouterr().err
    whole.head(7).write_csv(folder / "flat.tsv", separator="\t")
    assert command(folder) == 2
    assert "expected 120 rows, in the order of the labels; found 7" in capsys.readouterr().err


# ---- files that do not fit ------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Labels with ``row`` 10, 11, ..., and predictions for them in `mine.csv`."""
    rows = pl.Series("row", range(10, 10 + ROWS))
    pl.DataFrame([rows, pl.Series("click", LABELS[:, 0])]).write_csv(tmp_path / "labels.csv")
    mine = pl.DataFrame([rows, pl.Series("click", SCORES[:, 0])])
    mine.write_csv(tmp_path / "mine.csv")
    mine.reverse().write_parquet(tmp_path / "reversed.parquet")
    mine.drop("row").write_csv(tmp_path / "in_order.csv")
    mine.with_columns(pl.col("row").cast(pl.Float64)).write_csv(tmp_path / "floats.csv")
    mine.with_columns(click=pl.when(pl.col("row") == 14).then(1.5).otherwise(pl.col("click"))).write_csv(
        tmp_path / "out.csv"
    )
    wrong = pl.when(pl.col("row") == 14).then(pl.lit("high")).otherwise(pl.col("click").cast(pl.String))
    mine.with_columns(click=wrong).write_csv(tmp_path / "words.csv")
    (tmp_path / "twice.csv").write_text("row,click,click\n10,.5,.5\n")
    (tmp_path / "broken.parquet").write_text("row,click\n")
    return tmp_path


def of_files(folder: Path, names: str, *words: str) -> int:
    predictions = ",".join(str(folder / name) for name in names.split(","))
    return main(
        ["evaluate", f"--predictions={predictions}", f"--labels={folder / 'labels.csv'}", "--draws=0", "--json", *words]
    )


def test_whole_numbers_join_however_they_are_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert of_files(files, "mine.csv,reversed.parquet,floats.csv") == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    expected = roc_auc_score(LABELS[:, 0], SCORES[:, 0])
    assert [found[name]["click"]["auc"] for name in ("mine", "reversed", "floats")] == pytest.approx([expected] * 3)


@pytest.mark.parametrize(
    ("names", "words", "message"),
    [
        # By their order the rows of the second would be held against other labels.
        ("in_order.csv,reversed.parquet", [], "reversed.parquet have the column 'row', by which rows are joined, and"),
        ("mine.csv,mine.csv", [], "mine.csv is named twice; leave one out"),
        ("mine.csv,floats.csv", ["--seed=-1"], "seed: expected a whole number of at least 0; found -1"),
        ("gone.parquet", [], "gone.parquet: there is no such file"),
        ("", [], "is a folder; expected a .parquet, .csv or .tsv file"),
        ("broken.parquet", [], "broken.parquet: cannot be read as parquet"),
        ("twice.csv", [], "twice.csv, line 1: two columns are named 'click': rename or remove one"),
        (
            "out.csv",
            [],
            "expected a probability, from 0 to 1 (logits are told by logits=True, or --logits); found 1.5 ",
        ),
        ("out.csv", [], "in row 14"),
        ("words.csv", [], "task 'click': expected numbers; found 'high' in row 14"),
    ],
)
def test_files_that_do_not_fit(
    files: Path, capsys: pytest.CaptureFixture[str], names: str, words: list[str], message: str
) -> None:
    assert of_files(files, names, *words) == 2
    assert message in capsys.readouterr().err
