"""Leaderboards whose rows are tuned and matched: budgets, seeds, going on after a kill. Nothing is trained here."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import DataError, RecBoleDTNError, UsageError
from recbole_dtn.leaderboard import run as board_run
from recbole_dtn.leaderboard.board import read_board
from recbole_dtn.leaderboard.cells import plan_cells
from recbole_dtn.leaderboard.choose import refuse_trial_seeds
from recbole_dtn.leaderboard.outlook import show_outlook
from recbole_dtn.leaderboard.plan import BoardPlan, MatchWanted, TuneWanted, find_plan
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.leaderboard.tune import tune_model
from recbole_dtn.registry import load_plugins
from recbole_dtn.schema import DataSchema
from recbole_dtn.testing.data import tiny_schema
from recbole_dtn.tuning.trial import Trial
from tests.unit.board_trainer import FINGERPRINT, Trainer

SPACE = {
    "all": {"optimizer.lr": {"low": 0.0005, "high": 0.05, "log": True}, "dropout": {"choices": [0.0, 0.2]}},
    "MMoE": {"experts": {"choices": [2, 4]}},
    "Boosting": {"shrinkage": {"low": 0.05, "high": 0.2}},
}
TRIALS = 5
"""Of each row; the fifth is the first that may be pruned."""
ROWS = ["MMoE", {"name": "plain", "model": "SharedBottom", "dropout": 0.1}, "PLE"]


class Board:
    """Runs one leaderboard below a folder."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self.output = folder, folder / "out"
        self.trainer = Trainer()
        self.said = ""
        self.options: dict[str, Any] = {"tune": TuneWanted(trials=TRIALS, epochs=3, space=SPACE), **options}

    @property
    def words(self) -> list[str]:
        return [f"--output_dir={self.folder / 'runs'}", "--epochs=5", "--embedding_size=4"]

    def run(self) -> BoardPlan:
        text = io.StringIO()
        try:
            run_board(
                ROWS, ["ml-100k"], [1, 2], self.words, self.output, Console(file=text, width=200), board="board",
                floors=["Logistic", "Boosting"], run_cell=self.trainer, fingerprint=lambda settings: FINGERPRINT,
                **self.options,
            )  # fmt: skip
        finally:
            self.said = text.getvalue()
        return self.plan

    @property
    def plan(self) -> BoardPlan:
        found = find_plan([self.output], "board")
        assert found is not None
        return found

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.output.iterdir())}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A leaderboard that ran in one go."""
    found = Board(tmp_path_factory.mktemp("finished"))
    found.run()
    return found


@pytest.fixture
def schema(monkeypatch: pytest.MonkeyPatch) -> DataSchema:
    """In place of prepared data."""
    found = tiny_schema()
    monkeypatch.setattr(board_run, "schema_of", lambda settings: found)
    return found


def trials_of(board: Board, name: str) -> Any:
    row = board.plan.row("ml-100k", name)
    assert row is not None
    return row.tuning


# ---- budgets, seeds, what the rows get ------------------------------------------------------------------------------


def test_every_row_has_the_same_budget(finished: Board) -> None:
    counts = {row.name: None if row.tuning is None else len(row.tuning.trials) for row in finished.plan.rows}
    assert counts == {"MMoE": TRIALS, "plain": TRIALS, "PLE": TRIALS, "Logistic": None, "Boosting": TRIALS}
    trials = [settings for settings in finished.trainer.ran if settings.trial is not None]
    assert len(trials) == 4 * TRIALS
    assert {settings.epochs for settings in trials} == {3}
    assert {(settings.trial.number, settings.seed) for settings in trials if settings.trial} == {
        (number, 1000 + number) for number in range(TRIALS)
    }
    assert f"{TRIALS} trials of at most 3 epochs for each row, by weighted_auc on validation" in finished.said
    assert "Without a setting in the search space, and not tuned: Logistic." in finished.said
    assert "Equal for all rows: data and split, embedding_size 4, train_batch_size 1024, epochs 5" in finished.said


def test_trial_0_has_the_defaults(finished: Board) -> None:
    first = next(settings for settings in finished.trainer.ran if settings.model == "MMoE")
    usual = resolve(["--model=MMoE", "--dataset=ml-100k"]).settings
    assert (first.optimizer, first.dropout, first.experts) == (usual.optimizer, usual.dropout, usual.experts)  # type: ignore[attr-defined]
    assert first.trial is not None
    assert first.trial.number == 0


def test_final_runs_have_the_settings_of_the_best_trial_and_seeds_of_their_own(finished: Board) -> None:
    tuning = trials_of(finished, "MMoE")
    values = {trial.number: trial.value for trial in tuning.trials if trial.state == "complete"}
    assert tuning.best == max(values, key=lambda number: (values[number], -number))
    best = tuning.trials[tuning.best].params
    final = [settings for settings in finished.trainer.ran if settings.trial is None and settings.model == "MMoE"]
    assert [settings.seed for settings in final] == [1, 2]
    assert {settings.optimizer.lr for settings in final} == {best["optimizer.lr"]}
    assert {str(settings.experts) for settings in final} == {best["experts"]}  # type: ignore[attr-defined]
    assert {settings.epochs for settings in final} == {5}
    assert finished.trainer.ran.index(final[0]) >= 4 * TRIALS  # after all trials


def test_what_a_row_sets_stays(finished: Board) -> None:
    assert {settings.dropout for settings in finished.trainer.ran if settings.model == "SharedBottom"} == {0.1}
    assert set(trials_of(finished, "plain").trials[1].params) == {"optimizer.lr"}


def test_rows_try_the_same_values_of_settings_that_all_have(finished: Board) -> None:
    tried = [
        [trial.params["optimizer.lr"] for trial in trials_of(finished, name).trials[1:4]] for name in ("MMoE", "PLE")
    ]
    assert tried[0] == tried[1]


def test_late_trials_are_pruned_at_the_median(finished: Board) -> None:
    trials = trials_of(finished, "PLE").trials
    medians = sorted(trial.history[0] for trial in trials[:4])
    bound = (medians[1] + medians[2]) / 2
    for trial in trials[4:]:
        assert (trial.state == "pruned") is (trial.history[0] < bound or len(trial.history) < 3)
    assert all(len(trial.history) == 3 for trial in trials[:4])


ALSO = [{"optimizer.lr": 0.001, "experts": 2}, {"optimizer.lr": 0.004, "dropout": 0.0}]
"""The second is what all rows have."""


def test_settings_that_all_rows_try_come_last_and_are_not_pruned(finished: Board, tmp_path: Path) -> None:
    shutil.copytree(finished.output, tmp_path / "out")  # the plan of the leaderboard without them
    board = Board(tmp_path, tune=TuneWanted(trials=TRIALS, epochs=3, space=SPACE, also=ALSO))
    board.run()
    counts = {row.name: len(row.tuning.trials) for row in board.plan.rows if row.tuning}
    assert counts == {"MMoE": TRIALS + 1, "plain": TRIALS + 1, "PLE": TRIALS + 1, "Boosting": TRIALS}
    (last,) = trials_of(board, "MMoE").trials[TRIALS:]
    assert (last.params, last.state) == ({"optimizer.lr": 0.001, "dropout": "0.0", "experts": "2"}, "complete")
    ran = [settings.trial for settings in board.trainer.ran if settings.trial is not None]
    assert [(trial.number, trial.needed) for trial in ran] == [(TRIALS, [])] * 3, "the first trials are known"
    for name in counts:
        assert trials_of(board, name).trials[:TRIALS] == trials_of(finished, name).trials
    assert (
        f"{TRIALS} trials of at most 3 epochs for each row, and 1 more with settings that all rows try, or have as "
        "defaults (fewer: Boosting 0), by weighted_auc"
    ) in board.said
    again = Board(tmp_path, tune=TuneWanted(trials=TRIALS, epochs=3, space=SPACE, also=ALSO))
    again.run()
    assert again.trainer.ran == []


def test_values_for_all_rows_are_numbers_as_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "datasets: [d]\nmodels: [MMoE]\ntune: {trials: 5, also: [{optimizer.lr: 0.002, dropout: 0.2}]}\n"
    )
    tune = read_board(tmp_path / "b.yaml").tune
    assert tune is not None
    assert tune.also == [{"optimizer.lr": 0.002, "dropout": 0.2}]


@pytest.mark.parametrize(
    ("also", "told"),
    [
        ({"optimizer.l": 0.001}, "tune.also: no row tunes 'optimizer.l'; did you mean 'optimizer.lr'?"),
        ({"optimizer.lr": 1.0}, "tune.also: MMoE: optimizer.lr: expected a number from 0.0005 to 0.05, found 1.0"),
        ({"dropout": 0.3}, "tune.also: MMoE: dropout: expected one of 0.0, 0.2, found 0.3"),
    ],
)
def test_wrong_settings_for_all_rows_are_refused_before_anything_runs(
    also: dict[str, Any], told: str, tmp_path: Path
) -> None:
    board = Board(tmp_path, tune=TuneWanted(trials=TRIALS, epochs=3, space=SPACE, also=[also]))
    with pytest.raises(UsageError) as raised:
        board.run()
    assert told in str(raised.value)
    assert board.trainer.ran == []


# ---- going on -------------------------------------------------------------------------------------------------------


def comparable(board: Board) -> Any:
    """The plan without names of run folders, which have the time in them."""
    plan = board.plan.model_dump()
    for row in plan["rows"]:
        for trial in (row["tuning"] or {}).get("trials", ()):
            trial.pop("run")
    return json.loads(json.dumps(plan).replace(str(board.folder), ""))


class Stop:
    """Raises an exception at the n-th run."""

    def __init__(self, number: int, error: BaseException) -> None:
        self.left, self.error = number, error

    def __call__(self, settings: Settings) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def test_a_leaderboard_that_is_stopped_goes_on_with_the_trials_it_would_have_had(
    finished: Board, tmp_path: Path
) -> None:
    board = Board(tmp_path)
    for number in (3, 11):
        board.trainer.before = Stop(number, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            board.run()
    board.trainer.before = str
    board.run()
    assert comparable(board) == comparable(finished)
    assert len(board.trainer.ran) == len(finished.trainer.ran)  # nothing ran twice
    assert board.files["board.csv"] == finished.files["board.csv"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_leaderboard_tuning import Board

board = Board(Path(sys.argv[1]))
at = int(sys.argv[2])
board.trainer.before = lambda settings: len(board.trainer.ran) == at and os.kill(os.getpid(), signal.SIGKILL)
board.run()
"""


