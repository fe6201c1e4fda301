"""Training on several splits in one command: the runs, their records, and the table of mean and spread."""

import re
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recbole_dtn.cli import main
from recbole_dtn.record.record import RunRecord, read_record

Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """Train a small model on 300 rows; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dataset" / "toy"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    users = draw.integers(0, 20, 300)
    clicks = draw.random(300) < users / 20
    rows = [f"u{user}\t{int(click)}" for user, click in zip(users, clicks, strict=True)]
    (folder / "toy.inter").write_text("\n".join(["u:token\tclick:float", *rows, ""]))
    (folder / "toy.yaml").write_text("fields: [{name: u}]\ntasks: [{name: click, label: click}]\n")
    usual = ("--model=SharedBottom", "--dataset=toy", "--epochs=1", "--embedding_size=2", "--accelerator=cpu")

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*usual, *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def records() -> list[RunRecord]:
    return [read_record(path) for path in sorted(Path("runs/toy/SharedBottom").glob("*/record.json"))]


def test_every_fold_is_a_run_and_the_table_is_over_them(train: Train) -> None:
    code, out, err = train("--folds=2", "--stratify=rarest", "--metrics=auc", "--seed=7")
    assert (code, err) == (0, "")
    made = sorted(records(), key=lambda record: record.seed)
    assert [(run.folds, run.fold, run.split_seed, run.seed) for run in made] == [(2, 0, 2020, 7), (2, 1, 2020, 8)]
    assert [run.rows for run in made] == [{"train": 134, "valid": 16, "test": 150}] * 2  # a ninth of 150
    assert len({run.settings_digest for run in made}) == len({run.source_fingerprint for run in made}) == 1
    assert len({run.data_fingerprint for run in made}) == 2
    assert all(re.search(r"-s[78]-f[01]$", run.run_id) for run in made)
    found = [run.test["click"]["auc"] for run in made if run.test is not None]
    values = [value for value in found if value is not None]
    line = next(line.split() for line in out.splitlines() if line.startswith("click ") and line.endswith(" 2"))
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    assert line == ["click", "AUC", f"{mean:.4f}", f"{sd:.4f}", "2"]
    assert "[1/2] fold 0 of 0 to 1 (split_seed 2020), seed 7\n" in out
    second = out[out.index("[2/2] fold 1 of 0 to 1 (split_seed 2020), seed 8 ... ") :].splitlines()[0]
    assert re.search(r" click AUC \S+ ± \S+ \(± s\.e\.\) \(runs/", second)
    # 16 validation rows in both.
    lines = out[out.index("test over 2 splits") :].splitlines()
    told = [line for line in lines if line.startswith("warning: ") and "in validation (16 rows)" in line]
    assert len(told) == 1
    assert told[0].endswith(("[all 2 runs]", "[all 2 runs; numbers of the first]"))
    assert (
        "split: test is fold 0 of 0 to 1 (split_seed 2020), validation is drawn from the other folds in equal shares"
        in out
    )


def test_one_fold_alone_is_one_run(train: Train) -> None:
    assert train("--folds=2", "--fold=1", "--quiet")[0] == 0
    (made,) = records()
    assert (made.fold, made.seed) == (1, 2020)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split_seeds=zwei"], "split_seeds: expected a count (--split_seeds=3) or a list of whole numbers"),
        (["--split_seeds=2", "--split_seed=4"], "split_seed: split_seeds names the seeds of all splits"),
        (["--split_seeds=2", "--split=given"], "expected toy.train.inter, toy.valid.inter, toy.test.inter"),
        (["--split_seeds=2", "--devices=2"], "devices=2, num_nodes=1: several splits are trained one after another"),
        (["--split_sees=2"], "split_sees: unknown setting; did you mean"),
    ],
)
def test_splits_asked_for_wrongly(train: Train, words: list[str], message: str) -> None:
    code, out, err = train(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("runs").exists()


def test_a_dry_run_shows_the_first_of_the_splits(train: Train) -> None:
    code, out, _ = train("--split_seeds=5,6", "--dry_run")
    assert code == 0
    assert out.startswith("2 runs, one per split; this is the first: split_seed 5\n")
    assert re.search(r"^split_seed +5 +command line$", out, re.MULTILINE)
