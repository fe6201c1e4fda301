"""The files of leaderboards: those that extend another, rows that are added, and the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.board import read_board
from recbole_dtn.leaderboard.plan import TuneWanted


def test_a_file_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "datasets: [ml-100k]\nmodels: [MMoE, PLE]\nseeds: 10\nsettings: {epochs: 3, dropout: 0.1}\n"
        "match: dense\nreference: PLE\ntune: {trials: 8, epochs: 3, space: {all: {dropout: {choices: [0.1]}}}}\n"
    )
    (tmp_path / "own.yaml").write_text("extends: base.yaml\nmatch: none\nsettings: {epochs: 5}\ntune: {trials: 2}\n")
    found = read_board(tmp_path / "own.yaml")
    assert (found.match, found.reference, found.seeds) == ("none", "PLE", 10)
    assert found.settings == {"epochs": 5, "dropout": 0.1}
    assert found.tune == TuneWanted(trials=2, epochs=3, space={"all": {"dropout": {"choices": [0.1]}}})
    (tmp_path / "base.yaml").write_text("extends: own.yaml\n")
    with pytest.raises(UsageError, match=r"extends own\.yaml, which extends this file in turn"):
        read_board(tmp_path / "own.yaml")


def test_a_row_is_added_to_a_file_that_extends_another_where_it_has_rows_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, words = tmp_path / "own.yaml", ["--model=PLE", "--name=b", "--levels=2"]
    (tmp_path / "base.yaml").write_text("datasets: [ml-100k]\nmodels: [MMoE]\nseeds: 2\n")
    own.write_text("extends: base.yaml\n")
    assert main(["leaderboard", "add", str(own), *words]) == 2
    assert "takes its models from base.yaml" in capsys.readouterr().err
    own.write_text("extends: base.yaml\nmodels: [SharedBottom]\n")
    assert main(["leaderboard", "add", str(own), *words]) == 0
    assert [entry.name for entry in read_board(own).entries] == ["SharedBottom", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.yaml", "own.yaml"]
    assert main(["leaderboard", "add", "leaderboard/ml-100k.yaml", *words]) == 2
    assert "it is shipped: copy " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ml-100k", "ml-100k-own", "ml-100k-time", "ml-100k-time-own", "census-income",
                                  "census-income-own", "kuairand", "kuairand-own"])  # fmt: skip
def test_shipped_leaderboards(name: str, tmp_path: Path) -> None:
    found = read_board(Path(f"leaderboard/{name}.yaml"))
    assert (found.seeds, found.match) == (10, "none" if name.endswith("own") else "dense")
    assert found.tune is not None
    assert (found.tune.trials, found.tune.epochs) == (8, 3)
    usual = [resolve([f"--model={model}"]).settings for model in ("DTN", "MMoE", "SingleTask", "PLE", "AITM", "STEM")]
    defaults = [{"optimizer.lr": each.optimizer.lr, "embedding_l2": each.embedding_l2} for each in usual]
    assert all(each in found.tune.also for each in defaults), "every row tries the defaults of the others"
    names = [entry.name for entry in found.entries]
    assert found.reference in names
    wanted = ["SingleTask", "SharedBottom", "MMoE", "PLE", "AITM", "STEM", "MMoE over DTN's modules",
              "PLE over DTN's modules", "SingleTask with DTN's modules", "PLE behind GDCN", "SharedBottom of width",
              "DTN", "DTN released"]  # fmt: skip
    assert [each for each in wanted if not any(row.startswith(each) for row in names)] == []


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("single-task", ["like", "love"]),
        ("single-task-kuairand", ["click", "long_view"]),
        ("single-task-census", ["income", "marital"]),
    ],
)
def test_single_task_leaderboards_select_by_each_task_in_turn(name: str, tasks: list[str]) -> None:
    found = read_board(Path(f"leaderboard/{name}.yaml"))
    assert (found.seeds, found.match, found.proposed) == (10, "none", [])
    assert [list(entry.words) for entry in found.entries] == [[], *([f"--valid_metric={task}_auc"] for task in tasks)]
    assert {entry.model for entry in found.entries} == {"SingleTask"}