@pytest.mark.parametrize("number", [10, 4 * TRIALS + 3], ids=["among trials", "among final runs"])
def test_a_kill_in_the_middle_gives_the_same_table(finished: Board, tmp_path: Path, number: int) -> None:
    code = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(number)], check=False).returncode
    assert code == -signal.SIGKILL
    board = Board(tmp_path)
    board.run()
    assert comparable(board) == comparable(finished)
    assert len(board.trainer.ran) == len(finished.trainer.ran) - number
    for form in ("md", "csv", "tex"):
        assert board.files[f"board.{form}"] == finished.files[f"board.{form}"]


def test_the_same_command_again_runs_nothing(finished: Board) -> None:
    before, files = len(finished.trainer.ran), finished.files
    finished.run()
    assert len(finished.trainer.ran) == before
    assert finished.files == files


def test_a_leaderboard_goes_on_from_its_tables_folder_on_another_machine(finished: Board, tmp_path: Path) -> None:
    board = Board(tmp_path)
    shutil.copytree(finished.output, board.output)
    board.run()
    assert board.trainer.ran == [], "trials are in the plan, cells in the archive"
    assert comparable(board) == comparable(finished)
    assert board.files == finished.files
    shutil.rmtree(board.folder / "runs")
    (board.output / "board.plan.json").write_text("{}}")
    board.run()
    assert "left out" in board.said
    assert {settings.trial is None for settings in board.trainer.ran} == {False}, "only trials ran again"


