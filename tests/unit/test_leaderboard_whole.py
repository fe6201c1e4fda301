"""Plantings, matching, tuning, jobs and costs of one leaderboard together. Nothing is trained here."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recbole_dtn.cli import main
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.leaderboard import cell_run, jobs
from recbole_dtn.leaderboard import run as board_run
from recbole_dtn.leaderboard.cells import plan_cells
from recbole_dtn.leaderboard.jobs import board_jobs
from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted, find_plan
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.leaderboard.speed import one_cell_per_row
from recbole_dtn.testing.data import tiny_schema
from tests.unit.board_trainer import FINGERPRINT, Trainer

TOY = {"name": "toy", "plantings": 2, "rows": 100, "fields": 4, "informative": 2}
MATCH = MatchWanted(by="dense", reference="PLE")
TUNE = TuneWanted(trials=2, epochs=3, space={"all": {"optimizer.lr": {"low": 0.0005, "high": 0.05, "log": True}}})


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of cells whose data is not prepared."""
    for module in (board_run, jobs):
        monkeypatch.setattr(module, "schema_of", lambda settings: tiny_schema())
    for module in (cell_run, jobs):
        monkeypatch.setattr(module, "present_fingerprint", lambda settings: FINGERPRINT)
    return [f"--output_dir={tmp_path / 'runs'}", f"--data_path={tmp_path / 'data'}", "--epochs=5"]


def run(words: list[str], output: Path, trainer: Trainer, models: list[Any], **options: Any) -> str:
    text = io.StringIO()
    run_board(
        models, [TOY], None, words, output, Console(file=text, width=200), run_cell=trainer,
        fingerprint=lambda settings: FINGERPRINT, **options,
    )  # fmt: skip
    return text.getvalue()


def test_plantings_are_matched_and_tuned_once_on_the_first(words: list[str], tmp_path: Path) -> None:
    trainer = Trainer()
    said = run(words, tmp_path / "out", trainer, ["MMoE", "PLE"], match=MATCH, tune=TUNE)
    trials = [settings for settings in trainer.ran if settings.trial is not None]
    finals = [settings for settings in trainer.ran if settings.trial is None]
    assert [(settings.model, settings.folder) for settings in trials] == [("MMoE", "toy-1"), ("PLE", "toy-1")] * 2
    assert sorted((settings.model, settings.folder, settings.seed) for settings in finals) == [
        ("MMoE", "toy-1", 2020), ("MMoE", "toy-2", 2021), ("PLE", "toy-1", 2020), ("PLE", "toy-2", 2021),
    ]  # fmt: skip
    plan = find_plan([tmp_path / "out"], "toy")
    assert plan is not None
    assert [(row.dataset, row.name) for row in plan.rows] == [("toy", "MMoE"), ("toy", "PLE")]
    matched = plan.rows[0].matched
    assert matched is not None
    assert abs(matched.size / matched.target - 1) <= 0.05
    widths = {str(settings.expert_hidden) for settings in trainer.ran if settings.model == "MMoE"}  # type: ignore[attr-defined]
    assert len(widths) == 1
    assert f"--expert_hidden={widths.pop()}" in plan.rows[0].words
    # One row of two draws each, and the trials of its tuning among its costs.
    costs = said[said.index("\ncosts\n") :].split("\n\n")[0].splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in costs[2:]] == [
        ("model", "trials"), ("MMoE", "2"), ("PLE", "2"),
    ]  # fmt: skip


def test_jobs_of_a_tuned_board_are_its_trials_and_then_its_cells(words: list[str], tmp_path: Path) -> None:
    trainer, kept = Trainer(), []

    def cells(chosen: BoardPlan | None = None) -> Any:
        return plan_cells(["MMoE", "PLE"], [TOY], None, words, chosen=None if chosen is None else chosen.words)

    def commands() -> list[list[str]]:
        found = board_jobs(cells(), MATCH, TUNE, cells, kept.append)
        return [shlex.split(command.partition(" leaderboard cell ")[2]) for command in found]

    for number in range(TUNE.trials):
        found = commands()
        assert commands() == found, "nothing has run in between"
        assert len(found) == 2
        for command in found:
            assert trainer(command[:-1]).settings["trial"]["number"] == number
            assert command[-1] == "--threads=1"
    found = commands()
    assert len(found) == 4
    widths = [word for word in kept[-1].rows[0].words if word.startswith("--expert_hidden=")]
    assert len(widths) == 1
    assert [widths[0] in command for command in found] == [True, False, True, False]
    assert not any("--trial" in word for command in found for word in command)
    assert [len(row.tuning.trials) for row in kept[-1].rows] == [2, 2]
    for command in found:
        trainer(command[:-1])
    assert commands() == []
    # On another machine, with the plan and the records alone.
    known = Recorded()
    for cell in cells(kept[-1]):
        known.read(cell.folder)
    elsewhere = [f"--output_dir={tmp_path / 'other'}" if word.startswith("--output_dir=") else word for word in words]
    assert elsewhere != words
    words[:] = elsewhere
    assert list(board_jobs(cells(), MATCH, TUNE, cells, kept.append, known, kept[-1])) == []
    assert len(commands()) == 4, "without the records; the trials were kept there"


def test_a_failed_planting_stands_under_the_name_of_its_data_set(words: list[str], tmp_path: Path) -> None:
    def fails(settings: Settings) -> None:
        if settings.folder == "toy-2":
            raise RecBoleDTNError("no memory")

    with pytest.raises(RecBoleDTNError, match=r"1 of 2 cells failed: PLE toy-2 seed 2021"):
        run(words, tmp_path / "out", Trainer(before=fails), ["PLE"])
    with (tmp_path / "out" / "toy.failures.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert (line["dataset"], line["split"], line["reason"]) == ("toy", "toy-2", "no memory")
    assert "| PLE | 2021 | no memory |" in (tmp_path / "out" / "toy.md").read_text()


def test_plantings_have_one_speed(words: list[str]) -> None:
    rows = one_cell_per_row(plan_cells(["MMoE", "PLE"], [TOY, {**TOY, "name": "other"}], None, words))
    assert [(cell.name, cell.shown_dataset) for cell in rows] == [
        ("MMoE", "toy"), ("PLE", "toy"), ("MMoE", "other"), ("PLE", "other"),
    ]  # fmt: skip


def test_dry_run_plants_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(
        f"datasets: [{ {**TOY, 'rows': 600} }]\nmodels: [Logistic]\nfloors: []\n".replace("'", "")
    )
    assert main(["leaderboard", "run", "toy.yaml", "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "1 rows, 2 cells, 0 trials" in said
    assert "recorded" not in said
    assert [path.name for path in Path("dataset").iterdir() if path.is_dir()] == ["toy-1"]
    assert not list(tmp_path.rglob("record.json"))
    assert main(["leaderboard", "run", "toy.yaml"]) == 0
    assert main(["leaderboard", "run", "toy.yaml", "--dry_run"]) == 0
    assert "recorded: 2 cells; what is recorded on these data is not run again" in capsys.readouterr().out