def test_the_plan_keeps_what_a_later_run_leaves_out(finished: Board, tmp_path: Path) -> None:
    board = Board(tmp_path)
    shutil.copytree(finished.output, board.output)
    whole = comparable(board)
    some = ROWS[:1]
    run_board(
        some, ["ml-100k"], [1], board.words, board.output, Console(file=io.StringIO()), board="board", floors=[],
        run_cell=board.trainer, fingerprint=lambda settings: FINGERPRINT, **board.options,
    )  # fmt: skip
    assert board.trainer.ran == []
    assert {row.name for row in board.plan.rows} == {row["name"] for row in whole["rows"]}
    before = (board.output / "board.plan.json").read_bytes()
    run_board(
        some, ["ml-100k"], [1], board.words, board.output, Console(file=io.StringIO()), board="board", floors=[],
        run_cell=board.trainer, fingerprint=lambda settings: FINGERPRINT,
    )  # fmt: skip
    assert not (board.output / "board.plan.json").exists(), "rows that are not tuned have no plan"
    assert (board.output / "board.plan.json.earlier").read_bytes() == before


TRIAL = '{"number": %d, "state": "complete", "value": 0.7}'
TUNED = (
    '{"rows": [{"dataset": "a", "name": "x", "tuning": {"study": "s", "wanted": 2, "metric": "auc", "higher": true, '
    '"best": %d, "trials": [%s]}}]}'
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("null", "not the plan of a leaderboard: Input should be a valid map"),
        ('{"rows": 3}', "rows: Input should be a valid list"),
        ('{"rows": [{"dataset": "a"}]}', "rows.0.name: Field required"),
        (TUNED % (0, TRIAL % 0 + ", 7"), "rows.0.tuning.trials.1: Input should be a valid map"),
        (TUNED % (0, TRIAL % 1), "rows.0.tuning: trials: expected each once, by number from 0"),
        (TUNED % (1, TRIAL % 0), "rows.0.tuning: best: expected the number of a trial, found 1"),
        (TUNED % (-1, TRIAL % 0), "rows.0.tuning: best: expected the number of a trial, found -1"),
    ],
)
def test_a_plan_that_was_changed_or_damaged_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "board.plan.json"
    path.write_text(TUNED % (0, TRIAL % 0))
    found = find_plan([tmp_path], "board")
    assert found is not None
    assert found.rows[0].tuning is not None
    assert found.rows[0].tuning.best_trial == Trial(number=0, state="complete", value=0.7)
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        find_plan([tmp_path], "board")
    said = str(caught.value)
    assert said.startswith(str(path))
    assert told in said
    assert said.endswith("`leaderboard run` writes it anew")
    assert "\n" not in said


def test_without_the_storage_and_the_plan_trials_are_taken_from_their_records(finished: Board, tmp_path: Path) -> None:
    board = Board(tmp_path)
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    storage = tmp_path / "runs" / ".tuning" / "studies.db"
    storage.write_bytes(storage.read_bytes()[:100] + bytes(5000))
    with pytest.raises(DataError, match=r"studies\.db: the trials cannot be kept there .*do not run again"):
        board.run()
    storage.unlink()
    (board.output / "board.plan.json").unlink()
    board.run()
    assert board.trainer.ran == []
    assert comparable(board) == comparable(finished)


def test_trials_of_a_plan_that_was_changed_are_refused_before_anything_runs(finished: Board, tmp_path: Path) -> None:
    board = Board(tmp_path)
    shutil.copytree(finished.output, board.output)
    path = board.output / "board.plan.json"
    path.write_text(path.read_text().replace('"optimizer.lr": 0.', '"optimizer.lr": 7.'))
    with pytest.raises(DataError, match=r"trial 0 .*optimizer.lr.*plan.json"):
        board.run()
    assert board.trainer.ran == []


def test_more_trials_add_to_those_that_were_run(finished: Board) -> None:
    before = len(finished.trainer.ran)
    fewer = Board(finished.folder, tune=TuneWanted(trials=2, epochs=3, space=SPACE))
    fewer.output = finished.folder / "fewer"
    fewer.run()
    assert len(trials_of(fewer, "PLE").trials) == 2  # the budget is that of this leaderboard
    assert trials_of(fewer, "PLE").best in (0, 1)
    assert [settings for settings in fewer.trainer.ran if settings.trial is not None] == []
    assert len(finished.trainer.ran) == before


# ---- trials that fail -----------------------------------------------------------------------------------------------


def test_trials_of_a_plugin_that_changed_are_run_again(tmp_path: Path) -> None:
    file, trainer = tmp_path / "mine.py", Trainer()
    ran = []
    for content in ("A = 1", "A = 1", "A = 2"):
        file.write_text(content)
        load_plugins([str(file)])
        trainer.ran.clear()
        console = Console(file=io.StringIO(), width=300)
        tune_model(
            "MMoE", "ml-100k", [f"--output_dir={tmp_path / 'runs'}", f"--plugins=[{file}]"],
            TuneWanted(trials=2, epochs=3, space=SPACE), tmp_path / "out", console,
            run_cell=trainer, fingerprint=lambda settings: FINGERPRINT,
        )  # fmt: skip
        ran.append(len(trainer.ran))
        said = console.file.getvalue()  # type: ignore[attr-defined]
        assert f"MMoE-ml-100k.best.yaml --plugins={file}; page" in said
    assert ran == [2, 0, 2]


def test_a_trial_that_fails_counts_and_the_others_go_on(tmp_path: Path) -> None:
    def broken(settings: Settings) -> None:
        if settings.trial is not None and settings.model == "PLE" and settings.trial.number in (0, 2):
            raise RecBoleDTNError("the training loss is nan in epoch 1")

    board = Board(tmp_path)
    board.trainer.before = broken
    board.run()
    tuning = trials_of(board, "PLE")
    assert len(tuning.trials) == TRIALS
    assert [trial.number for trial in tuning.trials if trial.state == "failed"] == [0, 2]
    assert tuning.trials[0].reason == "the training loss is nan in epoch 1"
    assert tuning.best not in (0, 2)
    assert "Trials that ended early count too: " in board.said
    assert "2 failed (PLE 2)" in board.said
    before = len(board.trainer.ran)
    board.run()  # a trial that failed is not tried again
    assert len(board.trainer.ran) == before


def test_a_row_without_a_trial_keeps_its_defaults(tmp_path: Path) -> None:
    def broken(settings: Settings) -> None:
        if settings.trial is not None and settings.model == "PLE":
            raise RecBoleDTNError("no memory")

    board = Board(tmp_path, tune=TuneWanted(trials=2, space=SPACE))
    board.trainer.before = broken
    plan = board.run()
    assert plan.words("ml-100k", "PLE") == ()
    assert "PLE ml-100k: no trial has a value, the defaults stay; 2 failed" in board.said


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_final_seeds_are_not_those_of_trials(tmp_path: Path) -> None:
    board = Board(tmp_path, tune=TuneWanted(trials=3, first_seed=0, space=SPACE))
    with pytest.raises(UsageError, match="seeds: 1, 2 are seeds of trials too"):
        board.run()
    assert board.trainer.ran == []


def test_too_many_trials_are_refused(tmp_path: Path) -> None:
    board = Board(tmp_path, tune=TuneWanted(trials=1_000_000_000, space=SPACE))
    with pytest.raises(UsageError, match="trials: expected 1 to 10000, found 1000000000"):
        board.run()
    assert board.trainer.ran == []
    refuse_trial_seeds([1], TuneWanted(trials=1 << 60, space=SPACE))  # takes no memory


def test_tuning_takes_one_split(tmp_path: Path) -> None:
    board = Board(tmp_path, split_seeds=[1, 2])
    with pytest.raises(UsageError, match="tune: expected one split"):
        board.run()
    assert board.trainer.ran == []


def test_a_space_with_a_wrong_value_is_refused_before_anything_runs(tmp_path: Path) -> None:
    space = {"all": {"dropout": {"choices": [0.0, 1.5]}}}
    board = Board(tmp_path, tune=TuneWanted(trials=2, space=space))
    with pytest.raises(
        UsageError, match=r"space of 'MMoE'.*dropout: expected a number >= 0 and < 1; found '1.5'"
    ) as error:
        board.run()
    assert "Traceback" not in str(error.value)
    assert board.trainer.ran == []


# ---- matching -------------------------------------------------------------------------------------------------------

MATCH = MatchWanted(by="dense", reference="PLE")


def test_matched_rows_run_with_their_widths_in_every_trial(tmp_path: Path, schema: DataSchema) -> None:
    from recbole_dtn.model.sizes import model_parameters

    board = Board(tmp_path, match=MATCH, tune=TuneWanted(trials=2, space=SPACE))
    plan = board.run()
    target = model_parameters(resolve(["--model=PLE", "--embedding_size=4"]).settings, schema)["dense"]
    for settings in board.trainer.ran:
        if settings.model not in ("Logistic", "Boosting"):
            size = model_parameters(settings, schema)["dense"]
            assert abs(size / target - 1) <= 0.05, settings.model
    row = plan.row("ml-100k", "MMoE")
    assert row is not None
    assert row.matched is not None
    assert row.matched.target == target
    assert f"Matched to PLE within 5% of its {target:,} dense parameters: " in board.said
    assert "Not matched, as they have no widths: Logistic, Boosting." in board.said
    record = next((tmp_path / "runs" / "ml-100k" / "MMoE").glob("*/record.json"))
    assert "expert_hidden" in json.loads(record.read_text())["settings"]


@pytest.mark.parametrize(
    ("match", "said"),
    [
        (
            MatchWanted(by="dense", reference="PLEE"),
            "reference: 'PLEE' is not a row of the leaderboard; did you mean 'PLE'",
        ),
        (MatchWanted(by="dense", reference="Boosting"), "reference: 'Boosting' has no widths"),
        (MatchWanted(by="dense", reference="PLE", tolerance=1e-9), "comes no closer to"),
    ],
)
def test_what_cannot_be_matched_is_refused_before_anything_runs(
    tmp_path: Path, schema: DataSchema, match: MatchWanted, said: str
) -> None:
    board = Board(tmp_path, match=match, tune=None)
    with pytest.raises(UsageError) as error:
        board.run()
    assert said in str(error.value)
    assert board.trainer.ran == []


def test_without_match_and_tune_there_is_no_plan(tmp_path: Path) -> None:
    board = Board(tmp_path, tune=None)
    board.output.mkdir()
    (board.output / "board.plan.json").write_text("of an earlier pass")
    with pytest.raises(AssertionError):
        board.run()
    assert not (board.output / "board.plan.json").exists()


def test_the_plan_is_printed_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: DataSchema
) -> None:
    from recbole_dtn.leaderboard import outlook

    monkeypatch.setattr(outlook, "schema_of", lambda settings: schema)
    cells = plan_cells(
        ROWS, ["ml-100k"], [1, 2], [f"--output_dir={tmp_path}", "--epochs=5"], floors=["Boosting"],
    )  # fmt: skip
    text = io.StringIO()
    show_outlook(
        cells, MATCH, TuneWanted(trials=4, epochs=3, space=SPACE), Console(file=text, width=200),
        seconds_per_epoch=lambda settings: None if settings.model == "Boosting" else 36.0,
    )  # fmt: skip
    lines = {line.split()[0]: line.split() for line in text.getvalue().splitlines() if line.strip()}
    # 2 seeds of 5 epochs and 4 trials of 3 at 36 s: 22 epochs are .22 h.
    assert lines["PLE"][-5:] == ["2", "4", "2", "36.0", "0.22"]
    assert lines["PLE"][2] == "own"
    assert lines["MMoE"][2].startswith("expert_hidden=[")
    assert "4 rows, 7 cells, 16 trials; training at most 0.7 h" in text.getvalue()
    assert not list(tmp_path.iterdir())


def test_the_trials_of_a_step_start_with_those_of_the_slowest_row(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.trainer.seconds = {"PLE": 9.0, "SharedBottom": 5.0}
    board.run()
    steps: dict[int, list[str]] = {}
    for settings in board.trainer.ran:
        if settings.trial is not None and settings.model != "Boosting":
            steps.setdefault(settings.trial.number, []).append(settings.model)
    assert steps.pop(0) == ["MMoE", "SharedBottom", "PLE"]
    assert list(steps.values()) == [["PLE", "SharedBottom", "MMoE"]] * (TRIALS - 1)


# ---- one model ------------------------------------------------------------------------------------------------------


def test_tune_writes_the_best_settings_for_config_files(tmp_path: Path) -> None:
    trainer, text = Trainer(), io.StringIO()
    words = [f"--output_dir={tmp_path / 'runs'}", "--epochs=3", "--tasks.love.weight=2"]
    found = tune_model(
        "MMoE", "ml-100k", words, TuneWanted(trials=7, space=SPACE), tmp_path / "out", Console(file=text, width=200),
        run_cell=trainer, fingerprint=lambda settings: FINGERPRINT,
    )  # fmt: skip
    best = found.tuning.best_trial
    assert best is not None
    again = resolve([], config_files=[found.best_file]).settings
    assert again.optimizer.lr == best.params["optimizer.lr"]
    assert again.tasks[1].weight == 2
    assert again.epochs == 10, "the epochs of trials are not those of a run"
    # All settings but the trial's own are those of the run of the best trial.
    ran = next(settings for settings in trainer.ran if settings.trial and settings.trial.number == best.number)
    left_out = {"output_dir": None, "seed": None, "trial": None, "epochs": None}
    assert {**again.dump(), **left_out} == {**ran.dump(), **left_out}
    written = yaml.safe_load(found.best_file.read_text())
    assert set(written) <= {"model", "dataset", "tasks", "optimizer", "dropout", "experts"}
    page = found.page.read_text()
    assert "<h3>Tuning</h3>" in page
    assert page.count("<tr><td>") + page.count('<tr class="chosen"><td>') == 7
    assert "fANOVA" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "share of the variance of weighted_auc" in text.getvalue()


def test_fewer_trials_than_are_recorded_leave_the_best_settings_as_they_are(tmp_path: Path) -> None:
    trainer, texts, said = Trainer(), [], ""
    for trials in (7, 2):
        text = io.StringIO()
        found = tune_model(
            "MMoE", "ml-100k", [f"--output_dir={tmp_path / 'runs'}", "--limit_rows=4000"],
            TuneWanted(trials=trials, epochs=3, space=SPACE), tmp_path / "out", Console(file=text, width=200),
            run_cell=trainer, fingerprint=lambda settings: FINGERPRINT,
        )  # fmt: skip
        texts.append(found.best_file.read_text())
        said = text.getvalue()
    assert len(trainer.ran) == 7
    assert "7 trials are recorded, more than trials=2: all of them count" in said
    assert texts[0] == texts[1]
    assert " of 7, of at most 3 epochs, limit_rows=4000: weighted_auc" in texts[0]


def test_a_model_without_anything_to_tune_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing of Logistic is tuned"):
        tune_model(
            "Logistic", "ml-100k", [], TuneWanted(trials=2, space=SPACE), tmp_path, Console(file=io.StringIO()),
            run_cell=Trainer(), fingerprint=lambda settings: FINGERPRINT,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset=ml-100k"], "--model is needed"),
        (["--model=MMoE", "--dataset=ml-100k", "--trials=0"], "--trials: expected 1 or more, found 0"),
        (["--model=MMoE", "--dataset=ml-100k", "--seed=3"], "--seed=3: each trial has a seed of its own; --first_seed"),
        (["--model=MMoF", "--dataset=ml-100k"], "did you mean 'MMoE'"),
    ],
)
def test_wrong_words_of_tune(shown: Callable[..., tuple[int, str, str]], words: list[str], said: str) -> None:
    code, _, err = shown("tune", *words)
    assert (code, said in err) == (2, True), err
